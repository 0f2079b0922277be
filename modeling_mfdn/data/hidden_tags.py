"""Hiding tags from the model (paper §IV-B.5: "randomly discard a portion of the tags")."""

import numpy as np
import torch

from ..configuration_mfdn import IGNORE_INDEX, MFDNConfig


def hide_tags(
    input_ids: torch.Tensor,
    mask_ratio: float | torch.Tensor,
    config: MFDNConfig,
    generator: torch.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace a random share of each post's tags by [MASK]; special tokens stay.

    The share is exact in expectation for any number of tags: a post of k tags hides floor(k * ratio) of them, and one
    more with the probability that is left, where rounding would never hide the only tag of a post below ratio 0.5.

    Args:
        input_ids: [B, T] tag ids and special tokens.
        mask_ratio: in [0, 1], one number or one a post [B].
        generator: on the device of `input_ids`.

    Returns:
        input_ids [B, T] with [MASK] where a tag is hidden, and tag_labels [B, T]: the hidden tag's label (its id minus
        the special tokens), IGNORE_INDEX elsewhere.
    """
    is_tag = input_ids >= config.num_special_tokens
    num_tags = is_tag.sum(dim=1)
    rounding = torch.rand(len(input_ids), generator=generator, device=input_ids.device)
    num_hidden = (num_tags * mask_ratio + rounding).floor().minimum(num_tags)
    lottery = torch.rand(input_ids.shape, generator=generator, device=input_ids.device).masked_fill(~is_tag, 2.0)
    is_hidden = lottery.argsort(dim=1).argsort(dim=1) < num_hidden[:, None]
    tag_labels = torch.where(is_hidden, input_ids - config.num_special_tokens, IGNORE_INDEX)
    return input_ids.masked_fill(is_hidden, config.mask_token_id), tag_labels


def hide_half(input_ids: torch.Tensor, post_id: torch.Tensor, config: MFDNConfig) -> torch.Tensor:
    """`input_ids` with half of each post's tags (rounded up) replaced by [MASK]. Arguments as of show_some."""
    num_tags = (input_ids >= config.num_special_tokens).sum(dim=1, keepdim=True)
    return show_some(input_ids, post_id, config, num_tags // 2)


def show_some(
    input_ids: torch.Tensor, post_id: torch.Tensor, config: MFDNConfig, num_given: torch.Tensor | int
) -> torch.Tensor:
    """`input_ids` with all but `num_given` of each post's tags replaced by [MASK].

    Which ones follows from a hash of post and tag: not from slots, batch or seed, so all models get the same tags, and
    a larger number adds to those of a smaller one.

    Args:
        input_ids: [B, T] as MFDNCollator makes them.
        post_id: [B].
        num_given: a number, or one for each post [B, 1].
    """
    is_tag = input_ids >= config.num_special_tokens
    key = _hash(input_ids + _hash(post_id)[:, None]).masked_fill(~is_tag, torch.iinfo(torch.int64).max)
    rank = key.argsort(dim=1, stable=True).argsort(dim=1)
    return input_ids.masked_fill(is_tag & (rank >= num_given), config.mask_token_id)


def _hash(values: torch.Tensor) -> torch.Tensor:
    """Mixes int64 into [0, 2⁶²): multiply (wraps round, the same on every device), shift, multiply."""
    values = values * -7046029254386353131
    values = (values ^ ((values >> 32) & 0xFFFFFFFF)) * -4658895280553007687
    return (values ^ ((values >> 29) & 0x7FFFFFFFF)) & (2**62 - 1)


def step_generator(seed: int, step: int, micro_step: int, rank: int, device: torch.device) -> torch.Generator:
    """A generator that depends on where training stands and on nothing else, so a resumed run equals the unbroken one.

    Args:
        step: optimizer updates done.
        micro_step: batches since then (gradient accumulation).
        rank: process index.
    """
    mixed = np.random.SeedSequence([seed, step, micro_step, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed))

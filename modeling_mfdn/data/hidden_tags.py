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


def step_generator(seed: int, step: int, micro_step: int, rank: int, device: torch.device) -> torch.Generator:
    """A generator that depends on where training stands and on nothing else, so a resumed run equals the unbroken one.

    Args:
        step: optimizer updates done.
        micro_step: batches since then (gradient accumulation).
        rank: process index.
    """
    mixed = np.random.SeedSequence([seed, step, micro_step, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(mixed))

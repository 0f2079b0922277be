"""Schedules over optimizer steps: the share of hidden tags (Eq. 7) and the learning rate. Pure functions."""

import math

import torch
from transformers import TrainerCallback

# Name: the peak that it has unless another is asked for.
SCHEDULES = {"cosine_hold": 1.0, "linear_hold": 1.0, "constant": 0.15, "per_post": 0.5, "none": 0.0}


def mask_ratio(step: int, total_steps: int, hold_from: float = 0.5) -> float:
    """Fraction of a post's tags to hide at optimizer step `step`, in [0, 1].

    Rises from 0 to 1 along a cosine over the first `hold_from` of the training, then stays at 1, so that the model
    ends on images alone.

    Args:
        step: optimizer updates done, 0 <= step <= total_steps. Neither micro-batches nor epochs.
        total_steps: optimizer updates in the whole run, > 0.
        hold_from: where the ratio reaches 1, as a fraction of the run in (0, 1]. The paper: 0.5.
    """
    # Paper: Eq. 7 read literally falls back to 0 after half of the training, while the text masks "and hold[s] all the
    # language modality inputs when the training process reaches the halfway point". Here: the text, because falling
    # back would undo the decoupling that the schedule exists for.
    progress = min(1.0, step / (hold_from * total_steps))
    return 1.0 - max(0.0, 0.5 * (1.0 + math.cos(progress * math.pi)))


class MaskScheduler(TrainerCallback):
    """Sets `ratio` at the start of each optimizer step, from the trainer's state alone: resuming needs nothing else.

    It lives in the training process, not in the collator, whose workers run several steps ahead.

    Args:
        schedule: "cosine_hold" is Eq. 7, then held; "linear_hold" rises along a line; "constant" is BERT's; "per_post"
            hides all tags of some posts (a share that rises along the cosine to `peak`) and of each other post a
            share drawn evenly from [0, 1], so that hints stay in use to the end; "none" never hides a tag ("MFDN
            without MLM").
        hold_from: see [`mask_ratio`].
        peak: where the schedule ends, in [0, 1]; None = 1 for the holds, 0.15 for constant, 0.5 for per_post.
    """

    def __init__(self, schedule: str = "cosine_hold", hold_from: float = 0.5, peak: float | None = None):
        if schedule not in SCHEDULES:
            raise ValueError(f"mask_schedule must be one of {tuple(SCHEDULES)}, got {schedule!r}.")
        if not 0.0 < hold_from <= 1.0:
            raise ValueError(f"mask_hold_from is a fraction of the training in (0, 1], got {hold_from}.")
        if peak is not None and not 0.0 <= peak <= 1.0:
            raise ValueError(f"mask_peak is a share in [0, 1], got {peak}.")
        if schedule == "none" and peak:
            raise ValueError(f"mask_schedule none hides nothing, so mask_peak {peak} means nothing to it.")
        self.schedule = schedule
        self.hold_from = hold_from
        self.peak = SCHEDULES[schedule] if peak is None else peak
        self._share = 0.0  # of tags, or of posts without any tag with "per_post"

    def on_step_begin(self, args, state, control, **kwargs):
        if self.schedule in ("cosine_hold", "per_post"):
            self._share = self.peak * mask_ratio(state.global_step, state.max_steps, self.hold_from)
        elif self.schedule == "linear_hold":
            self._share = self.peak * min(1.0, state.global_step / (self.hold_from * state.max_steps))
        else:
            self._share = self.peak

    @property
    def ratio(self) -> float:
        """The share of tags that is hidden in this step, on average."""
        return self._share + (1 - self._share) / 2 if self.schedule == "per_post" else self._share

    def draw(self, num_posts: int, generator: torch.Generator) -> float | torch.Tensor:
        """The ratio for a batch: one number, or one a post, [B] on the generator's device."""
        if self.schedule != "per_post":
            return self._share
        lottery = torch.rand(num_posts, 2, generator=generator, device=generator.device)
        return torch.where(lottery[:, 0] < self._share, 1.0, lottery[:, 1])


PAPER_WARMUP_STEPS = 1_000
RATE_SCHEDULES = ("two_stage", "cosine")
STAGE_CUT = 0.6  # 30 of the paper's 50 epochs
MIDDLE_FACTOR = 0.6  # 6e-4 of 1e-3
FINAL_FACTOR = 1e-9  # 1e-12 of 1e-3


def default_warmup_steps(total_steps: int) -> int:
    """1,000 steps, or a twentieth of a run shorter than 20,000."""
    # Paper: "warmup", without a length. Here: animesion's 1,000 steps, scaled down for short runs, which would
    # otherwise end before the warm-up does.
    return min(PAPER_WARMUP_STEPS, total_steps // 20)


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int, schedule: str = "two_stage") -> float:
    """What the base learning rate is multiplied by at optimizer step `step`.

    With the paper's base rate of 1e-3: linear warm-up, cosine from 1e-3 to 6e-4 over the first 60 % of the run, cosine
    from 6e-4 to 1e-12 over the rest. The schedule "cosine" is one cosine to the end.

    Args:
        step: optimizer updates done, 0 <= step <= total_steps.
        total_steps: optimizer updates in the whole run, > 0.
        warmup_steps: the first update has the factor 1 / warmup_steps; 0 = no warm-up.
    """
    cut = STAGE_CUT * total_steps
    if schedule == "cosine":
        start, end, progress = 1.0, FINAL_FACTOR, step / total_steps
    elif step < cut:
        start, end, progress = 1.0, MIDDLE_FACTOR, step / cut
    else:
        start, end, progress = MIDDLE_FACTOR, FINAL_FACTOR, (step - cut) / (total_steps - cut)
    decay = end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return decay * min(1.0, (step + 1) / warmup_steps) if warmup_steps else decay

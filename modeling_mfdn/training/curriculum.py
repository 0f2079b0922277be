"""The curriculum: how many tags are hidden at which step (paper §IV-B.6, Eq. 7)."""

import math

from transformers import TrainerCallback

SCHEDULES = ("cosine_hold", "none")


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
        schedule: "cosine_hold" is Eq. 7, then held at 1; "none" never hides a tag ("MFDN without MLM").
        hold_from: see [`mask_ratio`].
    """

    def __init__(self, schedule: str = "cosine_hold", hold_from: float = 0.5):
        if schedule not in SCHEDULES:
            raise ValueError(f"mask_schedule must be one of {SCHEDULES}, got {schedule!r}.")
        if not 0.0 < hold_from <= 1.0:
            raise ValueError(f"mask_hold_from is a fraction of the training in (0, 1], got {hold_from}.")
        self.schedule = schedule
        self.hold_from = hold_from
        self.ratio = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        if self.schedule == "cosine_hold":
            self.ratio = mask_ratio(state.global_step, state.max_steps, self.hold_from)

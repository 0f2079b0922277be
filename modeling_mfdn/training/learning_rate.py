"""The learning rate: warm-up, then two stages of cosine decay (paper §V-A)."""

import math

PAPER_WARMUP_STEPS = 1_000
STAGE_CUT = 0.6  # 30 of the paper's 50 epochs
MIDDLE_FACTOR = 0.6  # 6e-4 of 1e-3
FINAL_FACTOR = 1e-9  # 1e-12 of 1e-3


def default_warmup_steps(total_steps: int) -> int:
    """1,000 steps, or a twentieth of a run shorter than 20,000."""
    # Paper: "warmup", without a length. Here: animesion's 1,000 steps, scaled down for short runs, which would
    # otherwise end before the warm-up does.
    return min(PAPER_WARMUP_STEPS, total_steps // 20)


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    """What the base learning rate is multiplied by at optimizer step `step`.

    With the paper's base rate of 1e-3: linear warm-up, cosine from 1e-3 to 6e-4 over the first 60 % of the run, cosine
    from 6e-4 to 1e-12 over the rest.

    Args:
        step: optimizer updates done, 0 <= step <= total_steps.
        total_steps: optimizer updates in the whole run, > 0.
        warmup_steps: the first update has the factor 1 / warmup_steps; 0 = no warm-up.
    """
    cut = STAGE_CUT * total_steps
    if step < cut:
        start, end, progress = 1.0, MIDDLE_FACTOR, step / cut
    else:
        start, end, progress = MIDDLE_FACTOR, FINAL_FACTOR, (step - cut) / (total_steps - cut)
    decay = end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return decay * min(1.0, (step + 1) / warmup_steps) if warmup_steps else decay

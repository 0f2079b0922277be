import pytest

from modeling_mfdn.training.schedules import default_warmup_steps, learning_rate_factor

PAPER_RATE = 1e-3


@pytest.mark.parametrize("step, rate", [(0, 1e-3), (300, 8e-4), (600, 6e-4), (800, 3e-4), (1000, 1e-12)])
def test_two_stage_cosine_has_the_papers_values(step, rate):
    assert PAPER_RATE * learning_rate_factor(step, 1000, warmup_steps=0) == pytest.approx(rate, rel=1e-6)


def test_warmup_is_linear_and_never_zero():
    factors = [learning_rate_factor(step, 100_000, warmup_steps=4) for step in range(5)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0], rel=1e-4)


def test_warmup_is_1000_steps_or_a_twentieth_of_a_short_run():
    assert default_warmup_steps(900_000) == 1000
    assert default_warmup_steps(600) == 30

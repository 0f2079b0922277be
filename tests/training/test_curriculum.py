from types import SimpleNamespace

import pytest
import torch

from modeling_mfdn.training.schedules import MaskScheduler, mask_ratio


def at(step: int, *arguments, **options) -> MaskScheduler:
    """A scheduler at a step of 100."""
    scheduler = MaskScheduler(*arguments, **options)
    scheduler.on_step_begin(None, SimpleNamespace(global_step=step, max_steps=100), None)
    return scheduler


@pytest.mark.parametrize("step, expected", [(0, 0.0), (10, 0.0954915), (25, 0.5), (50, 1.0), (75, 1.0), (100, 1.0)])
def test_mask_ratio_is_eq_7_and_then_held(step, expected):
    assert mask_ratio(step, 100) == pytest.approx(expected, abs=1e-6)


def test_mask_ratio_never_falls():
    ratios = [mask_ratio(step, 333) for step in range(334)]
    assert ratios == sorted(ratios)


def test_hold_point_moves_the_ramp():
    assert mask_ratio(30, 100, hold_from=0.3) == pytest.approx(1.0)
    assert mask_ratio(30, 100, hold_from=0.6) == pytest.approx(0.5)


def test_scheduler_follows_the_trainer_state_alone():
    scheduler = MaskScheduler()
    for step in (30, 10):  # a resumed run may start anywhere
        scheduler.on_step_begin(None, SimpleNamespace(global_step=step, max_steps=100), None)
        assert scheduler.ratio == mask_ratio(step, 100)


def test_schedule_none_never_hides_a_tag():
    scheduler = MaskScheduler("none")
    scheduler.on_step_begin(None, SimpleNamespace(global_step=90, max_steps=100), None)
    assert scheduler.ratio == 0.0


@pytest.mark.parametrize(
    "schedule, options, expected",
    [
        ("linear_hold", {}, [0.0, 0.5, 1.0, 1.0]),
        ("linear_hold", {"hold_from": 1.0, "peak": 0.8}, [0.0, 0.2, 0.4, 0.8]),
        ("constant", {}, [0.15] * 4),
        ("constant", {"peak": 1.0}, [1.0] * 4),
        ("cosine_hold", {"peak": 0.9}, [0.0, 0.45, 0.9, 0.9]),
        ("per_post", {}, [0.5, 0.625, 0.75, 0.75]),  # half of the other posts' tags, on average
    ],
)
def test_other_schedules(schedule, options, expected):
    assert [at(step, schedule, **options).ratio for step in (0, 25, 50, 100)] == pytest.approx(expected)


def test_per_post_hides_all_tags_of_a_share_of_posts_and_a_random_share_of_the_others():
    generator = torch.Generator().manual_seed(0)
    ratios = at(100, "per_post", peak=0.3).draw(20_000, generator)
    assert ratios.shape == (20_000,) and ratios.min() >= 0
    assert (ratios == 1).float().mean() == pytest.approx(0.3, abs=0.02)
    assert ratios[ratios < 1].mean() == pytest.approx(0.5, abs=0.02)
    assert ratios.mean() == pytest.approx(at(100, "per_post", peak=0.3).ratio, abs=0.02)
    assert at(40, "cosine_hold").draw(5, generator) == at(40, "cosine_hold").ratio


@pytest.mark.parametrize(
    "arguments",
    [{"schedule": "sine"}, {"hold_from": 0.0}, {"hold_from": 1.5}, {"peak": 1.2}, {"peak": 0.4, "schedule": "none"}],
)
def test_scheduler_refuses_what_it_does_not_know(arguments):
    with pytest.raises(ValueError, match=str(next(iter(arguments.values())))):
        MaskScheduler(**arguments)

from types import SimpleNamespace

import pytest

from modeling_mfdn.training.curriculum import MaskScheduler, mask_ratio


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


@pytest.mark.parametrize("arguments", [{"schedule": "linear"}, {"hold_from": 0.0}, {"hold_from": 1.5}])
def test_scheduler_refuses_what_it_does_not_know(arguments):
    with pytest.raises(ValueError, match=str(next(iter(arguments.values())))):
        MaskScheduler(**arguments)

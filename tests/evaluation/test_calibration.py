"""Temperature and thresholds: against their definitions, and from the command line into the saved model."""

import json

import pytest
import torch
from test_evaluate_mfdn import dataset, run, save_model  # noqa: F401  (fixture)

from modeling_mfdn import MFDNProcessor
from modeling_mfdn.evaluation.metrics import NUM_BINS, ScoreHistogram, calibration_error
from modeling_mfdn.evaluation.predictions import TEMPERATURES, Calibrator


def test_overconfident_logits_are_cooled_to_the_temperature_they_were_heated_with():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 6, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]  # the logits mean what they say
    calibrator = Calibrator()
    for start in range(0, 4000, 700):
        rows = slice(start, start + 700)
        calibrator.add({"image": {"logits": 2.5 * logits[rows]}, "labels": labels[rows]})
    bins, best = calibrator.bins, int(calibrator.losses.argmin())
    assert calibrator.compute()["temperature"] == pytest.approx(TEMPERATURES[best].item(), abs=1e-4)
    assert TEMPERATURES[best] == pytest.approx(2.5, rel=0.08)
    assert TEMPERATURES[len(TEMPERATURES) // 2] == 1
    assert calibration_error(bins[best]) < 0.03 < 0.1 < calibration_error(bins[len(TEMPERATURES) // 2])
    assert bins[best][:, 0].sum() == 4000


def test_calibration_error_by_hand():
    bins = torch.tensor([[2.0, 0.4, 1.0], [0.0, 0.0, 0.0], [8.0, 7.2, 6.0]])
    assert calibration_error(bins) == pytest.approx((0.6 + 1.2) / 10)


def test_each_tag_gets_its_best_threshold_and_rare_ones_that_of_all():
    columns = [0.9, 0.8, 0.7, 0.2, 0.1], [0.305, 0.305, 0.305, 0.105, 0.1], [0.5, 0.5, 0.1, 0.1, 0.9]
    scores = torch.tensor(columns).T
    targets = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]).bool()
    histogram = ScoreHistogram(3)
    for part in (slice(0, 2), slice(2, 5)):
        histogram.add(scores[part], targets[part], torch.ones_like(targets[part]))
    assert histogram.counts[1].sum() == 15 and histogram.counts[0].sum(dim=1).tolist() == [3, 3, 1]
    threshold, _ = histogram.best_threshold()
    thresholds = histogram.best_thresholds()
    assert 0.2 < thresholds[0] <= 0.7 and 0.1 < thresholds[1] <= 0.31
    assert thresholds[2] == pytest.approx(threshold, rel=1e-3)


def test_thresholds_are_found_where_most_tags_live_far_below_a_hundredth():
    scores = torch.tensor([[4e-4, 3e-5], [3e-4, 2e-5], [2e-4, 1.5e-5], [1e-5, 1e-7], [2e-5, 1e-6]])
    targets = torch.tensor([[1, 1], [1, 1], [1, 1], [0, 0], [0, 0]]).bool()
    histogram = ScoreHistogram(2)
    histogram.add(scores, targets, torch.ones_like(targets))
    first, second = histogram.best_thresholds()
    assert 2e-5 < first <= 2e-4 and 1e-6 < second <= 1.5e-5
    assert histogram.average_precision().tolist() == [1, 1] and histogram.counts.shape == (2, 2, NUM_BINS)


def test_calibrate_stores_with_the_model_what_it_fitted(dataset, tmp_path, capsys):  # noqa: F811
    model = save_model(tmp_path / "model")
    before = MFDNProcessor.from_pretrained(model)
    assert before.temperature == 1 and before.tag_thresholds is None
    run("--model", model, "--dataset", dataset, "--split", "validation", "--calibrate")
    processor = MFDNProcessor.from_pretrained(model)
    found = json.loads((tmp_path / "model" / "results_validation.json").read_text())["calibration"]
    assert processor.temperature == found["temperature"] != 1 and len(processor.tag_thresholds) == 8
    assert found["error_after"] <= found["error_before"] + 0.05 and sum(found["share"]) == pytest.approx(1)
    assert (tmp_path / "model" / "reliability.png").stat().st_size > 5_000
    assert "expected calibration error" in capsys.readouterr().out


def test_test_data_never_calibrate(dataset, tmp_path):  # noqa: F811
    model = save_model(tmp_path / "model")
    with pytest.raises(ValueError, match="never on test"):
        run("--model", model, "--dataset", dataset, "--calibrate")

"""Temperature and thresholds: against their definitions, and from the command line into the saved model."""

import json

import pytest
import torch
from test_evaluate_mfdn import dataset, run, save_model  # noqa: F401  (fixture)

from modeling_mfdn import MFDNProcessor
from modeling_mfdn.evaluation.calibration import (
    CONFIDENCE_BINS,
    SCORE_BINS,
    TEMPERATURES,
    add_characters,
    add_tags,
    best_thresholds,
    calibration_error,
)


def test_overconfident_logits_are_cooled_to_the_temperature_they_were_heated_with():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 6, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]  # the logits mean what they say
    losses, bins = torch.zeros(len(TEMPERATURES)), torch.zeros(len(TEMPERATURES), CONFIDENCE_BINS, 3)
    for start in range(0, 4000, 700):
        add_characters(2.5 * logits[start : start + 700], labels[start : start + 700], losses, bins)
    best = int(losses.argmin())
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
    counts = torch.zeros(2, 3, SCORE_BINS)
    add_tags(scores[:2], targets[:2], counts)
    add_tags(scores[2:], targets[2:], counts)
    assert counts.sum() == 15 and counts[1].sum(dim=1).tolist() == [3, 3, 1]
    threshold, thresholds = best_thresholds(counts)
    assert 0.2 < thresholds[0] <= 0.7 and 0.1 < thresholds[1] <= 0.31
    assert thresholds[2] == threshold


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

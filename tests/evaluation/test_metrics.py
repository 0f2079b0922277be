"""Metrics against values worked out by hand or by an exact, slow formula."""

import pytest
import torch

from modeling_mfdn.evaluation.metrics import NO_CHARACTER, TagMetrics, TopKAccuracy


def exact_average_precision(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """scikit-learn's: Σ (recall step) x precision over distinct scores, ties together."""
    total, hits_before = 0.0, 0
    for score in scores.unique().flip(0):
        chosen = scores >= score
        hits = int((chosen & targets).sum())
        total += (hits - hits_before) * hits / int(chosen.sum())
        hits_before = hits
    return total / int(targets.sum())


def tag_results(scores, targets, given=None, **options):
    metric = TagMetrics(scores.shape[1], **options)
    metric.add_batch(predictions=scores, references=targets, given=given)
    return metric.compute()


# Characters


def test_top_k_accuracy_by_hand():
    metric = TopKAccuracy()
    metric.add_batch(predictions=[[4, 0, 1, 2, 3], [7, 6, 5, 4, 3]], references=[4, 3])
    metric.add_batch(predictions=[[4, 3, 2, 1, 0], [9, 8, 7, 6, 5]], references=[4, 4])
    results = metric.compute()
    assert results["top1_accuracy"] == 0.5
    assert results["top5_accuracy"] == 0.75
    # Character 4: two of three right; character 3: none of one.
    assert results["macro_top1_accuracy"] == pytest.approx((2 / 3 + 0) / 2)


def test_fewer_than_five_columns_are_an_error_unless_filled_up():
    metric = TopKAccuracy()
    metric.add_batch(predictions=[[1, 0]], references=[0])
    with pytest.raises(ValueError, match=r"\[1, 2\].*NO_CHARACTER"):
        metric.compute()
    metric = TopKAccuracy()
    metric.add_batch(predictions=[[1, 0] + [NO_CHARACTER] * 3], references=[0])
    assert metric.compute() == {"top1_accuracy": 0.0, "top5_accuracy": 1.0, "macro_top1_accuracy": 0.0}


# Tags


def test_tag_metrics_by_hand():
    scores = torch.tensor([[0.9, 0.6, 0.1, 0.2], [0.8, 0.1, 0.7, 0.3]])
    targets = torch.tensor([[True, False, True, False], [False, False, True, False]])
    results = tag_results(scores, targets, threshold=0.5)["all"]
    assert results["num_tags"] == 4 and results["num_positives"] == 3
    # Wrong at 0.5: (0, 1) and (1, 0) too many, (0, 2) missing.
    assert results["hamming_error"] == pytest.approx(3 / 8)
    assert results["predict_nothing"]["hamming_error"] == pytest.approx(3 / 8)
    # 2 hits, 4 predicted, 3 true.
    assert results["micro_f1"] == pytest.approx(2 * 2 / (4 + 3))
    # Tag 0: 1 hit, 2 predicted, 1 true; tag 2: 1 hit, 1 predicted, 2 true; the others have no positive.
    assert results["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    # Image 0, the two best are 0 and 1: tag 2 missed. Image 1, the best is 0: tag 2 missed.
    assert results["miss_rate"] == pytest.approx(2 / 3)
    # Most frequent, image 0: 0 and 1, tag 2 missed. Image 1: 0, tag 2 missed.
    assert results["most_frequent"]["miss_rate"] == pytest.approx(2 / 3)
    # Tag 0: its positive is first. Tag 2: both are positive.
    assert results["mean_average_precision"] == pytest.approx(1.0)
    assert results["most_frequent"]["mean_average_precision"] == pytest.approx((0.5 + 1.0) / 2)


def test_given_tags_are_neither_predicted_nor_targets():
    scores = torch.tensor([[0.9, 0.6, 0.1, 0.2], [0.9, 0.1, 0.7, 0.3]])
    targets = torch.tensor([[True, False, True, False], [False, False, True, False]])
    given = torch.tensor([[True, False, False, False], [False, False, False, False]])
    results = tag_results(scores, targets, given, threshold=0.5)["all"]
    assert results["num_positives"] == 2
    assert results["hamming_error"] == pytest.approx(3 / 7)
    # Image 0 has one tag left; the best that was not given is 1: missed. Most frequent not given: 1 as well.
    assert results["miss_rate"] == 1.0
    assert results["most_frequent"]["miss_rate"] == 1.0
    assert results["mean_average_precision"] == 1.0


@pytest.mark.parametrize("power", [1, 8, 30])
def test_histogram_average_precision_is_close_to_exact(power):
    generator = torch.Generator().manual_seed(power)
    scores = torch.rand(3000, 6, generator=generator) ** power
    targets = torch.rand(3000, 6, generator=generator) < 0.5 * scores.sqrt() * torch.logspace(0, -2, 6)
    targets[0] = True
    metric = TagMetrics(6)
    for chunk in range(0, 3000, 700):
        metric.add_batch(predictions=scores[chunk : chunk + 700], references=targets[chunk : chunk + 700])
    exact = sum(exact_average_precision(scores[:, tag], targets[:, tag]) for tag in range(6)) / 6
    assert metric.compute()["all"]["mean_average_precision"] == pytest.approx(exact, abs=0.01)


def test_histogram_average_precision_of_confident_scores_is_close_to_exact():
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(2000, 3, generator=generator) < 0.3
    scores = (8 * torch.randn(2000, 3, generator=generator) + 6 * targets).sigmoid()
    exact = sum(exact_average_precision(scores[:, tag], targets[:, tag]) for tag in range(3)) / 3
    assert tag_results(scores, targets)["all"]["mean_average_precision"] == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("score", [0.0, 1e-20, 0.3, 1.0])
def test_a_constant_score_has_the_average_precision_of_the_prevalence(score):
    targets = torch.tensor([[True, True], [False, True], [False, False], [False, False]])
    results = tag_results(torch.full((4, 2), score), targets)["all"]
    assert results["mean_average_precision"] == pytest.approx((0.25 + 0.5) / 2)
    assert results["mean_average_precision"] == results["most_frequent"]["mean_average_precision"]


def test_groups_are_the_most_frequent_tags_and_never_larger_than_the_vocabulary():
    targets = torch.zeros(2, 30, dtype=torch.bool)
    targets[:, [0, 28]] = True
    results = tag_results(torch.rand(2, 30), targets)
    assert {name: group["num_tags"] for name, group in results.items()} == {"top25": 25, "top200": 30, "all": 30}
    assert {name: group["num_positives"] for name, group in results.items()} == {"top25": 2, "top200": 4, "all": 4}


def test_batches_add_up_and_compute_starts_anew():
    generator = torch.Generator().manual_seed(1)
    scores, targets = torch.rand(10, 40, generator=generator), torch.rand(10, 40, generator=generator) < 0.2
    metric = TagMetrics(40, threshold=0.4)
    for _ in range(2):
        metric.add_batch(predictions=scores[:3], references=targets[:3])
        metric.add_batch(predictions=scores[3:], references=targets[3:])
        assert metric.compute() == tag_results(scores, targets, threshold=0.4)


def test_best_threshold_is_the_best_of_all_and_absent_unless_asked_for():
    generator = torch.Generator().manual_seed(2)
    scores = torch.rand(500, 5, generator=generator)
    targets = torch.rand(500, 5, generator=generator) < scores**3
    tuned = tag_results(scores, targets, tune_threshold=True)["all"]
    at_best = tag_results(scores, targets, threshold=tuned["best_threshold"] + 1e-6)["all"]
    assert at_best["micro_f1"] == pytest.approx(tuned["micro_f1_best"], abs=1e-3)
    others = [tag_results(scores, targets, threshold=t / 20)["all"]["micro_f1"] for t in range(20)]
    assert tuned["micro_f1_best"] >= max(others) - 2e-3
    assert "best_threshold" not in tag_results(scores, targets)["all"]


def test_no_positive_at_all_gives_zeros_and_no_nan():
    results = tag_results(torch.rand(3, 4), torch.zeros(3, 4, dtype=torch.bool), tune_threshold=True)["all"]
    assert results["miss_rate"] == results["mean_average_precision"] == results["macro_f1"] == 0.0


def test_scores_that_are_no_scores_and_wrong_shapes_are_errors():
    targets = torch.zeros(2, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        tag_results(torch.full((2, 4), -1.5), targets)
    with pytest.raises(ValueError, match=r"\[n, 4\].*\[2, 5\]"):
        TagMetrics(4).add_batch(predictions=torch.rand(2, 5), references=targets)
    with pytest.raises(ValueError, match="add_batch"):
        TagMetrics(4).compute()

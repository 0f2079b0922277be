"""Scores that mean what they say: a temperature for characters and a threshold for each tag, fitted on validation.

Nothing is kept of a picture but a few sums, so 90,000 pictures of 14,413 characters fit as well as a hundred.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from ..data.images import apply_color
from ..processing_mfdn import aggregate_tag_scores
from .predictions import gather_readable

TEMPERATURES = torch.logspace(-1.0, 1.0, 81, base=4.0)  # 0.25 to 4, steps of 3.5 %
CONFIDENCE_BINS = 15  # as Guo et al., 2017
SCORE_BINS = 100
MIN_POSITIVES = 3  # a tag seen less often on validation keeps the threshold of all


@dataclass
class Calibration:
    """What was fitted.

    Args:
        temperature: divides the logits of characters (Guo et al., 2017, On Calibration of Modern Neural Networks).
        error_before, error_after: expected calibration error over 15 bins of confidence, in [0, 1], at temperature 1
            and at `temperature`.
        confidence, accuracy, share: [15] of each bin at `temperature`, for the reliability plot; 0 where it is empty.
        tag_threshold: with the best micro-F1 over all tags; None for a model that predicts no tags.
        tag_thresholds: [K] with the best F1 of each tag, `tag_threshold` where the tag is too rare to tell.
    """

    temperature: float
    error_before: float
    error_after: float
    confidence: list[float]
    accuracy: list[float]
    share: list[float]
    tag_threshold: float | None = None
    tag_thresholds: list[float] | None = None


def calibrate(
    model: nn.Module, dataloader: Iterable[dict[str, torch.Tensor]], accelerator: Accelerator, tag_aggregation: str
) -> Calibration:
    """Fit both from the image alone.

    Args:
        model: prepared; its training mode is restored.
        dataloader: of the validation split, prepared, batches of `MFDNCollator(training=False)`.
        tag_aggregation: see `aggregate_tag_scores`.

    Raises:
        ValueError: there is no batch.
    """
    config = accelerator.unwrap_model(model).config
    losses, bins = torch.zeros(len(TEMPERATURES)), torch.zeros(len(TEMPERATURES), CONFIDENCE_BINS, 3)
    tag_counts = torch.zeros(2, config.num_tags, SCORE_BINS) if config.predicts_tags else None
    was_training, num_images = model.training, 0
    model.eval()
    try:
        for batch in dataloader:
            pixel_values = apply_color(batch["pixel_values"], batch.get("color_matrix"))
            with torch.inference_mode(), accelerator.autocast():
                outputs = model(pixel_values=pixel_values)
            found = {"logits": outputs.logits.float(), "labels": batch["labels"]}
            if tag_counts is not None:
                found["scores"] = aggregate_tag_scores(outputs.tag_logits, tag_aggregation, config.max_tags)
                found["targets"] = batch["tag_targets"]
            found = {name: values.cpu() for name, values in gather_readable(accelerator, found, batch)[0].items()}
            num_images += len(found["labels"])
            add_characters(found["logits"], found["labels"], losses, bins)
            if tag_counts is not None:
                add_tags(found["scores"], found["targets"], tag_counts)
    finally:
        model.train(was_training)
    if not num_images:
        raise ValueError("The data loader gave no batch: the split is empty.")
    best, plain = int(losses.argmin()), len(TEMPERATURES) // 2
    count, confidence, hits = bins[best].unbind(dim=1)
    result = Calibration(
        temperature=round(TEMPERATURES[best].item(), 4),
        error_before=calibration_error(bins[plain]),
        error_after=calibration_error(bins[best]),
        confidence=(confidence / count.clamp(min=1)).tolist(),
        accuracy=(hits / count.clamp(min=1)).tolist(),
        share=(count / num_images).tolist(),
    )
    if tag_counts is not None:
        result.tag_threshold, result.tag_thresholds = best_thresholds(tag_counts)
    return result


def add_characters(logits: torch.Tensor, labels: torch.Tensor, losses: torch.Tensor, bins: torch.Tensor) -> None:
    """Add a batch to the sum of losses [temperatures] and to (number, confidence, hits) [temperatures, bins, 3]."""
    hits = (logits.argmax(dim=1) == labels).float()
    for i, temperature in enumerate(TEMPERATURES):
        log_probabilities = (logits / temperature).log_softmax(dim=1)
        losses[i] += nn.functional.nll_loss(log_probabilities, labels, reduction="sum")
        bins[i] += confidence_bins(log_probabilities.amax(dim=1).exp(), hits)


def confidence_bins(confidence: torch.Tensor, hits: torch.Tensor) -> torch.Tensor:
    """(number, sum of confidences, sum of hits) [bins, 3] of pictures with a confidence and 1 for right [N]."""
    place = (confidence * CONFIDENCE_BINS).long().clamp(max=CONFIDENCE_BINS - 1)
    values = torch.stack([torch.ones_like(hits), confidence, hits], dim=1)
    return torch.zeros(CONFIDENCE_BINS, 3).index_add_(0, place, values)


def calibration_error(bins: torch.Tensor) -> float:
    """Expected calibration error of (number, confidence, hits) [bins, 3]: mean distance of confidence and accuracy."""
    count, confidence, hits = bins.unbind(dim=1)
    return ((confidence - hits).abs().sum() / count.sum()).item()


def add_tags(scores: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor) -> None:
    """Add a batch to the histograms of scores of absent and present tags [2, K, bins]."""
    place = (scores * SCORE_BINS).long().clamp(0, SCORE_BINS - 1)
    tag = torch.arange(scores.shape[1]).expand_as(place)
    flat = (targets.long() * scores.shape[1] + tag) * SCORE_BINS + place
    counts.view(-1).index_add_(0, flat.flatten(), torch.ones(flat.numel()))


def best_thresholds(counts: torch.Tensor) -> tuple[float, list[float]]:
    """The threshold of the best micro-F1, and that of the best F1 of each tag [K], from histograms [2, K, bins]."""
    false, true = counts.flip(dims=[2]).cumsum(dim=2).flip(dims=[2])  # with a score of this bin or above
    positives = counts[1].sum(dim=1, keepdim=True)
    edges = torch.arange(SCORE_BINS) / SCORE_BINS
    micro = 2 * true.sum(dim=0) / (true.sum(dim=0) + false.sum(dim=0) + positives.sum()).clamp(min=1)
    threshold = edges[micro.argmax()].item()
    f1 = 2 * true / (true + false + positives).clamp(min=1)
    thresholds = edges[f1.argmax(dim=1)]
    # Of rare tags nothing is known, and 0 would name a tag of every picture.
    thresholds[(positives[:, 0] < MIN_POSITIVES) | (thresholds == 0)] = threshold
    return round(threshold, 2), [round(value, 2) for value in thresholds.tolist()]

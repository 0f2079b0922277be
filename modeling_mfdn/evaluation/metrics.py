"""Accuracy of characters, quality and thresholds of tags, confidence: the arithmetic, without a model."""

from collections import Counter
from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
import torch
from torch import nn

NO_CHARACTER = -1  # fills a top-5 when the model knows fewer than 5 characters
TAG_GROUPS = {"top25": 25, "top200": 200, "all": None}  # the most frequent tags, as in Table VI
NUM_BINS = 1024
TAGS_AT_ONCE = 2048
MIN_POSITIVES = 3  # a tag seen less often on validation keeps the threshold of all
CONFIDENCE_BINS = 15  # as Guo et al., 2017
MAX_BINS = 8  # of training images
LOWEST_LOG_ODDS, HIGHEST_LOG_ODDS = -21.0, 14.0  # scores from 8e-10 to 1 - 8e-7; the bins are 0.034 wide


class TopKAccuracy(evaluate.Metric):
    """Top-1, top-5 and macro top-1 accuracy in [0, 1].

    `add_batch(predictions=[n, 5] labels, best first, references=[n] labels)`, then `compute()`. A caller that has
    fewer than 5 characters fills up with `NO_CHARACTER`: fewer columns are an error, never a quieter metric.
    """

    def __init__(self, **kwargs):
        # In memory: two processes on one machine would otherwise lock the same cache file.
        super().__init__(keep_in_memory=True, **kwargs)

    def _info(self):
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            features=datasets.Features(
                predictions=datasets.List(datasets.Value("int64")), references=datasets.Value("int64")
            ),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        predictions, references = np.asarray(predictions), np.asarray(references)
        if predictions.ndim != 2 or predictions.shape[1] != 5:
            raise ValueError(
                f"Predictions must be [n, 5] labels, best first, got {list(predictions.shape)}. With fewer than 5 "
                f"characters fill up with NO_CHARACTER ({NO_CHARACTER})."
            )
        hits = predictions == references[:, None]
        posts = np.bincount(references)
        top1_of_character = np.bincount(references, weights=hits[:, 0]) / np.maximum(posts, 1)
        return {
            "top1_accuracy": float(hits[:, 0].mean()),
            "top5_accuracy": float(hits.any(axis=1).mean()),
            # The mean over the characters that occur: rare ones count as much as frequent ones.
            "macro_top1_accuracy": float(top1_of_character[posts > 0].mean()),
        }


class ScoreHistogram:
    """Scores of tags, counted in 1,024 bins of their log odds: 3.4 % wide everywhere, also below 0.01, where most of
    25,404 tags live. Memory does not grow with the number of images: two int32 [K, 1024], 208 MB at K = 25,404, on the
    device of the scores.
    """

    def __init__(self, num_tags: int):
        self.num_tags = num_tags
        self.counts: torch.Tensor | None = None  # int32 [2, K, NUM_BINS]: positives, all scored

    def add(self, scores: torch.Tensor, positives: torch.Tensor, scored: torch.Tensor) -> None:
        """Count a batch, [n, K] each: scores float in [0, 1], true tags bool, tags that count bool.

        Raises:
            ValueError: scores outside [0, 1].
        """
        if self.counts is None:
            self.counts = torch.zeros((2, self.num_tags, NUM_BINS), dtype=torch.int32, device=scores.device)
        log_odds = torch.log(scores) - torch.log1p(-scores)  # -inf at 0 and inf at 1: the outermost bins
        if bool(log_odds.isnan().any()):
            raise ValueError("Scores must be in [0, 1], found others or NaN. Use aggregate_tag_scores or a sigmoid.")
        position = (log_odds - LOWEST_LOG_ODDS) / (HIGHEST_LOG_ODDS - LOWEST_LOG_ODDS) * NUM_BINS
        cell = position.clamp_(0, NUM_BINS - 1).long()
        cell += torch.arange(self.num_tags, device=scores.device) * NUM_BINS
        one = torch.ones((), dtype=torch.int32, device=scores.device)
        for histogram, counted in zip(self.counts, (positives, scored), strict=True):
            cells = cell[counted]
            histogram.view(-1).scatter_add_(0, cells, one.expand(cells.shape))

    def parts(self, size: int | None = None):
        """(positives, scored) float64 [k, NUM_BINS] with a score of this bin or above, of so many tags at a time.

        [K, NUM_BINS] in float64 would be 208 MB a copy.
        """
        size = self.num_tags if size is None else size
        for start in range(0, size, TAGS_AT_ONCE):
            part = self.counts[:, start : min(start + TAGS_AT_ONCE, size)].cpu().double()
            yield part.flip(-1).cumsum(dim=-1).flip(-1)

    def average_precision(self, size: int | None = None) -> torch.Tensor:
        """[size] float64, 0 for tags without positives."""
        precisions = []
        for positives, scored in self.parts(size):
            precision = positives / scored.clamp(min=1)
            in_bin = positives - nn.functional.pad(positives[:, 1:], (0, 1))
            precisions.append((in_bin * precision).sum(dim=1) / positives[:, 0].clamp(min=1))
        return torch.cat(precisions)

    def best_threshold(self, size: int | None = None) -> tuple[float, float]:
        """The threshold of the best micro F1 over the first `size` tags, and that F1."""
        hits, predicted = torch.stack([part.sum(dim=1) for part in self.parts(size)]).sum(dim=0)
        f1 = 2 * hits / (predicted + hits[0]).clamp(min=1)
        best = int(f1.argmax())
        return lower_edges()[best].item(), float(f1[best])

    def best_thresholds(self, min_positives: int = MIN_POSITIVES) -> list[float]:
        """The threshold of the best F1 of each tag [K]; that of all for tags with fewer than `min_positives`."""
        threshold_of_all, _ = self.best_threshold()
        edges, found = lower_edges(), []
        for hits, predicted in self.parts():
            f1 = 2 * hits / (predicted + hits[:, :1]).clamp(min=1)
            best = f1.argmax(dim=1)
            thresholds = edges[best]
            # Of rare tags nothing is known, and 0 would name a tag of every picture.
            thresholds[(hits[:, 0] < min_positives) | (best == 0)] = threshold_of_all
            found += thresholds.tolist()
        return [float(f"{threshold:.4g}") for threshold in found]


def lower_edges() -> torch.Tensor:
    """[NUM_BINS] float64: the lowest score of each bin, 0 for the first."""
    log_odds = torch.linspace(LOWEST_LOG_ODDS, HIGHEST_LOG_ODDS, NUM_BINS + 1, dtype=torch.float64)[:-1]
    edges = log_odds.sigmoid()
    edges[0] = 0.0
    return edges


class TagMetrics:
    """Tag metrics for the 25 and 200 most frequent tags and for all tags (Table VI).

    Paper: Table VI's 'Error' is not defined, and cannot be the Hamming error, at which predicting nothing would beat
    both systems. Here: several measures beside those of two trivial predictors, because no single one says enough.

    `add_batch(predictions=[n, K] scores in [0, 1], references=[n, K] bool, given=[n, K] bool or None)`; `given` tags
    were shown to the model: they are neither predicted nor targets. Batches are added up as counts, see
    [`ScoreHistogram`].

    `compute()` gives for each of "top25", "top200", "all" (a vocabulary with fewer tags has the smaller group that
    `num_tags` says):

    - `num_tags`, `num_positives` (pairs of image and tag that are true);
    - `hamming_error`: share of wrong decisions at `threshold`; `micro_f1`, `macro_f1` at `threshold`, the latter over
      tags with at least one positive;
    - `miss_rate`: 1 - recall at k = the image's true number of tags in the group, micro over images. No threshold;
    - `mean_average_precision`: macro over tags with at least one positive. Approximate: scores that fall in the same
      of 1,024 bins (of log odds, 3.4 % wide) are ties, and ties count as in scikit-learn, all at the precision of the
      last of them. So a constant score has the average precision of the tag's prevalence;
    - with `tune_threshold`: `micro_f1_best` and its `best_threshold`, of this very split: for validation only;
    - `predict_nothing` and `most_frequent`: what one gets for no tags, and for each image its true number of the most
      frequent tags.

    Args:
        num_tags: K; the vocabulary is in the order of frequency.
        threshold: a tag is predicted when its score is at least this.
        tune_threshold: also search the threshold with the best micro F1.
    """

    def __init__(self, num_tags: int, threshold: float = 0.5, tune_threshold: bool = False):
        self.num_tags, self.threshold, self.tune_threshold = num_tags, threshold, tune_threshold
        self.groups = {name: min(size or num_tags, num_tags) for name, size in TAG_GROUPS.items()}
        self._reset()

    def _reset(self):
        self._counts: dict[str, torch.Tensor] = {}  # int64 [K] each
        self.histogram = ScoreHistogram(self.num_tags)
        self._misses = {name: {"model": 0, "most_frequent": 0} for name in self.groups}

    def add_batch(
        self, *, predictions: torch.Tensor, references: torch.Tensor, given: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Count a batch: scores float [n, K] in [0, 1], targets bool [n, K], given bool [n, K].

        Returns for each group the share of true tags that each image [n] has among its k best; 1 where it has none.
        """
        if predictions.shape != references.shape or predictions.shape[1:] != (self.num_tags,):
            raise ValueError(
                f"Scores and targets must be [n, {self.num_tags}], got {list(predictions.shape)} and "
                f"{list(references.shape)}."
            )
        scores = predictions.float()
        scored = torch.ones_like(references) if given is None else ~given
        positives = references & scored
        predicted = (scores >= self.threshold) & scored
        for name, values in {
            "scored": scored,
            "positives": positives,
            "predicted": predicted,
            "hits": predicted & positives,
        }.items():
            self._counts[name] = self._counts.get(name, 0) + values.sum(dim=0)
        self.histogram.add(scores, positives, scored)
        frequency = torch.arange(self.num_tags, 0, -1, dtype=torch.float32, device=scores.device).expand_as(scores)
        found = {}
        for name, size in self.groups.items():
            true_counts = positives[:, :size].sum(dim=1)
            for predictor, values in (("most_frequent", frequency), ("model", scores)):
                ranked = values[:, :size].masked_fill(~scored[:, :size], -1.0)
                misses = _misses_at_true_count(ranked, positives[:, :size])
                self._misses[name][predictor] += int(misses.sum())
            found[name] = 1 - misses / true_counts.clamp(min=1)
        return found

    def compute(self) -> dict[str, dict]:
        """The metrics of everything added since the last call; counting starts anew."""
        if not self._counts:
            raise ValueError("TagMetrics.compute needs at least one add_batch before it.")
        # Counted where the scores were, summed up here: Apple's GPUs know no float64.
        self._counts = {name: values.cpu() for name, values in self._counts.items()}
        results = {name: self._group(name, size) for name, size in self.groups.items()}
        self._reset()
        return results

    def _group(self, name: str, size: int) -> dict:
        scored, positives, predicted, hits = (
            self._counts[key][:size].double() for key in ("scored", "positives", "predicted", "hits")
        )
        has_positive = positives > 0
        num_positives, num_scored = positives.sum(), scored.sum()
        f1_of_tag = 2 * hits / (predicted + positives).clamp(min=1)
        prevalence = positives / scored.clamp(min=1)
        results = {
            "num_tags": size,
            "num_positives": int(num_positives),
            "hamming_error": _ratio((predicted + positives - 2 * hits).sum(), num_scored),
            "micro_f1": _ratio(2 * hits.sum(), predicted.sum() + num_positives),
            "macro_f1": _mean(f1_of_tag[has_positive]),
            "miss_rate": _ratio(self._misses[name]["model"], num_positives),
            "mean_average_precision": _mean(self.histogram.average_precision(size)[has_positive]),
            "predict_nothing": {"hamming_error": _ratio(num_positives, num_scored)},
            "most_frequent": {
                "miss_rate": _ratio(self._misses[name]["most_frequent"], num_positives),
                "mean_average_precision": _mean(prevalence[has_positive]),
            },
        }
        if self.tune_threshold:
            threshold, f1 = self.histogram.best_threshold(size)
            results |= {"micro_f1_best": f1, "best_threshold": threshold}
        return results


def accuracy_by_training_images(
    labels: torch.Tensor, predicted: torch.Tensor, training_images: Sequence[int]
) -> list[dict]:
    """Accuracy in bins of the number of training images of the character.

    Args:
        labels, predicted: [N].
        training_images: [C] of each character.

    Returns:
        At most 8 bins of equal width on a log scale, those that have images, rarest first: `{"from", "to" (number of
        training images, inclusive), "characters", "images", "top1_accuracy"}`.
    """
    counts = np.asarray(training_images)
    known = np.unique(labels.numpy())  # characters of this split
    low, high = max(1, counts[known].min()), max(2, counts[known].max())
    edges = np.unique(np.geomspace(low, high + 1, MAX_BINS + 1).round().astype(int))
    edges[0] = min(edges[0], counts[known].min())
    found = []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        members = known[(counts[known] >= start) & (counts[known] < end)]
        in_bin = np.isin(labels.numpy(), members)
        if in_bin.any():
            accuracy = float((labels == predicted).numpy()[in_bin].mean())
            found.append(
                {
                    "from": int(start),
                    "to": int(end - 1),
                    "characters": len(members),
                    "images": int(in_bin.sum()),
                    "top1_accuracy": accuracy,
                }
            )
    return found


def most_confused(labels: torch.Tensor, predicted: torch.Tensor, names: Sequence[str], number: int = 20) -> list[dict]:
    """Pairs of characters taken for one another, in either direction, most often first.

    Returns:
        `{"characters": [a, b], "errors": pictures of one that were given the other's name, "images": of both}`.
    """
    images = Counter(labels.tolist())
    wrong = torch.stack([labels, predicted], dim=1)[labels != predicted]
    pairs = Counter(tuple(sorted(pair)) for pair in wrong.tolist())
    ranked = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:number]
    return [
        {"characters": [names[a], names[b]], "errors": errors, "images": images[a] + images[b]}
        for (a, b), errors in ranked
    ]


def confidence_bins(confidence: torch.Tensor, hits: torch.Tensor) -> torch.Tensor:
    """(number, sum of confidences, sum of hits) [bins, 3] of pictures with a confidence and 1 for right [N]."""
    place = (confidence * CONFIDENCE_BINS).long().clamp(max=CONFIDENCE_BINS - 1)
    values = torch.stack([torch.ones_like(hits), confidence, hits], dim=1)
    return torch.zeros(CONFIDENCE_BINS, 3).index_add_(0, place, values)


def calibration_error(bins: torch.Tensor) -> float:
    """Expected calibration error of (number, confidence, hits) [bins, 3]: mean distance of confidence and accuracy."""
    count, confidence, hits = bins.unbind(dim=1)
    return ((confidence - hits).abs().sum() / count.sum()).item()


def _misses_at_true_count(ranked: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """True tags of each image [n] that are not among its k best, k being its number of true tags."""
    true_counts = positives.sum(dim=1)
    most = int(true_counts.max()) if len(true_counts) else 0
    best = ranked.topk(most, dim=1).indices  # [n, most]
    is_within = torch.arange(most, device=best.device) < true_counts[:, None]
    return true_counts - (positives.gather(1, best) & is_within).sum(dim=1)


def _ratio(numerator, denominator) -> float:
    """0 when there is nothing to count."""
    return float(numerator) / float(denominator) if float(denominator) else 0.0


def _mean(values: torch.Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0

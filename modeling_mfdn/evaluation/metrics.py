"""Accuracy of characters and quality of tags, as `evaluate.Metric`s that need no network.

Importing `evaluate` takes seconds; only this file does.
"""

import datasets
import evaluate
import numpy as np
import torch

NO_CHARACTER = -1  # fills a top-5 when the model knows fewer than 5 characters
TAG_GROUPS = (("top25", 25), ("top200", 200), ("all", None))  # the most frequent tags, as in Table VI
NUM_BINS = 1024
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


class TagMetrics(evaluate.Metric):
    """How well scores say which tags a post has, for the 25 and 200 most frequent tags and for all (Table VI).

    Paper: Table VI's 'Error' is not defined, and cannot be the Hamming error, at which predicting nothing would beat
    both systems. Here: several measures beside those of two trivial predictors, because no single one says enough.

    `add_batch(predictions=[n, K] scores in [0, 1], references=[n, K] bool, given=[n, K] bool or None)`; `given` tags
    were shown to the model: they are neither predicted nor targets. Batches are added up as counts, so memory does not
    grow with the number of images: two int32 [K, 1024] histograms, 208 MB at K = 25,404, on the device of the scores.

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

    def __init__(self, num_tags: int, threshold: float = 0.5, tune_threshold: bool = False, **kwargs):
        super().__init__(keep_in_memory=True, **kwargs)
        self.num_tags, self.threshold, self.tune_threshold = num_tags, threshold, tune_threshold
        self.groups = {name: min(size or num_tags, num_tags) for name, size in TAG_GROUPS}
        self._reset()

    def _info(self):
        # Features describe the columns; batches go to add_batch, never through Arrow: 25,404 floats an image.
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            features=datasets.Features(
                predictions=datasets.List(datasets.Value("float32")), references=datasets.List(datasets.Value("bool"))
            ),
        )

    def _reset(self):
        self._counts: dict[str, torch.Tensor] = {}  # int64 [K] each
        self._histograms: torch.Tensor | None = None  # int32 [2, K, NUM_BINS]: positives, all scored
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
        self._add_to_histograms(scores, positives, scored)
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

    def add(self, **kwargs):
        """Not for single posts."""
        raise NotImplementedError("TagMetrics counts whole batches: call add_batch.")

    def compute(self) -> dict[str, dict]:
        """The metrics of everything added since the last call; counting starts anew."""
        if self._histograms is None:
            raise ValueError("TagMetrics.compute needs at least one add_batch before it.")
        # Counted where the scores were, summed up here: Apple's GPUs know no float64.
        self._counts = {name: values.cpu() for name, values in self._counts.items()}
        self._histograms = self._histograms.cpu()
        results = {name: self._group(name, size) for name, size in self.groups.items()}
        self._reset()
        return results

    def _add_to_histograms(self, scores: torch.Tensor, positives: torch.Tensor, scored: torch.Tensor):
        if self._histograms is None:
            shape = (2, self.num_tags, NUM_BINS)
            self._histograms = torch.zeros(shape, dtype=torch.int32, device=scores.device)
        log_odds = torch.log(scores) - torch.log1p(-scores)  # -inf at 0 and inf at 1: the outermost bins
        if bool(log_odds.isnan().any()):
            raise ValueError("Scores must be in [0, 1], found others or NaN. Use aggregate_tag_scores or a sigmoid.")
        position = (log_odds - LOWEST_LOG_ODDS) / (HIGHEST_LOG_ODDS - LOWEST_LOG_ODDS) * NUM_BINS
        cell = position.clamp_(0, NUM_BINS - 1).long()
        cell += torch.arange(self.num_tags, device=scores.device) * NUM_BINS
        one = torch.ones((), dtype=torch.int32, device=scores.device)
        for histogram, counted in zip(self._histograms, (positives, scored), strict=True):
            cells = cell[counted]
            histogram.view(-1).scatter_add_(0, cells, one.expand(cells.shape))

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
            "mean_average_precision": _mean(self._average_precision(size)[has_positive]),
            "predict_nothing": {"hamming_error": _ratio(num_positives, num_scored)},
            "most_frequent": {
                "miss_rate": _ratio(self._misses[name]["most_frequent"], num_positives),
                "mean_average_precision": _mean(prevalence[has_positive]),
            },
        }
        if self.tune_threshold:
            results |= self._best_threshold(size)
        return results

    def _average_precision(self, size: int, tags_at_once: int = 2048) -> torch.Tensor:
        """[size] float64, 0 for tags without positives."""
        parts = []
        for start in range(0, size, tags_at_once):  # [K, NUM_BINS] in float64 would be 208 MB a copy
            part = self._histograms[:, start : min(start + tags_at_once, size)].flip(-1).double()
            positives, scored = part  # from the highest score to the lowest
            precision = positives.cumsum(dim=1) / scored.cumsum(dim=1).clamp(min=1)
            parts.append((positives * precision).sum(dim=1) / positives.sum(dim=1).clamp(min=1))
        return torch.cat(parts)

    def _best_threshold(self, size: int) -> dict[str, float]:
        positives, scored = self._histograms[:, :size].sum(dim=1).double()
        hits, predicted = (values.flip(0).cumsum(0).flip(0) for values in (positives, scored))
        f1 = 2 * hits / (predicted + positives.sum()).clamp(min=1)
        best = int(f1.argmax())
        lower_edge = LOWEST_LOG_ODDS + best * (HIGHEST_LOG_ODDS - LOWEST_LOG_ODDS) / NUM_BINS
        return {
            "micro_f1_best": float(f1[best]),
            "best_threshold": float(torch.tensor(lower_edge, dtype=torch.float64).sigmoid()) if best else 0.0,
        }


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

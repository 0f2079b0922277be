"""One pass over a split: pictures are decoded once, each forward runs once, and reducers count what they need."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import recursively_apply
from torch import nn
from tqdm.auto import tqdm

from ..configuration_mfdn import IGNORE_INDEX, MFDNConfig
from ..data.dataset import check_bad_share
from ..data.hidden_tags import hide_half, show_some
from ..gallery_mfdn import CharacterStatistics
from ..modeling_baselines_mfdn import multi_hot
from ..processing_mfdn import aggregate_tag_scores
from .metrics import (
    CONFIDENCE_BINS,
    NO_CHARACTER,
    ScoreHistogram,
    TagMetrics,
    TopKAccuracy,
    calibration_error,
    confidence_bins,
)

logger = logging.getLogger(__name__)

HINTS = (0, 1, 2, 4, 8, 16)
TEMPERATURES = torch.logspace(-1.0, 1.0, 81, base=4.0)  # 0.25 to 4, steps of 3.5 %


# ---------------------------------------------------------------- the pass


def predict_split(
    model: nn.Module,
    dataloader: Iterable[dict[str, torch.Tensor]],
    accelerator: Accelerator,
    *,
    tag_aggregation: str = "noisy_or",
    hints: Sequence[int] = (),
    max_batches: int | None = None,
    max_bad_share: float = 0.01,
    progress: bool = True,
    on_step: Callable[[], None] | None = None,
) -> Iterator[dict]:
    """Yields the predictions for every picture of a split, batch by batch, gathered over all processes.

    - "image": the picture alone.
    - "image+tags": the character with all tags given (up to T - 2). Tags by *completion*, a pass in which half of the
      post's tags are hidden.

    Args:
        model: MFDNModel, or one with its outputs and `config`; its training mode is restored.
        dataloader: batches of `MFDNCollator(training=False)`, prepared by `accelerator`.
        accelerator: gathers the batches of all processes.
        tag_aggregation: see `aggregate_tag_scores`.
        hints: numbers of true tags, each of which is a further pass.
        max_batches: stop early.
        max_bad_share: of pictures that cannot be decoded.
        progress: show a bar, on the main process.
        on_step: called after each batch.

    Yields:
        `{"post_id", "labels" [b], "num_broken": int, "image": {"logits" [b, C], "picture_embedding" [b, 2D],
        "scores", "targets" [b, K]}, "image+tags": {"logits", "scores", "targets", "given" [b, K]}, "hints": {number:
        {"logits", "picture_embedding"}}}`; "scores" and the like only of a model that predicts tags, "image+tags" and
        "hints" only of one that reads them.

    Raises:
        ValueError: more than `max_bad_share` of the pictures are broken, or hints for a model without tags.
    """
    config = accelerator.unwrap_model(model).config
    if hints and config.modality != "image+tags":
        raise ValueError("Hints need a model that reads tags; this one takes pictures alone.")
    was_training, num_images, num_broken = model.training, 0, 0
    num_rows = len(getattr(dataloader, "dataset", None) or ())
    bar = tqdm(dataloader, desc="evaluation", disable=not (progress and accelerator.is_main_process), leave=False)
    model.eval()
    try:
        for step, batch in enumerate(bar):
            with torch.inference_mode():
                found = predict_batch(model, batch, config, accelerator, tag_aggregation, hints)
            readable = batch.get("readable", torch.ones_like(batch["labels"], dtype=torch.bool))
            found, readable = accelerator.gather_for_metrics((found, readable))
            broken = int((~readable).sum())
            num_images, num_broken = num_images + int(readable.sum()), num_broken + broken
            check_bad_share(num_broken, max(num_rows, num_images + num_broken), max_bad_share)
            yield recursively_apply(lambda column: column[readable], found) | {"num_broken": broken}  # noqa: B023
            if on_step is not None:
                on_step()
            if step + 1 == max_batches:
                if hasattr(dataloader, "end"):  # accelerate takes leave by itself only of a loader read to its end
                    dataloader.end()
                break
    finally:
        model.train(was_training)
    if not num_images:
        raise ValueError("The data loader gave no picture that can be read: the split is empty, or broken.")


def predict_batch(
    model: nn.Module,
    batch: dict,
    config: MFDNConfig,
    accelerator: Accelerator,
    tag_aggregation: str,
    hints: Sequence[int],
) -> dict:
    """What `predict_split` yields, of this process's batch. The vision encoder runs once."""

    def forward(input_ids=None, **options):
        if input_ids is not None:
            options |= {"input_ids": input_ids, "attention_mask": batch["attention_mask"]}
        with accelerator.autocast():
            return model(**options)

    def tag_scores(outputs, hidden_slots=None):
        return aggregate_tag_scores(outputs.tag_logits, tag_aggregation, config.max_tags, hidden_slots)

    alone = forward(pixel_values=batch["pixel_values"])

    def of_characters(outputs):
        names = [name for name in ("logits", "picture_embedding") if getattr(outputs, name, None) is not None]
        return {name: getattr(outputs, name).float() for name in names}

    found = {"post_id": batch["post_id"], "labels": batch["labels"], "image": of_characters(alone)}
    if config.predicts_tags:
        found["image"] |= {"scores": tag_scores(alone), "targets": batch["tag_targets"]}
    if config.modality != "image+tags":
        return found
    seen, input_ids = {"vision_states": alone.vision_states}, batch["input_ids"]
    with_tags = of_characters(forward(input_ids, return_tag_logits=False, **seen))
    found["image+tags"] = {"logits": with_tags["logits"]}
    if config.predicts_tags:
        half = hide_half(input_ids, batch["post_id"], config)
        is_special = half < config.num_special_tokens
        labels = (half - config.num_special_tokens).masked_fill(is_special, IGNORE_INDEX)
        # The slot of a given tag repeats that tag; only the others say something new.
        found["image+tags"] |= {
            "scores": tag_scores(forward(half, **seen), is_special[:, 1:-1]),
            "targets": batch["tag_targets"],
            "given": multi_hot(labels, config.num_tags),
        }
    if hints:
        said = {0: of_characters(alone), config.max_tags: with_tags}
        for number in hints:
            if number not in said:
                some = show_some(input_ids, batch["post_id"], config, number)
                said[number] = of_characters(forward(some, return_tag_logits=False, **seen))
        found["hints"] = {str(number): said[number] for number in hints}
    return found


def evaluate_model(
    model: nn.Module,
    dataloader: Iterable[dict[str, torch.Tensor]],
    accelerator: Accelerator,
    *,
    tag_aggregation: str = "noisy_or",
    tag_threshold: float = 0.35,  # MFDNProcessor's default
    tune_threshold: bool = False,
    reducers: Sequence = (),
    **options,
) -> dict:
    """Evaluate a model in both modalities. Every image counts once, for any batch size and number of processes.

    Args:
        model, dataloader, accelerator, tag_aggregation, options: see `predict_split`.
        tag_threshold: in [0, 1], for the Hamming error and F1 of tags.
        tune_threshold: also search the best threshold; meant for the validation split.
        reducers: further ones, such as [`Hints`], that count from the same pass.

    Raises:
        ValueError: there is no picture, or more than `max_bad_share` of them are broken.

    Returns:
        On every process the same `{"num_images": n, "num_broken": m, "image": {"top1_accuracy", "top5_accuracy",
        "macro_top1_accuracy", "character_loss", "tags": see TagMetrics}, "image+tags": the same}` and an entry for
        each reducer under its name. Without "image+tags" for a model of the "image" modality, without "tags" for a
        model without tag decoder.
    """
    config = accelerator.unwrap_model(model).config
    if config.num_labels < 5:
        logger.warning("The model knows %d characters: top-5 accuracy is 1 by construction.", config.num_labels)
    modalities = ["image", "image+tags"] if config.modality == "image+tags" else ["image"]
    scores = [Scores(modality, config, tag_threshold, tune_threshold) for modality in modalities]
    reducers = [*scores, *reducers]
    hints = [number for reducer in reducers for number in getattr(reducer, "hints", ())]
    results = {"num_images": 0, "num_broken": 0}
    for found in predict_split(
        model, dataloader, accelerator, tag_aggregation=tag_aggregation, hints=hints, **options
    ):
        results["num_images"] += len(found["labels"])
        results["num_broken"] += found["num_broken"]
        for reducer in reducers:
            reducer.add(found)
    return results | {reducer.name: reducer.compute() for reducer in reducers}


# ---------------------------------------------------------------- reducers
# Each has a name in results.json, `add` takes what `predict_split` yields, `compute` says what was found.


class Scores:
    """Accuracy of characters and quality of tags in one modality."""

    def __init__(self, modality: str, config: MFDNConfig, tag_threshold: float, tune_threshold: bool):
        self.name = modality
        self.accuracy = TopKAccuracy()
        self.losses: list[torch.Tensor] = []
        self.tags = TagMetrics(config.num_tags, tag_threshold, tune_threshold) if config.predicts_tags else None

    def add(self, found: dict) -> None:
        said, labels = found[self.name], found["labels"]
        top5 = said["logits"].topk(min(5, said["logits"].shape[1]), dim=1).indices
        top5 = nn.functional.pad(top5, (0, 5 - top5.shape[1]), value=NO_CHARACTER)
        self.accuracy.add_batch(predictions=top5.tolist(), references=labels.tolist())
        self.losses.append(nn.functional.cross_entropy(said["logits"], labels, reduction="none").cpu().double())
        if self.tags is not None:
            shares = self.tags.add_batch(
                predictions=said["scores"], references=said["targets"], given=said.get("given")
            )
            # For the reducers behind: of each picture what was found, and the counts of all so far.
            said |= {"found": shares, "histogram": self.tags.histogram}

    def compute(self) -> dict:
        results = self.accuracy.compute() | {"character_loss": float(torch.cat(self.losses).mean())}
        return results if self.tags is None else results | {"tags": self.tags.compute()}


class Predictions:
    """What was named for each picture: `{"post_id", "label", "image", "image+tags"}`, int64 [n] each, the characters
    in truth, from the image alone and with all tags given; and `"found_top25"`, `"found_top200"`, `"found_all"`,
    float [n], the share of a picture's true tags that are found from the image alone, 1 - miss rate. With `statistics`
    of the model also `"distance"`, float [n]: how far the picture lies from the mean of its character, root mean
    square over the axes in which pictures of one character have the variance 1; NaN without pictures of it there.
    """

    name = "predictions"

    def __init__(self, statistics: CharacterStatistics | None = None):
        self.statistics = statistics
        self.columns = defaultdict(list)

    def add(self, found: dict) -> None:
        columns = {"post_id": found["post_id"], "label": found["labels"]}
        for modality in ("image", "image+tags"):
            if modality in found:
                columns[modality] = found[modality]["logits"].argmax(dim=1)
        if self.statistics is not None:
            labels = found["labels"].cpu()
            z = self.statistics.axes(found["image"]["picture_embedding"].cpu())
            distance = (z - self.statistics.means[labels].float()).square().mean(dim=1).sqrt()
            columns["distance"] = distance.masked_fill(self.statistics.counts[labels] == 0, float("nan"))
        columns |= {f"found_{group}": shares for group, shares in found["image"].get("found", {}).items()}
        for name, column in columns.items():
            self.columns[name].append(column.cpu())

    def compute(self) -> dict[str, torch.Tensor]:
        return {name: torch.cat(parts) for name, parts in self.columns.items()}


class Hints:
    """Top-1 accuracy with 0, 1, 2, … true tags of each post given, and with all of them (up to T - 2): the curve
    between the two columns of Table V. A post with fewer tags gives those that it has."""

    name = "hints"

    def __init__(self, config: MFDNConfig, numbers: Sequence[int] = HINTS):
        self.hints = (*numbers, config.max_tags)
        self.hits: list[torch.Tensor] = []

    def add(self, found: dict) -> None:
        columns = [found["hints"][str(number)]["logits"].argmax(dim=1) == found["labels"] for number in self.hints]
        self.hits.append(torch.stack(columns, dim=1).cpu().double())

    def compute(self) -> dict[str, float]:
        """`{"0": accuracy, …, "all": accuracy}`."""
        columns = [*map(str, self.hints[:-1]), "all"]
        return dict(zip(columns, torch.cat(self.hits).mean(dim=0).tolist(), strict=True))


class NearTrain:
    """Top-1 accuracy with and without the posts of which a train post shows the same drawing (`near_train` of the
    data set): what the leak between the splits is worth.

    Args:
        post_ids: those posts.
    """

    name = "near_train"

    def __init__(self, post_ids: Iterable[int]):
        self.post_ids = torch.tensor(sorted(post_ids), dtype=torch.int64)
        self.is_near: list[torch.Tensor] = []
        self.hits: dict[str, list[torch.Tensor]] = defaultdict(list)

    def add(self, found: dict) -> None:
        self.is_near.append(torch.isin(found["post_id"].cpu(), self.post_ids))
        for modality in ("image", "image+tags"):
            if modality in found:
                hits = found[modality]["logits"].argmax(dim=1) == found["labels"]
                self.hits[modality].append(hits.cpu().double())

    def compute(self) -> dict:
        """`{"num_near", "num_others": images, "image": {"near", "others": top-1, None of no image}, "image+tags": the
        same}`."""
        near = torch.cat(self.is_near)
        shares = {modality: torch.cat(hits) for modality, hits in self.hits.items()}
        return {"num_near": int(near.sum()), "num_others": int((~near).sum())} | {
            modality: {
                name: hits[rows].mean().item() if rows.any() else None
                for name, rows in (("near", near), ("others", ~near))
            }
            for modality, hits in shares.items()
        }


class Confidence:
    """Calibration from the image alone, at temperature 1 and at the stored temperature."""

    name = "confidence"

    def __init__(self, temperature: float):
        self.temperatures = (1.0, temperature)
        self.truth, self.predicted, self.confidence, self.loss = [], [], [], []

    def add(self, found: dict) -> None:
        logits, labels = found["image"]["logits"].cpu(), found["labels"].cpu()
        scores = torch.stack([(logits / temperature).log_softmax(dim=1) for temperature in self.temperatures], dim=1)
        self.truth.append(labels)
        self.predicted.append(logits.argmax(dim=1))
        self.confidence.append(scores.amax(dim=2).exp())  # [b, temperatures]
        self.loss.append(-scores[torch.arange(len(labels)), :, labels])

    def compute(self) -> dict:
        """`{"truth", "predicted": labels [n], "expected_calibration_error", "negative_log_likelihood":
        {"at_temperature_1", "as_stored"}}`."""
        truth, predicted = torch.cat(self.truth), torch.cat(self.predicted)
        hits = (truth == predicted).float()
        errors = [calibration_error(confidence_bins(column, hits)) for column in torch.cat(self.confidence).unbind(1)]
        losses = torch.cat(self.loss).mean(dim=0).tolist()
        names = ("at_temperature_1", "as_stored")
        return {
            "truth": truth,
            "predicted": predicted,
            "expected_calibration_error": dict(zip(names, errors, strict=True)),
            "negative_log_likelihood": dict(zip(names, losses, strict=True)),
        }


class Calibrator:
    """Fits a temperature for characters (Guo et al., 2017, On Calibration of Modern Neural Networks) and a threshold
    for each tag, from the image alone. Keeps a few sums and no picture, so 90,000 pictures of 14,413 characters fit as
    well as a hundred. Meant for the validation split."""

    name = "calibration"

    def __init__(self):
        self.losses = torch.zeros(len(TEMPERATURES))
        self.bins = torch.zeros(len(TEMPERATURES), CONFIDENCE_BINS, 3)
        self.histogram: ScoreHistogram | None = None  # of Scores, which counts the same tags

    def add(self, found: dict) -> None:
        said = found["image"]
        logits, labels = said["logits"].cpu(), found["labels"].cpu()
        hits = (logits.argmax(dim=1) == labels).float()
        for i, temperature in enumerate(TEMPERATURES):
            log_probabilities = (logits / temperature).log_softmax(dim=1)
            self.losses[i] += nn.functional.nll_loss(log_probabilities, labels, reduction="sum")
            self.bins[i] += confidence_bins(log_probabilities.amax(dim=1).exp(), hits)
        self.histogram = said.get("histogram")

    def compute(self) -> dict:
        """`temperature`, which divides the logits; `error_before`, `error_after`, the expected calibration error in
        [0, 1] at temperature 1 and at this one; `confidence`, `accuracy`, `share` [15] of each bin of confidence, 0
        where it is empty; `tag_threshold` of the best micro F1 and `tag_thresholds` [K] of the best F1 of each tag,
        None for a model that predicts no tags."""
        best, plain = int(self.losses.argmin()), len(TEMPERATURES) // 2
        count, confidence, hits = self.bins[best].unbind(dim=1)
        threshold = thresholds = None
        if self.histogram is not None:
            threshold = float(f"{self.histogram.best_threshold()[0]:.4g}")
            thresholds = self.histogram.best_thresholds()
        return {
            "temperature": round(TEMPERATURES[best].item(), 4),
            "error_before": calibration_error(self.bins[plain]),
            "error_after": calibration_error(self.bins[best]),
            "confidence": (confidence / count.clamp(min=1)).tolist(),
            "accuracy": (hits / count.clamp(min=1)).tolist(),
            "share": (count / count.sum()).tolist(),
            "tag_threshold": threshold,
            "tag_thresholds": thresholds,
        }

"""One pass over a split: characters and tags, from the image alone and from the image with tags."""

import importlib.metadata
import json
import logging
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from accelerate.utils import recursively_apply
from torch import nn
from tqdm.auto import tqdm

from ..configuration_mfdn import MFDNConfig
from ..data.dataset import check_bad_share
from ..data.images import apply_color
from ..processing_mfdn import aggregate_tag_scores
from ..training.files import whole_file, write_whole
from .metrics import NO_CHARACTER, TagMetrics, TopKAccuracy

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "pillow", "simplejpeg")


def evaluate_model(
    model: nn.Module,
    dataloader: Iterable[dict[str, torch.Tensor]],
    accelerator: Accelerator,
    *,
    tag_aggregation: str = "noisy_or",
    tag_threshold: float = 0.35,  # MFDNProcessor's default
    tune_threshold: bool = False,
    max_batches: int | None = None,
    with_predictions: bool = False,
    max_bad_share: float = 0.01,
    progress: bool = True,
) -> dict:
    """Judge a model in both modalities; every image counts once, whatever the batches and processes.

    - "image": the picture alone. Tags: all tags of the post are to be found.
    - "image+tags": characters with all tags given (up to T - 2 of them). Tags: *completion*, a second pass in which
      half of the post's tags are hidden; the tags that were not given are to be found.

    Args:
        model: MFDNModel, or one with its outputs and `config`; its training mode is restored.
        dataloader: batches of `MFDNCollator(training=False)`, prepared by `accelerator`.
        accelerator: gathers the batches of all processes.
        tag_aggregation: see `aggregate_tag_scores`.
        tag_threshold: in [0, 1], for the Hamming error and F1 of tags.
        tune_threshold: also search the best threshold; meant for the validation split.
        max_batches: stop early.
        with_predictions: also say what was named for each picture.
        max_bad_share: of pictures that cannot be decoded. They are counted in "num_broken" and nowhere else.
        progress: show a bar, on the main process.

    Raises:
        ValueError: there is no picture, or more than `max_bad_share` of them are broken.

    Returns:
        On every process the same `{"num_images": n, "num_broken": m, "image": {"top1_accuracy", "top5_accuracy",
        "macro_top1_accuracy", "character_loss", "tags": see TagMetrics}, "image+tags": the same}`. Without
        "image+tags" for a model of the "image" modality, without "tags" for a model without tag decoder. On request
        also `"predictions": {"post_id", "label", "image", "image+tags"}`, an int64 tensor [n] each: the characters in
        truth, from the image alone, and with all tags given; and `"found_top25"`, `"found_top200"`, `"found_all"`,
        float [n]: the share of a picture's true tags that are found from the image alone, 1 - miss rate.
    """
    config = accelerator.unwrap_model(model).config
    modalities = ["image", "image+tags"] if config.modality == "image+tags" else ["image"]
    scores = {modality: _ModalityScores(config, tag_threshold, tune_threshold) for modality in modalities}
    if config.num_labels < 5:
        logger.warning("The model knows %d characters: top-5 accuracy is 1 by construction.", config.num_labels)

    was_training = model.training
    model.eval()
    num_images, num_broken, found = 0, 0, defaultdict(list)
    num_rows = len(getattr(dataloader, "dataset", None) or ())
    bar = tqdm(dataloader, desc="evaluation", disable=not (progress and accelerator.is_main_process), leave=False)
    try:
        for step, batch in enumerate(bar):
            with torch.inference_mode():
                predictions = _predict(model, batch, config, accelerator, tag_aggregation)
            gathered, broken = gather_readable(accelerator, predictions, batch)
            num_broken += broken
            check_bad_share(num_broken, max(num_rows, num_images + num_broken), max_bad_share)
            values = {"post_id": gathered["post_id"], "label": gathered["image"]["labels"]}
            for modality in modalities:
                found_tags = scores[modality].add(gathered[modality])
                values[modality] = gathered[modality]["top5"][:, 0]
                if modality == "image":
                    values |= {f"found_{group}": shares for group, shares in found_tags.items()}
            for name, column in values.items():
                found[name].append(column.cpu())
            num_images += len(gathered["image"]["labels"])
            if step + 1 == max_batches:
                if hasattr(dataloader, "end"):  # accelerate takes leave by itself only of a loader read to its end
                    dataloader.end()
                break
    finally:
        model.train(was_training)
    if not num_images:
        raise ValueError("The data loader gave no picture that can be read: the split is empty, or broken.")
    results = {"num_images": num_images, "num_broken": num_broken}
    results |= {modality: scores[modality].compute() for modality in modalities}
    if with_predictions:
        results["predictions"] = {name: torch.cat(values) for name, values in found.items()}
    return results


def gather_readable(accelerator: Accelerator, values, batch: dict):
    """Tensors [b, …] of all processes, in whatever nest of dictionaries, without what padded the last batch and
    without the rows of pictures that are broken; and the number of the latter."""
    readable = batch.get("readable", torch.ones_like(batch["labels"], dtype=torch.bool))
    values, readable = accelerator.gather_for_metrics((values, readable))
    return recursively_apply(lambda column: column[readable], values), int((~readable).sum())


def format_results(results: dict) -> str:
    """Characters and, of all tags, ranking quality, as a table to print; the rest is in the JSON."""
    lines = [
        f"\n{results['num_images']} images of {results['dataset']}, {results['split']}\n",
        "| modality   | top-1 | top-5 | macro top-1 | tag mAP | tag miss rate |",
        "|------------|------:|------:|------------:|--------:|--------------:|",
    ]
    for modality in ("image", "image+tags"):
        if modality not in results:
            continue
        scores = results[modality]
        tag_cells = "      – |             –"
        if "tags" in scores:
            tags = scores["tags"]["all"]
            tag_cells = f"{tags['mean_average_precision']:7.3f} | {tags['miss_rate']:13.1%}"
        lines.append(
            f"| {modality:<10} | {scores['top1_accuracy']:5.1%} | {scores['top5_accuracy']:5.1%} | "
            f"{scores['macro_top1_accuracy']:11.1%} | {tag_cells} |"
        )
    if results.get("num_broken"):
        lines.append(f"\n{results['num_broken']} further images cannot be decoded and are left out; the log says why.")
    lines.append("\nimage: all tags are to find. image+tags: half of a post's tags are given, the rest is to find.")
    return "\n".join(lines)


def write_results(results: dict, path: str | Path) -> None:
    """Write results as JSON, with the day and what they were computed with; the file is whole or not there."""
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
    results = results | {"date": datetime.now(UTC).date().isoformat(), "commit": checked_out_commit()}
    write_whole(path, json.dumps(results | {"versions": versions}, indent=2) + "\n")


def write_predictions(predictions: dict[str, torch.Tensor], characters: Sequence[str], path: str | Path) -> None:
    """Write what was named for each picture as Parquet, one row a picture, so that two systems can be compared on the
    same pictures. The file is whole or not there.

    Args:
        predictions: of `evaluate_model`.
        characters: their names [C], which stand in place of labels: they stay true whatever the order of a model's.
    """
    names = pa.array(characters, pa.string())
    columns = {column: values.numpy() for column, values in predictions.items()}
    for column in {"label", "image", "image+tags"} & set(columns):
        columns[column] = pa.DictionaryArray.from_arrays(pa.array(columns[column], pa.int32()), names)
    columns["character"] = columns.pop("label")
    with whole_file(path) as unfinished:
        pq.write_table(pa.table(columns).sort_by("post_id"), unfinished, compression="zstd")


def checked_out_commit() -> str | None:
    """Of the code that runs, with a + behind it if files were changed since; None if it is no git checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def hide_half(input_ids: torch.Tensor, post_id: torch.Tensor, config: MFDNConfig) -> torch.Tensor:
    """`input_ids` with half of each post's tags (rounded up) replaced by [MASK]. Arguments as of show_some."""
    num_tags = (input_ids >= config.num_special_tokens).sum(dim=1, keepdim=True)
    return show_some(input_ids, post_id, config, num_tags // 2)


def show_some(
    input_ids: torch.Tensor, post_id: torch.Tensor, config: MFDNConfig, num_given: torch.Tensor | int
) -> torch.Tensor:
    """`input_ids` with all but `num_given` of each post's tags replaced by [MASK].

    Which ones follows from a hash of post and tag: not from slots, batch or seed, so all models get the same hints,
    and who gets more keeps those that she had.

    Args:
        input_ids: [B, T] as MFDNCollator makes them.
        post_id: [B].
        num_given: a number, or one for each post [B, 1].
    """
    is_tag = input_ids >= config.num_special_tokens
    key = _hash(input_ids + _hash(post_id)[:, None]).masked_fill(~is_tag, torch.iinfo(torch.int64).max)
    rank = key.argsort(dim=1, stable=True).argsort(dim=1)
    return input_ids.masked_fill(is_tag & (rank >= num_given), config.mask_token_id)


def _hash(values: torch.Tensor) -> torch.Tensor:
    """Mixes int64 into [0, 2⁶²): multiply (wraps round, the same on every device), shift, multiply."""
    values = values * -7046029254386353131
    values = (values ^ ((values >> 32) & 0xFFFFFFFF)) * -4658895280553007687
    return (values ^ ((values >> 29) & 0x7FFFFFFFF)) & (2**62 - 1)


def _given_tags(input_ids: torch.Tensor, config: MFDNConfig) -> torch.Tensor:
    """[B, K] bool: the tags that `input_ids` show."""
    labels = (input_ids - config.num_special_tokens).clamp(min=-1) + 1  # column 0 takes everything else
    given = torch.zeros(len(input_ids), config.num_tags + 1, dtype=torch.bool, device=input_ids.device)
    return given.scatter_(1, labels, True)[:, 1:]


def _predict(model, batch: dict, config: MFDNConfig, accelerator: Accelerator, tag_aggregation: str) -> dict:
    """{"post_id" [b], modality: {"top5" [b, 5], "losses" [b], "labels" [b], "scores", "targets" [b, K] and maybe
    "given"}}"""
    pixel_values = apply_color(batch["pixel_values"], batch.get("color_matrix"))
    labels = batch["labels"]

    def forward(input_ids=None, **options):
        if input_ids is not None:
            options |= {"input_ids": input_ids, "attention_mask": batch["attention_mask"]}
        with accelerator.autocast():
            return model(pixel_values=pixel_values, **options)

    def tag_scores(outputs, hidden_slots=None):
        if outputs.tag_logits.shape[1] == 1:
            hidden_slots = None  # a single query is always a hidden slot
        return aggregate_tag_scores(outputs.tag_logits, tag_aggregation, config.max_tags, hidden_slots)

    outputs = forward()
    predictions = {"post_id": batch["post_id"], "image": _character_predictions(outputs.logits, labels)}
    if config.predicts_tags:
        predictions["image"] |= {"scores": tag_scores(outputs), "targets": batch["tag_targets"]}
    if config.modality == "image+tags":
        predictions["image+tags"] = _character_predictions(
            forward(batch["input_ids"], return_tag_logits=False).logits, labels
        )
    if config.predicts_tags and config.modality == "image+tags":
        input_ids = hide_half(batch["input_ids"], batch["post_id"], config)
        predictions["image+tags"] |= {
            # The slot of a given tag repeats that tag; only the others say something new.
            "scores": tag_scores(forward(input_ids), input_ids[:, 1:-1] < config.num_special_tokens),
            "targets": batch["tag_targets"],
            "given": _given_tags(input_ids, config),
        }
    return predictions


def _character_predictions(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    logits = logits.float()
    top5 = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return {
        "top5": nn.functional.pad(top5, (0, 5 - top5.shape[1]), value=NO_CHARACTER),
        "losses": nn.functional.cross_entropy(logits, labels, reduction="none"),
        "labels": labels,
    }


class _ModalityScores:
    """What is kept of all batches of one modality: labels, loss and counts, no logits."""

    def __init__(self, config: MFDNConfig, tag_threshold: float, tune_threshold: bool):
        self.accuracy = TopKAccuracy()
        self.losses: list[torch.Tensor] = []
        self.tags = None
        if config.predicts_tags:
            self.tags = TagMetrics(config.num_tags, threshold=tag_threshold, tune_threshold=tune_threshold)

    def add(self, gathered: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the share of its true tags that were found of each picture, by group; {} without tags."""
        self.accuracy.add_batch(predictions=gathered["top5"].tolist(), references=gathered["labels"].tolist())
        self.losses.append(gathered["losses"].cpu().double())
        if self.tags is None:
            return {}
        return self.tags.add_batch(
            predictions=gathered["scores"], references=gathered["targets"], given=gathered.get("given")
        )

    def compute(self) -> dict:
        results = self.accuracy.compute() | {"character_loss": float(torch.cat(self.losses).mean())}
        if self.tags is not None:
            results["tags"] = self.tags.compute()
        return results

"""results.json, the table that is printed, and what was named for each picture."""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..training.files import whole_file, write_whole

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "pillow", "simplejpeg")


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
    if "open_set" in results:
        lines += format_unseen(results)
    if results.get("near_train", {}).get("num_near"):
        lines.append(format_near_train(results["near_train"]))
    if results.get("num_broken"):
        lines.append(f"\n{results['num_broken']} further images cannot be decoded and are left out; the log says why.")
    lines.append("\nimage: all tags are to find. image+tags: half of a post's tags are given, the rest is to find.")
    return "\n".join(lines)


def format_near_train(found: dict) -> str:
    """What posts that train shows too are worth."""
    shares = [
        f"{modality} {found[modality]['others']:.1%} (of them {found[modality]['near']:.1%})"
        for modality in ("image", "image+tags")
        if modality in found and found["num_others"]
    ]
    return f"\ntop-1 without the {found['num_near']} posts that a train post shows too: {', '.join(shares)}"


def format_unseen(results: dict) -> list[str]:
    """Characters that nobody trained: refused, and learnt."""
    found = results["open_set"]
    lines = [
        f"\n{found['num_unseen']} pictures of characters that nobody trained, of {found['unseen']}: "
        f"AUROC {found['auroc']:.3f}, FPR at 95 % TPR {found['fpr95']:.3f}, OSCR {found['oscr']:.3f}, adjusted Rand "
        f"index of their groups {found['adjusted_rand_index']:.3f}\n",
        "| pictures that teach | among new | trained, one ranking | new, one ranking | harmonic mean |",
        "|--------------------:|----------:|---------------------:|-----------------:|--------------:|",
    ]
    for shots, lesson in results["few_shot"].items():
        lines.append(
            f"| {shots:>19} | {lesson['new']:9.1%} | {lesson['known_joint']:20.1%} | {lesson['new_joint']:16.1%} | "
            f"{lesson['harmonic']:13.1%} |"
        )
    return lines


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

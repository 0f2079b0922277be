"""Reads Dan:mul for training and evaluation: rows and vocabularies."""

import glob
import hashlib
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Features, load_dataset_builder
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image as PILImage

from ..configuration_mfdn import IGNORE_INDEX
from .lists import read_dataset_json
from .parquet_rows import ParquetRows

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
COLUMNS = ("post_id", "image", "character", "tags")
REBUILD = "Build the data set again with --verify full, which drops such pictures."
# Whatever a decoder says of a broken file; also a row without one, and a file that is gone.
BROKEN = (OSError, ValueError, TypeError, KeyError, SyntaxError, MemoryError, PILImage.DecompressionBombError)


def load_split(dataset: str, split: str, needs_tags: bool = True) -> ParquetRows:
    """Rows of one split with the columns `COLUMNS`, read from the Parquet files themselves: nothing is copied. Images
    stay encoded bytes, the collator decodes them.

    Args:
        dataset: folder written by `dataset_scripts.build_danmul`, or the id of such a data set on the Hub: each epoch
            reads it over the network, and keeps nothing. Where there is room, `hf download ID --repo-type dataset
            --local-dir DIR` makes a folder of it.
        split: "train", "validation" or "test"; "all" of them that there are; "share" is the part of "test" that
            another data set's test split has too (Dan:share, Table III).
        needs_tags: False where pictures alone are used: then a data set may be without the column `tags`.

    Raises:
        ValueError: no such data set or split, or a column is missing.
    """
    try:
        rows = ParquetRows(find_files(dataset, split))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(
            f"Cannot read split {split!r} of data set {dataset!r}: {error} Needed: a folder written by "
            "`python -m dataset_scripts.build_danmul`, or the id of one on the Hub. If a file is cut or damaged, "
            "build it again with --overwrite."
        ) from error
    columns = [column for column in COLUMNS if needs_tags or column != "tags" or column in rows.column_names]
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        raise ValueError(
            f"Data set {dataset!r} needs the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing, found "
            f"{rows.column_names}. Build it with `python -m dataset_scripts.build_danmul`."
        )
    return rows.with_columns(columns)


def find_files(dataset: str, split: str) -> list[str]:
    """The Parquet files of a split, as the card of the data set names them.

    Raises ValueError, OSError: there is no such data set or split.
    """
    config, name = ("share", "test") if split == "share" else (None, split)
    if Path(dataset).is_dir() and glob.has_magic(str(Path(dataset).resolve())):  # `datasets` takes it for a pattern
        part = Path(dataset, config or "data")
        files = {name: sorted(map(str, part.glob(f"{name}-*.parquet"))) for name in SPLITS}
    else:
        found = load_dataset_builder(dataset, config).config.data_files or {}
        files = {name: list(map(str, paths)) for name, paths in found.items()}
    files = {name: paths for name, paths in files.items() if paths}
    if name == "all":
        return [path for paths in files.values() for path in paths]
    if name not in files:
        raise ValueError(f"it has the splits {', '.join(files) or 'none'}.")
    return files[name]


def read_tag_vocabulary(dataset: str, needs_tags: bool = True) -> list[str]:
    """The K tags of a data set, most frequent first: the tag at position k has label k. Without `needs_tags` none
    where it has no `tags.json`.

    Raises:
        ValueError: the folder (or Hub data set) has no usable `tags.json`.
    """
    try:
        entries = read_dataset_json(dataset, "tags.json")
        entries = sorted(entries, key=lambda entry: -entry["posts"])  # stable: equal counts stay as they are written
        return [entry["tag"] for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FileNotFoundError | EntryNotFoundError) and not needs_tags:
            return []
        raise ValueError(
            f"Data set {dataset!r} needs a tags.json, a list of {{'tag', 'posts', 'score'}}: "
            f"{type(error).__name__}: {error}. Build it with `python -m dataset_scripts.build_danmul`."
        ) from error


def describe_dataset(dataset: str) -> dict:
    """What the card of a model says of its data: `{"source", "drawn", "posts", "splits", "ratings", "rules"}`, from
    build.json; {} where the data set has none."""
    try:
        build = read_dataset_json(dataset, "build.json")
        counts = {name: build["counts"][name] for name in ("posts", "splits", "ratings")}
        return {"source": build["source"], "drawn": build.get("drawn", False), **counts, "rules": build["rules"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_characters(rows: ParquetRows) -> list[str]:
    """Names of the C characters, in the order of their labels: they stand in the schema of the Parquet files."""
    feature = Features.from_arrow_schema(rows.schema)["character"]
    if not isinstance(feature, ClassLabel):
        raise ValueError(f"Column 'character' must be a ClassLabel with the names of the characters, found {feature}.")
    return list(feature.names)


def is_left_out(name: str, share: float, fold: int = 0) -> bool:
    """Whether a character belongs to the `share` that nobody trains on, by a hash of its name: the same in every data
    set and every month. Other folds leave out others; those below 1 / share have no character in common."""
    position = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
    return (position - fold * share) % 1 < share


def map_labels(data_characters: Sequence[str], model_characters: Sequence[str]) -> list[int] | None:
    """The model's label for each character of a data set, `IGNORE_INDEX` for one that it does not know; None when both
    have the same names in the same order."""
    if list(data_characters) == list(model_characters):
        return None
    labels = {name: label for label, name in enumerate(model_characters)}
    return [labels.get(name, IGNORE_INDEX) for name in data_characters]


def rows_of(rows: ParquetRows, characters: Collection[str]) -> ParquetRows:
    """The rows of these characters; the others may be unknown to a model."""
    wanted = np.array([name in characters for name in read_characters(rows)])
    return rows if wanted.all() else rows.select(np.flatnonzero(wanted[rows.column("character").to_numpy()]))


def check_bad_share(num_broken: int, num_pictures: int, max_bad_share: float) -> None:
    """Raises ValueError: more than `max_bad_share` of the pictures cannot be decoded."""
    if num_broken > max_bad_share * num_pictures:
        raise ValueError(
            f"{num_broken:,} of {num_pictures:,} pictures cannot be decoded, more than --max_bad_share "
            f"{max_bad_share:g}; the log names them. {REBUILD}"
        )

"""Reads Dan:mul for training and evaluation: rows and vocabularies."""

import glob
import hashlib
import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from datasets import Dataset, Image, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image as PILImage

from ..configuration_mfdn import IGNORE_INDEX

logger = logging.getLogger(__name__)

COLUMNS = ("post_id", "image", "character", "tags")
REBUILD = "Build the data set again with --verify full, which drops such pictures."
# Whatever a decoder says of a broken file; also a row without one, and a file that is gone.
BROKEN = (OSError, ValueError, TypeError, KeyError, SyntaxError, MemoryError, PILImage.DecompressionBombError)


def load_split(
    dataset: str, split: str, streaming: bool = False, needs_tags: bool = True
) -> Dataset | IterableDataset:
    """Rows of one split with the columns `COLUMNS`; images stay encoded bytes, the collator decodes them.

    Args:
        dataset: folder written by `dataset_scripts.build_danmul`, or the id of such a data set on the Hub.
        split: "train", "validation" or "test"; "share" is the part of "test" that another data set's test split has
            too (Dan:share, Table III).
        streaming: read row by row and never copy the data into the Arrow cache.
        needs_tags: False where pictures alone are used: then a data set may be without the column `tags`.

    Raises:
        ValueError: no such data set or split, or a column is missing.
    """
    try:
        rows = _load_rows(dataset, split, streaming)
    except (FileNotFoundError, ConnectionError, ValueError) as error:
        raise ValueError(
            f"Cannot read split {split!r} of data set {dataset!r}: {error} Needed: a folder written by "
            "`python -m dataset_scripts.build_danmul`, or the id of one on the Hub."
        ) from error
    except DatasetGenerationError as error:
        raise ValueError(
            f"Split {split!r} of data set {dataset!r} cannot be read: {error.__cause__ or error} Is a file cut or "
            "damaged? Build it again with `python -m dataset_scripts.build_danmul --overwrite`."
        ) from error
    found = rows.column_names or []
    columns = [column for column in COLUMNS if needs_tags or column != "tags" or column in found]
    missing = [column for column in columns if column not in found]
    if missing:
        raise ValueError(
            f"Data set {dataset!r} needs the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing, found "
            f"{rows.column_names}. Build it with `python -m dataset_scripts.build_danmul`."
        )
    # Decoding inside `datasets` is always at full size; the collator decodes at the size that it needs.
    return rows.select_columns(columns).cast_column("image", Image(decode=False))


def _load_rows(dataset: str, split: str, streaming: bool) -> Dataset | IterableDataset:
    """`load_dataset` of one split, also from a folder whose name `load_dataset` would take for a pattern."""
    part, name = ("share", "test") if split == "share" else ("data", split)
    if Path(dataset).is_dir() and glob.has_magic(str(Path(dataset).resolve())):
        files = sorted(map(str, Path(dataset, part).glob(f"{name}-*.parquet")))
        if not files:
            raise FileNotFoundError(f"there is no {part}/{name}-*.parquet.")
        escaped = {name: [glob.escape(file) for file in files]}
        return load_dataset("parquet", data_files=escaped, split=name, streaming=streaming)
    if split == "share":
        return load_dataset(dataset, "share", split="test", streaming=streaming)
    return load_dataset(dataset, split=split, streaming=streaming)


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


def read_dataset_json(dataset: str, name: str):
    """A JSON file of a data set, in its folder or on the Hub. Raises OSError or ValueError."""
    path = Path(dataset, name) if Path(dataset).is_dir() else Path(hf_hub_download(dataset, name, repo_type="dataset"))
    return json.loads(path.read_text(encoding="utf-8"))


def describe_dataset(dataset: str) -> dict:
    """What the card of a model says of its data: `{"source", "drawn", "posts", "splits", "ratings", "rules"}`, from
    build.json; {} where the data set has none."""
    try:
        build = read_dataset_json(dataset, "build.json")
        counts = {name: build["counts"][name] for name in ("posts", "splits", "ratings")}
        return {"source": build["source"], "drawn": build.get("drawn", False), **counts, "rules": build["rules"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_characters(rows: Dataset | IterableDataset) -> list[str]:
    """Names of the C characters, in the order of their labels."""
    feature = rows.features["character"]
    if not hasattr(feature, "names"):
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


def rows_of(rows: Dataset, characters: Collection[str]) -> Dataset:
    """The rows of these characters; the others may be unknown to a model."""
    wanted = [name in characters for name in read_characters(rows)]
    if all(wanted):
        return rows
    return rows.select([row for row, label in enumerate(rows["character"][:]) if wanted[label]])


def check_bad_share(num_broken: int, num_pictures: int, max_bad_share: float) -> None:
    """Raises ValueError: more than `max_bad_share` of the pictures cannot be decoded."""
    if num_broken > max_bad_share * num_pictures:
        raise ValueError(
            f"{num_broken:,} of {num_pictures:,} pictures cannot be decoded, more than --max_bad_share "
            f"{max_bad_share:g}; the log names them. {REBUILD}"
        )

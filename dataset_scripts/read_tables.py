"""Posts in tables: the Hub's Parquet metadata, and the published CSVs of DAF:re."""

from __future__ import annotations

import ast
import csv
import io
import re
import tarfile
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from dataset_scripts.records import MAX_RECORD_BYTES, ParseTask, PlainPost, bad_line, split_tags, underscored
from dataset_scripts.split_posts import SPLITS

# The first of each that a file has is read.
PARQUET_COLUMNS = {
    "id": ("id", "post_id", "image_id"),
    "general": ("tag_string_general", "general_tags", "tags_general"),
    "character": ("tag_string_character", "character_tags", "tags_character"),
    "rating": ("rating",),
    "is_deleted": ("is_deleted",),
}
DAFRE_SPLITS = {"train": "train", "val": "validation", "test": "test"}
DAFRE_PATH = re.compile(r"\d{4}/(\d{1,18})\.jpg")


def parquet_columns(names: list[str]) -> dict[str, str]:
    """What is read from a Parquet file: {our name: its column}. Without id or general tags it holds no posts: {}."""
    found = {ours: next((name for name in theirs if name in names), None) for ours, theirs in PARQUET_COLUMNS.items()}
    if not (found["id"] and found["general"] and found["character"]):
        return {}
    return {ours: name for ours, name in found.items() if name}


def read_parquet(task: ParseTask) -> Iterator[object]:
    """The rows of row groups [start, end). Raises ValueError when the file is damaged."""
    try:
        with UPath(task.path).open("rb") as file:
            parquet = pq.ParquetFile(file)
            columns = parquet_columns(parquet.schema_arrow.names)
            number = 0
            for batch in parquet.iter_batches(
                batch_size=10_000, row_groups=list(range(task.start, task.end)), columns=list(columns.values())
            ):
                for row in batch.to_pylist():
                    number += 1
                    yield plain_post({ours: row[name] for ours, name in columns.items()}, task.name, number)
    except pa.ArrowException as error:
        raise ValueError(f"{task.name} cannot be read as Parquet ({error}): get it again, or remove it.") from error


def plain_post(row: dict, name: str, number: int) -> object:
    """The post in a row; a BadLine where a value has another type or range than expected."""
    try:
        post_id = row["id"] if row["id"] is None else int(row["id"])
        if post_id is not None and not 0 <= post_id < 2**63:
            raise ValueError(f"expected an id from 0 to 2**63 - 1, got {post_id}")
        for column in ("character", "general"):
            if not isinstance(row[column], str | list | None):
                raise ValueError(f"expected text or a list of tags, got {row[column]!r}")
        return PlainPost(
            post_id, split_tags(row["character"]), split_tags(row["general"]), str(row.get("rating") or ""),
            bool(row.get("is_deleted")),
        )  # fmt: skip
    except (ValueError, TypeError, AttributeError) as error:
        return bad_line(name, number, error, repr(row)[:1000].encode("utf-8", "backslashreplace"))


def read_dafre(task: ParseTask) -> Iterator[object]:
    """`labels/{train,val,test}.csv`: class_id,dir, with or without header. Tags and names from the files beside it.

    Raises ValueError or FileNotFoundError when those files do not fit.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        yield from dafre_posts(task)
    except (csv.Error, tarfile.TarError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{task.name} or its tags cannot be read to the end ({error}): get them again.") from error


def dafre_posts(task: ParseTask) -> Iterator[object]:
    """The rows of one split."""
    labels = UPath(task.path).parent
    split = UPath(task.path).stem
    names = dafre_names(labels / "classid_classname.csv")
    tags = dafre_tags(labels, split)
    with UPath(task.path).open("r", encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row or row[0] == "class_id":
                yield None
                continue
            match = DAFRE_PATH.fullmatch(row[1]) if len(row) == 2 else None
            if match is None or row[0] not in names:
                reason = "expected class_id,NNNN/ID.jpg with a class of classid_classname.csv"
                yield bad_line(task.name, number, reason, ",".join(row).encode())
                continue
            post_id = int(match[1])
            code = SPLITS.index(DAFRE_SPLITS[split])
            yield PlainPost(post_id, {names[row[0]]}, tags.get(post_id, set()), split=code)


def dafre_names(path: UPath) -> dict[str, str]:
    """Class id → character. Raises FileNotFoundError."""
    if not path.exists():
        raise FileNotFoundError(f"Expected the names of DAF:re's classes in {path}, found none: get that file too.")
    with path.open("r", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == 2]
    return {number: underscored(name) for number, name in rows}


def dafre_tags(labels: UPath, split: str) -> dict[int, set[str]]:
    """Post id → general tags, from SPLIT_tags.csv or tags.tar.gz; nothing without them. vocab.pkl is never opened."""
    name = f"{split}_tags.csv"
    if (labels / name).exists():
        with (labels / name).open("r", encoding="utf-8", newline="") as file:
            return tags_of_rows(file)
    if not (labels / "tags.tar.gz").exists():
        return {}
    with (labels / "tags.tar.gz").open("rb") as raw, tarfile.open(fileobj=raw, mode="r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name.rsplit("/", 1)[-1] == name:
                return tags_of_rows(io.TextIOWrapper(tar.extractfile(member), "utf-8", newline=""))
    return {}


def tags_of_rows(file: io.TextIOBase) -> dict[int, set[str]]:
    """The column tags_cat0 (a Python list literal) by the column id."""
    tags = {}
    for row in csv.DictReader(file):
        try:
            names = ast.literal_eval(row["tags_cat0"])
            tags[int(row["id"])] = {name for tag in names if (name := underscored(str(tag)))}
        except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
            continue  # a post without tags: labels and images are what counts here
    return tags

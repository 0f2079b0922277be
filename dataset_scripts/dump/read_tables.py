"""Posts in tables: the Hub's Parquet metadata, and the published CSVs of DAF:re."""

from __future__ import annotations

import ast
import csv
import io
import math
import os
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from dataset_scripts.dump.open_files import DAMAGED, MAX_RATIO, UNPACKED_FLOOR, open_regular, tar_members, unpacked
from dataset_scripts.dump.records import MAX_RECORD_BYTES, ParseTask, PlainPost, bad_line, split_tags, underscored
from dataset_scripts.rules.split_posts import SPLITS

# The first of each that a file has is read.
PARQUET_COLUMNS = {
    "id": ("id", "post_id", "image_id"),
    "general": ("tag_string_general", "general_tags", "tags_general"),
    "character": ("tag_string_character", "character_tags", "tags_character"),
    "rating": ("rating",),
    "is_deleted": ("is_deleted",),
    "series": ("tag_string_copyright", "copyright_tags", "tags_copyright"),
    "parent_id": ("parent_id",),
    "md5": ("md5",),
}
DAFRE_SPLITS = {"train": "train", "val": "validation", "test": "test"}
DAFRE_PATH = re.compile(r"[0-9]{4}/([0-9]{1,18})\.jpg")
DIGITS = re.compile(r"[0-9]{1,19}")
BATCH_ROWS, ROWS_BYTES = 10_000, 2**24  # that are decoded at once, and that are Python's at once
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, _, STRUCT = range(1, 13)  # of Thrift
LIST_VALUE_BYTES = 10  # of a value in a list, however well it is packed


def parquet_columns(names: list[str]) -> dict[str, str]:
    """What is read from a Parquet file: {our name: its column}. Without id or general tags it holds no posts: {}."""
    found = {ours: next((name for name in theirs if name in names), None) for ours, theirs in PARQUET_COLUMNS.items()}
    if not (found["id"] and found["general"] and found["character"]):
        return {}
    return {ours: name for ours, name in found.items() if name}


def read_parquet(task: ParseTask) -> Iterator[object]:
    """The rows of row groups [start, end). Raises ValueError when the file is damaged, or a bomb."""
    try:
        with open_regular(task.path) as file:
            parquet = pq.ParquetFile(file)
            columns = parquet_columns(parquet.schema_arrow.names)
            groups = list(range(task.start, task.end))
            refuse_bombs(file, set(columns.values()), groups, task.name)
            # As dictionaries, text that is repeated a million times is there once.
            text = [name for name in columns.values() if pa.types.is_string(parquet.schema_arrow.field(name).type)]
            parquet = pq.ParquetFile(file, read_dictionary=text)
            number = 0
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=list(columns.values())):
                for row in rows_of(batch, task.name):
                    number += 1
                    if isinstance(row, Exception):
                        yield bad_line(task.name, number, row, b"")
                    else:
                        yield plain_post({ours: row[name] for ours, name in columns.items()}, task.name, number)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{task.name} cannot be read as Parquet ({error}): get it again, or remove it.") from error


def refuse_bombs(file: BinaryIO, columns: set[str], groups: Iterable[int], name: str) -> None:
    """Raises ValueError for a file that unpacks to much more than any metadata do, or whose footer is damaged.

    Its lists may be long without taking any bytes, and only the footer says so. Asked for that, pyarrow 26 ends the
    process where the footer is damaged (a C++ exception that nobody catches), so the few numbers are read here.
    """
    try:
        file.seek(-8, os.SEEK_END)
        size = int.from_bytes(file.read(4), "little")
        file.seek(-8 - size, os.SEEK_END)
        row_groups = thrift_value(io.BytesIO(file.read(size)), STRUCT)[4]
        chunks = [chunk[3] for group in groups for chunk in row_groups[group][1]]
        chunks = [(b".".join(chunk[3]).decode(), chunk[5], chunk[6], chunk[7]) for chunk in chunks]
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name} has a damaged footer ({error!r}): get it again, or remove it.") from error
    for path, num_values, unpacked_bytes, packed_bytes in chunks:
        limit = max(UNPACKED_FLOOR, MAX_RATIO * packed_bytes)
        is_long = "." in path and num_values * LIST_VALUE_BYTES > limit
        if path.split(".")[0] in columns and (unpacked_bytes > limit or is_long):
            raise ValueError(
                f"{name} unpacks to more than {MAX_RATIO} times its size in column {path}, which no metadata do: get "
                "it again, or remove it."
            )


def thrift_value(file: BinaryIO, kind: int) -> object:
    """A value of Thrift's compact protocol, in which Parquet writes its footer; a struct as {field: value}."""
    if kind in (TRUE, FALSE):
        return kind == TRUE
    if kind == BYTE:
        return whole(file, 1)[0]
    if kind in (I16, I32, I64):
        number = varint(file)
        return (number >> 1) ^ -(number & 1)  # zigzag
    if kind == DOUBLE:
        return whole(file, 8)
    if kind == BINARY:
        return whole(file, varint(file))
    if kind in (LIST, SET):
        head = whole(file, 1)[0]
        size = head >> 4 if head < 0xF0 else varint(file)
        # A boolean is a byte of its own in a list.
        return [thrift_value(file, BYTE if head % 16 in (TRUE, FALSE) else head % 16) for _ in range(size)]
    if kind != STRUCT:
        raise ValueError(f"a value of kind {kind}")
    fields, number = {}, 0
    while head := whole(file, 1)[0]:
        number = number + (head >> 4) if head >> 4 else thrift_value(file, I16)
        fields[number] = thrift_value(file, head % 16)
    return fields


def varint(file: BinaryIO) -> int:
    """A number in bytes of seven bits, the lowest first."""
    number = shift = 0
    while shift < 70:
        byte = whole(file, 1)[0]
        number |= (byte & 127) << shift
        if byte < 128:
            return number
        shift += 7
    raise ValueError("a number without end")


def whole(file: BinaryIO, size: int) -> bytes:
    """Exactly so many bytes. Raises EOFError where the file ends before."""
    content = file.read(size)
    if len(content) < size:
        raise EOFError("it ends in the middle")
    return content


def rows_of(batch: pa.RecordBatch, name: str) -> Iterator[dict | Exception]:
    """The rows as dictionaries, so few at once that they fill no memory; the error of one whose text is not UTF-8.

    Raises ValueError for a value that is longer than any record.
    """
    longest = max((longest_value(column) for column in batch.columns), default=0)
    if longest > MAX_RECORD_BYTES:
        raise ValueError(f"{name} has a value of {longest:,} bytes, which no post has: repair or remove the file.")
    size = max(1, min(len(batch), ROWS_BYTES // max(longest, 1)))
    for start in range(0, len(batch), size):
        part = batch.slice(start, size)
        try:
            yield from part.to_pylist()
        except UnicodeDecodeError:
            for row in range(len(part)):
                try:
                    yield from part.slice(row, 1).to_pylist()
                except UnicodeDecodeError as error:
                    yield error


def longest_value(column: pa.Array) -> int:
    """Bytes of the longest text or list of texts in a column; 0 for numbers."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        num_values = pc.max(pc.list_value_length(column)).as_py() or 0
        return num_values * max(1, longest_value(column.flatten()))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_binary(column.type):
        return pc.max(pc.binary_length(column)).as_py() or 0
    return 0


def plain_post(row: dict, name: str, number: int) -> object:
    """The post in a row; a BadLine where a value has another type or range than expected."""
    try:
        for column in ("character", "general"):
            if not isinstance(row[column], str | list | None):
                raise ValueError(f"expected text or a list of tags, got {row[column]!r}")
        return PlainPost(
            post_id(row["id"]),
            split_tags(row["character"]),
            split_tags(row["general"]),
            str(row.get("rating") or ""),
            bool(row.get("is_deleted")),
            series_tags=split_tags(row["series"]) if isinstance(row.get("series"), str | list) else set(),
            parent_id=row.get("parent_id"),
            md5=row.get("md5"),
        )
    except (ValueError, TypeError, AttributeError) as error:
        return bad_line(name, number, error, repr(row)[:1000].encode("utf-8", "backslashreplace"))


def post_id(value: object) -> int | None:
    """An id from a table: a whole number, also as text or, as pandas makes of a column with gaps, as a float. None
    for nothing and NaN. Raises ValueError for all else: 1.5 and 1.9 are not both post 1."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, str) and DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"expected an id from 0 to 2**63 - 1, got {str(value)[:50]}")
    return value


def read_dafre(task: ParseTask) -> Iterator[object]:
    """`labels/{train,val,test}.csv`: class_id,dir, with or without header. Tags and names from the files beside it.

    Raises ValueError or FileNotFoundError when those files do not fit.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        yield from dafre_posts(task)
    except (csv.Error, *DAMAGED, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{task.name} or its tags cannot be read to the end ({error}): get them again.") from error


def csv_rows(file: Iterable[str]) -> Iterator[list[str] | None]:
    """The cells of each line; None for a line that is broken. A stray quote must not swallow the lines behind it, and
    no cell of these files has a line break."""
    for line in file:
        try:
            yield next(csv.reader([line], strict=True), [])
        except csv.Error:
            yield None


def open_text(path: UPath) -> io.TextIOWrapper:
    """UTF-8, with or without a byte order mark."""
    return io.TextIOWrapper(open_regular(path), "utf-8-sig", newline="")


def dafre_posts(task: ParseTask) -> Iterator[object]:
    """The rows of one split."""
    labels = UPath(task.path).parent
    split = UPath(task.path).stem
    names = dafre_names(labels / "classid_classname.csv")
    tags = dafre_tags(labels, split)
    with open_text(UPath(task.path)) as file:
        for number, row in enumerate(csv_rows(file), 1):
            if row == [] or (row and row[0] == "class_id"):
                yield None
                continue
            row = row or ["a broken line"]
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
    with open_text(path) as file:
        rows = [row for row in csv_rows(file) if row and len(row) == 2]
    return {number: underscored(name) for number, name in rows}


def dafre_tags(labels: UPath, split: str) -> dict[int, set[str]]:
    """Post id → general tags, from SPLIT_tags.csv or tags.tar.gz; nothing without them. vocab.pkl is never opened."""
    name = f"{split}_tags.csv"
    if (labels / name).exists():
        with open_text(labels / name) as file:
            return tags_of_rows(file)
    if not (labels / "tags.tar.gz").exists():
        return {}
    with open_regular(labels / "tags.tar.gz") as raw:
        tags = {}
        for member, content in tar_members(unpacked(raw, "tags.tar.gz")):  # to its end, so that damage is found
            if member.isfile() and member.name.rsplit("/", 1)[-1] == name:
                tags = tags_of_rows(io.TextIOWrapper(content, "utf-8-sig", newline=""))
        return tags


def tags_of_rows(file: io.TextIOBase) -> dict[int, set[str]]:
    """The column tags_cat0 (a Python list literal) by the column id."""
    tags = {}
    rows = csv_rows(file)
    header = next(rows, None) or []
    for cells in rows:
        try:
            row = dict(zip(header, cells, strict=False))
            names = ast.literal_eval(row["tags_cat0"])
            tags[int(row["id"])] = {name for tag in names if (name := underscored(str(tag)))}
        except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
            continue  # a post without tags: labels and images are what counts here
    return tags

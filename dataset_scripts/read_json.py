"""JSON files → posts: lines by byte range, compressed streams and tars of lines, one array or object.

Every reader yields one thing a record: the post, a BadLine, or None for a blank line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import BinaryIO

import msgspec

from dataset_scripts.open_files import DAMAGED, open_regular, tar_members, unpacked
from dataset_scripts.records import MAX_RECORD_BYTES, SHAPES, ParseTask, bad_line
from dataset_scripts.terminal import printable

JSON_SUFFIXES = (".json", ".jsonl")
TAR_SUFFIXES = (".tgz", ".tbz2", ".txz", ".tzst")
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", *TAR_SUFFIXES)
MAX_JSON_BYTES = 2**30  # of one array: it is decoded as a whole
HEAD_LINES = 1000  # that may be no post before a file is taken for one without posts


def read_lines(task: ParseTask) -> Iterator[object]:
    """The lines that begin in the task's byte range; a line that reaches beyond it is read to its end."""
    with open_regular(task.path) as file:
        position = 0
        if task.start:  # the rest of a line of the range before
            file.seek(task.start - 1)
            position = skip_line(file, task.start - 1)
        yield from decode_lines(lines_from(file, position, task.end), task.name, task.shape)


def skip_line(file: BinaryIO, position: int) -> int:
    """Read to the end of the line at `position`; the position behind it."""
    while part := file.readline(MAX_RECORD_BYTES):
        position += len(part)
        if part.endswith(b"\n"):
            break
    return position


def lines_from(file: BinaryIO, position: int = 0, end: int = 2**63) -> Iterator[bytes]:
    """Lines that begin before `end`. Of a line over MAX_RECORD_BYTES, only so much and one byte."""
    while position < end and (line := file.readline(MAX_RECORD_BYTES + 1)):
        yield line if position else line.removeprefix(b"\xef\xbb\xbf")
        position += len(line)
        if len(line) > MAX_RECORD_BYTES and not line.endswith(b"\n"):
            position = skip_line(file, position)


def decode_lines(lines: Iterable[bytes], name: str, shape: str) -> Iterator[object]:
    """One post a line."""
    decode = msgspec.json.Decoder(SHAPES[shape], strict=False).decode
    for number, line in enumerate(lines, 1):
        if not (line := line.strip()):
            yield None
            continue
        try:
            if len(line) > MAX_RECORD_BYTES:
                raise ValueError(f"longer than {MAX_RECORD_BYTES:,} bytes")
            post = decode(line)
        except (ValueError, RecursionError) as error:
            post = bad_line(name, number, error, line)
        yield post


def read_stream(task: ParseTask) -> Iterator[object]:
    """Compressed lines, or the files of lines in a tar, never in memory as a whole.

    Raises ValueError when the archive is damaged.
    """
    try:
        for name, file in opened_files(task.path, task.name):
            lines = lines_from(file)
            head = list(islice(lines, HEAD_LINES))
            if shape_of(head, name) != task.shape:
                continue
            if is_one_value(next((line for line in head if line.strip()), b"")):
                yield from decode_value(limited(chain(head, lines), name), name, task.shape)
            else:
                yield from decode_lines(chain(head, lines), name, task.shape)
    except DAMAGED as error:
        raise ValueError(f"{task.name} cannot be unpacked to its end ({error}): get it again or remove it.") from error


def opened_files(path: str, name: str) -> Iterator[tuple[str, BinaryIO]]:
    """The JSON files in a compressed file or in a (compressed) tar, each with its name as shown to the user."""
    with open_regular(path) as raw:
        stream = unpacked(raw, path)
        if not (path.endswith(TAR_SUFFIXES) or ".tar" in path.rsplit("/", 1)[-1]):
            yield name, stream
            return
        for member, content in tar_members(stream):
            if member.isfile() and member.name.endswith(JSON_SUFFIXES):
                yield f"{name}/{printable(member.name)}", content


def is_one_value(first_line: bytes) -> bool:
    """Whether a file that begins so is one array, or one object over several lines, and not one object a line."""
    return first_line.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[") or first_line.strip() == b"{"


def shape_of(head: list[bytes], name: str) -> str | None:
    """The shape of the first post in a file's first lines; None for a file without (tags*.json, an empty file).

    Raises ValueError when no line is JSON.
    """
    lines = [(number, line.removeprefix(b"\xef\xbb\xbf").strip()) for number, line in enumerate(head, 1)]
    lines = [(number, line) for number, line in lines if line]
    if lines and is_one_value(lines[0][1]):
        return shape_of_value(b"".join(head))
    errors = []
    for number, line in lines:
        try:
            record = msgspec.json.decode(line)
        except (ValueError, RecursionError) as error:
            errors.append(f"{name}:{number}: {error}")
            continue
        if shape := shape_of_record(record):
            return shape
    if errors and len(errors) == len(lines):
        raise ValueError(f"Expected JSON lines (one post a line), found {errors[0]}: repair or remove that file.")
    return None


def shape_of_value(head: bytes) -> str | None:
    """The shape of the first post in an array, or of the one post, of which `head` may be only the beginning."""
    try:
        value = msgspec.json.decode(head.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        flat, nested = head.find(b'"tag_string'), head.find(b'"tags"')
        return "flat" if flat >= 0 else "nested" if nested >= 0 else None
    values = value if isinstance(value, list) else [value]
    return next((shape for record in values[:HEAD_LINES] if (shape := shape_of_record(record))), None)


def shape_of_record(record: object) -> str | None:
    """"nested", "flat", "listed", or None for what is no post."""
    if not isinstance(record, dict):
        return None
    if any(key.startswith("tag_string") for key in record):
        return "flat"
    if isinstance(record.get("tags"), list) and not any(isinstance(tag, str) for tag in record["tags"]):
        return "nested"
    if any(key in record for key in ("tags_general", "general_tags", "tags_character", "character_tags")):
        return "listed"
    return None


def read_value(task: ParseTask) -> Iterator[object]:
    """One JSON value: an array of posts, as Danbooru's API answers, or one post. A bad one is named by its place."""
    with open_regular(task.path) as file:
        content = limited(lines_from(file), task.name)
    yield from decode_value(content, task.name, task.shape)


def decode_value(content: bytes, name: str, shape: str) -> Iterator[object]:
    """The posts of an array, or the one post."""
    values = [content]
    if content.lstrip().startswith(b"["):
        try:
            values = msgspec.json.decode(content, type=list[msgspec.Raw])
        except (ValueError, RecursionError) as error:
            yield bad_line(name, 1, error, content)
            return
    yield from decode_lines(map(bytes, values), name, shape)


def limited(lines: Iterable[bytes], name: str) -> bytes:
    """All lines together. Raises ValueError above MAX_JSON_BYTES: one value is decoded as a whole."""
    parts, num_bytes = [], 0
    for line in lines:
        num_bytes += len(line)
        if num_bytes > MAX_JSON_BYTES or len(line) > MAX_RECORD_BYTES:
            raise ValueError(
                f"{name} is one large JSON value, where one post a line is expected above {MAX_JSON_BYTES:,} bytes "
                f"(or {MAX_RECORD_BYTES:,} without a line break): write it so (jq -c '.[]')."
            )
        parts.append(line)
    return b"".join(parts)

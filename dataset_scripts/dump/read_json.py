"""JSON files → posts: lines by byte range; whole files of lines, arrays or objects, compressed or in a tar.

Every reader yields one thing a record: the post, a BadLine, or None for a blank line.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import BinaryIO

import msgspec

from dataset_scripts.dump.list_images import suffix_of
from dataset_scripts.dump.open_files import DAMAGED, open_regular, tar_members, unpacked
from dataset_scripts.dump.records import MAX_RECORD_BYTES, JsonPost, ParseTask, bad_line, printable

JSON_SUFFIXES = (".json", ".jsonl")
TAR_SUFFIXES = (".tgz", ".tbz2", ".txz", ".tzst")
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", *TAR_SUFFIXES)
HEAD_RECORDS, HEAD_BYTES = 1000, 2**24  # that are looked at closely to tell whether a file holds posts
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BETWEEN_VALUES = re.compile(r"[\s,\[\]]*")
WINDOW = 2**18


def read_lines(task: ParseTask) -> Iterator[object]:
    """The lines that begin in the task's byte range; a line that reaches beyond it is read to its end."""
    with open_regular(task.path) as file:
        position = 0
        if task.start:  # the rest of a line of the range before
            file.seek(task.start - 1)
            position = task.start - 1 + skip_line(file)
        yield from decode_records(lines_from(file, position, task.end), task.name)


class CutLine(bytes):
    """The beginning of a line over MAX_RECORD_BYTES."""

    size = 0  # of the whole line


def skip_line(file: BinaryIO) -> int:
    """Read to the end of the line; how many bytes that were."""
    size = 0
    while part := file.readline(MAX_RECORD_BYTES):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size


def lines_from(file: BinaryIO, position: int = 0, end: int = 2**63) -> Iterator[bytes]:
    """Lines that begin before `end`."""
    while position < end and (line := file.readline(MAX_RECORD_BYTES + 1)):
        size = len(line)
        if size > MAX_RECORD_BYTES and not line.endswith(b"\n"):
            size += skip_line(file)
            line = CutLine(line)
            line.size = size
        yield line if position else line.removeprefix(BYTE_ORDER_MARK)
        position += size


def decode_records(records: Iterable[bytes], name: str) -> Iterator[object]:
    """One post a record."""
    decode = msgspec.json.Decoder(JsonPost, strict=False).decode
    for number, record in enumerate(records, 1):
        if not (content := record.strip()):
            yield None
            continue
        try:
            if len(content) > MAX_RECORD_BYTES:
                raise ValueError(f"longer than {MAX_RECORD_BYTES:,} bytes")
            post = decode(content)
            if post.id is None or post.tags:
                post.check()
        except (ValueError, RecursionError) as error:
            post = bad_line(name, number, error, content, getattr(record, "size", 0))
        yield post


def read_json(task: ParseTask) -> Iterator[object]:
    """A whole file, compressed or not, or the files of posts in a tar, never in memory as a whole; of the other files
    in it their suffixes.

    Raises ValueError when it is damaged or is no JSON where the next record begins.
    """
    try:
        for name, file in opened_files(task.path, task.name):
            if file is None:
                yield suffix_of(name)
                continue
            records = records_of(file, name)
            head = head_of(records) if name != task.name else []
            if name == task.name or shape_of(head, name):
                yield from decode_records(chain(head, records), name)
            elif shape_of(chain(head, records), name):
                raise ValueError(
                    f"{name} has posts behind {len(head):,} records that are none: put them in a file of their own."
                )
    except DAMAGED as error:
        raise ValueError(f"{task.name} cannot be unpacked to its end ({error}): get it again or remove it.") from error


def opened_files(path: str, name: str) -> Iterator[tuple[str, BinaryIO | None]]:
    """The JSON files in a compressed file or in a (compressed) tar, each with its name as shown to the user; None for
    a file in a tar that is none by its name."""
    with open_regular(path) as raw:
        stream = unpacked(raw, path)
        if not (path.endswith(TAR_SUFFIXES) or ".tar" in path.rsplit("/", 1)[-1]):
            yield name, stream
            return
        for member, content in tar_members(stream):
            if member.isfile():
                is_json = member.name.endswith(JSON_SUFFIXES)
                yield f"{name}/{printable(member.name)}", content if is_json else None


def records_of(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The records of a file: its lines, blank ones too so that they can be counted, or the values in its arrays."""
    lines = lines_from(file)
    for line in lines:
        if is_one_value(line):
            yield from values_of(line, file, name)
            return
        yield line
        if line.strip():
            break
    yield from lines


def is_one_value(first_line: bytes) -> bool:
    """Whether a file that begins so is one array, or objects over several lines, and not one object a line."""
    return first_line.lstrip().startswith(b"[") or first_line.strip() == b"{"


def values_of(head: bytes, file: BinaryIO, name: str) -> Iterator[bytes]:
    """The values in arrays, or one behind the other; `head` was read from the file before.

    A bad value in them costs itself alone. Raises ValueError where it cannot be told where the next one begins.
    """
    skip_value = json.JSONDecoder(parse_int=str, parse_float=str, strict=False).raw_decode
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode  # bytes that are no text: one bad value
    text, place, number, depth, is_whole = decode(head), 0, 0, 0, False
    while True:
        between = BETWEEN_VALUES.match(text, place).group()
        depth += between.count("[") - between.count("]")
        place += len(between)
        end, error = place, "it ends within an array" if depth > 0 else "an array ends that never began"
        try:
            if place < len(text):
                _, end = skip_value(text, place)
        except (ValueError, RecursionError) as found:
            error = getattr(found, "msg", found)
        if end > place and (is_whole or end < len(text)):  # else a number may go on
            yield text[place:end].encode("utf-8", "surrogateescape")
            number, place = number + 1, end
        elif is_whole and place == len(text) and depth == 0:
            return
        elif is_whole or len(text) - place > MAX_RECORD_BYTES:
            raise ValueError(f"{name} is JSON with an error behind record {number:,} ({error}): repair or remove it.")
        else:
            piece = file.read(WINDOW)
            is_whole = not piece
            text, place = text[place:] + decode(piece, final=is_whole), 0


def head_of(records: Iterator[bytes]) -> list[bytes]:
    """The first records, HEAD_RECORDS and HEAD_BYTES at most."""
    head, num_bytes = [], 0
    for record in islice(records, HEAD_RECORDS):
        head.append(record)
        num_bytes += len(record)
        if num_bytes > HEAD_BYTES:
            break
    return head


def shape_of(records: Iterable[bytes], name: str) -> str | None:
    """The shape of the first post among a file's records; None for a file without (tags*.json, an empty file).

    Raises ValueError when none of the first is JSON.
    """
    first_error, num_read, num_bad = None, 0, 0
    for number, record in enumerate(records, 1):
        if not (record := record.strip()) or (num_read >= HEAD_RECORDS and not may_be_post(record)):
            continue
        try:
            shape = None if len(record) > MAX_RECORD_BYTES else shape_of_record(msgspec.json.decode(record))
        except (ValueError, RecursionError) as error:
            first_error = first_error or f"{name}:{number}: {error}"
            num_bad += 1
            continue
        finally:
            num_read += 1
        if shape:
            return shape
    if num_bad and num_bad == num_read:
        raise ValueError(f"Expected JSON lines (one post a line), found {first_error}: repair or remove that file.")
    return None


def may_be_post(record: bytes) -> bool:
    """A quick look, for files of millions of records that are none."""
    return b'"tag' in record or b'_tags"' in record


def shape_of_record(record: object) -> str | None:
    """ "nested", "flat", "listed", or None for what is no post. It names a format; posts of all are read alike."""
    if not isinstance(record, dict):
        return None
    if isinstance(record.get("tags"), list) and not any(isinstance(tag, str) for tag in record["tags"]):
        return "nested"
    if any(key.startswith("tag_string") for key in record):
        return "flat"
    if any(key in record for key in ("tags_general", "general_tags", "tags_character", "character_tags")):
        return "listed"
    return None

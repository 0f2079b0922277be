"""Read the metadata of a dump (JSON lines, one post a line) into one table of integer codes.

Two generations are read: nested `tags: [{name, category}]` (Danbooru2017-2020) and flat `tag_string_*` (Danbooru2021).
Both give the same `PostsTable`. `parse` handles one byte range and is picklable, so any `concurrent.futures.Executor`
may run it. A new dump format is one more class like `FlatPost`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

GENERAL, CHARACTER = 0, 4  # Danbooru's tag categories; 1 artist, 3 copyright, 5 meta
NO_CHARACTER, SEVERAL_CHARACTERS = -1, -2
KEPT_LINE_CHARS = 10_000  # of a bad line in the rejects file

# Numbers are strings in the dumps and integers in API records: the decoder is lax (strict=False) and takes both.
PostId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class FlatPost(msgspec.Struct, gc=False):
    """A line of Danbooru2021. NULL keys are absent, the id of banned posts included."""

    id: PostId | None = None
    rating: str | None = None
    is_deleted: bool | None = None
    tag_string_general: str | None = None
    tag_string_character: str | None = None
    tag_string_artist: str | None = None
    tag_string_copyright: str | None = None
    tag_string_meta: str | None = None

    def characters(self) -> set[str]:
        return set((self.tag_string_character or "").split())

    def general_tags(self) -> set[str]:
        return set((self.tag_string_general or "").split())

    def other_tags(self) -> list[str]:
        strings = (self.tag_string_artist, self.tag_string_copyright, self.tag_string_meta)
        return " ".join(string or "" for string in strings).split()


class NestedTag(msgspec.Struct, gc=False):
    """One tag of a nested post."""

    name: str | None = None
    category: int | None = None


class NestedPost(msgspec.Struct, gc=False):
    """A line of Danbooru2017-2020."""

    id: PostId | None = None
    rating: str | None = None
    is_deleted: bool | None = None
    tags: list[NestedTag] | None = None

    def characters(self) -> set[str]:
        return {tag.name for tag in self.tags or () if tag.category == CHARACTER and tag.name}

    def general_tags(self) -> set[str]:
        return {tag.name for tag in self.tags or () if tag.category == GENERAL and tag.name}

    def other_tags(self) -> list[str]:
        return [tag.name for tag in self.tags or () if tag.category not in (GENERAL, CHARACTER) and tag.name]


GENERATIONS = {"nested": NestedPost, "flat": FlatPost}


@dataclass
class PostsTable:
    """Posts as integer codes. N posts, M tag uses; a code indexes the list of names of its kind.

    General tags are kept only for posts of exactly one character: no option ever selects another post.
    """

    post_ids: np.ndarray  # int64 [N]
    characters: np.ndarray  # int32 [N], or NO_CHARACTER, SEVERAL_CHARACTERS
    ratings: np.ndarray  # int32 [N]
    is_deleted: np.ndarray  # bool [N]
    tag_counts: np.ndarray  # int32 [N], how many of tag_codes belong to each post, in order
    tag_codes: np.ndarray  # int32 [M]
    character_names: list[str]
    rating_names: list[str]
    tag_names: list[str]

    def __len__(self) -> int:
        return len(self.post_ids)

    def offsets(self) -> np.ndarray:
        """int64 [N+1]: the tags of post i are tag_codes[offsets[i]:offsets[i + 1]]."""
        return np.concatenate(([0], np.cumsum(self.tag_counts, dtype=np.int64)))

    def drop_posts(self, dropped: np.ndarray) -> PostsTable:
        """The table without the posts where `dropped` (bool [N]) is true."""
        if not dropped.any():
            return self
        kept = ~dropped
        tag_codes = self.tag_codes[np.repeat(kept, self.tag_counts)]
        return PostsTable(
            self.post_ids[kept], self.characters[kept], self.ratings[kept], self.is_deleted[kept],
            self.tag_counts[kept], tag_codes, self.character_names, self.rating_names, self.tag_names,
        )

    def drop_tags(self, dropped: np.ndarray) -> PostsTable:
        """The table without the tags where `dropped` (bool, one per tag name) is true. No post goes."""
        if not dropped.any():
            return self
        kept = ~dropped[self.tag_codes]
        tag_counts, filled = np.zeros_like(self.tag_counts), self.tag_counts > 0
        if filled.any():  # reduceat has no empty segments, so it runs over the posts that have tags
            tag_counts[filled] = np.add.reduceat(kept, self.offsets()[:-1][filled], dtype=np.int32)
        return PostsTable(
            self.post_ids, self.characters, self.ratings, self.is_deleted,
            tag_counts, self.tag_codes[kept], self.character_names, self.rating_names, self.tag_names,
        )


@dataclass
class ParseTask:
    """The lines of `path` that begin in bytes [start, end). `name` is the path as shown to the user."""

    path: str
    name: str
    generation: str
    start: int
    end: int


@dataclass
class BadLine:
    """A line that is no post: where, why, and its text (cut at KEPT_LINE_CHARS)."""

    file: str
    line: int
    reason: str
    text: str


@dataclass
class Parsed:
    """What `parse` found in one byte range, or `merge` in all of them."""

    posts: PostsTable
    num_lines: int = 0  # every line of the range; `parse` counts from its own start, `merge` corrects bad lines
    num_records: int = 0  # lines that are not blank
    num_without_id: int = 0
    other_tags: set[str] = field(default_factory=set)  # artist, copyright and meta tags of one-character posts
    bad_lines: list[BadLine] = field(default_factory=list)


class Codes(dict):
    """name -> code in order of first use; a hit costs one C look-up."""

    def __missing__(self, name: str) -> int:
        self[name] = code = len(self)
        return code


def lines_of(task: ParseTask) -> Iterator[bytes]:
    """The lines that begin in the task's byte range; a line that reaches beyond it is read to its end."""
    with open(task.path, "rb") as file:
        position = 0
        if task.start:
            file.seek(task.start - 1)
            position = task.start - 1 + len(file.readline())  # the rest of a line of the range before
        while position < task.end and (line := file.readline()):
            yield line if position else line.removeprefix(b"\xef\xbb\xbf")
            position += len(line)


def parse(task: ParseTask) -> Parsed:
    """Parse one byte range. A line that is no post is kept in `bad_lines` with its reason, never raised."""
    decode = msgspec.json.Decoder(GENERATIONS[task.generation], strict=False).decode
    characters, ratings, tags = Codes(), Codes(), Codes()
    ids, character_codes, rating_codes = array("q"), array("i"), array("i")
    deleted, tag_counts, tag_codes = bytearray(), array("i"), array("i")
    parsed = Parsed(posts=None)
    for line in lines_of(task):
        parsed.num_lines += 1
        if not (line := line.strip()):
            continue
        parsed.num_records += 1
        try:
            post = decode(line)
        except (ValueError, RecursionError) as error:
            text = line[:KEPT_LINE_CHARS].decode("utf-8", "backslashreplace")
            parsed.bad_lines.append(BadLine(task.name, parsed.num_lines, str(error), text))
            continue
        if post.id is None:
            parsed.num_without_id += 1
            continue
        names = post.characters()
        ids.append(post.id)
        rating_codes.append(ratings[post.rating or ""])
        deleted.append(bool(post.is_deleted))
        if len(names) == 1:
            general = post.general_tags()
            character_codes.append(characters[names.pop()])
            tag_counts.append(len(general))
            tag_codes.extend(map(tags.__getitem__, general))
            parsed.other_tags.update(post.other_tags())
        else:
            character_codes.append(SEVERAL_CHARACTERS if names else NO_CHARACTER)
            tag_counts.append(0)
    parsed.posts = PostsTable(
        np.array(ids, np.int64), np.array(character_codes, np.int32), np.array(rating_codes, np.int32),
        np.array(deleted, bool), np.array(tag_counts, np.int32), np.array(tag_codes, np.int32),
        list(characters), list(ratings), list(tags),
    )
    return parsed


def merge(parts: Iterable[tuple[ParseTask, Parsed]]) -> Parsed:
    """Join the ranges in file order; codes are renumbered, bad lines get their line number in the file."""
    vocabularies = {"characters": Codes(), "ratings": Codes(), "tag_codes": Codes()}
    columns: dict[str, list[np.ndarray]] = {column.name: [] for column in fields(PostsTable)[:6]}
    merged, file, lines_before = Parsed(posts=None), None, 0
    for task, part in parts:
        lines_before = lines_before if task.path == file else 0
        file = task.path
        for bad in part.bad_lines:
            bad.line += lines_before
        lines_before += part.num_lines
        merged.num_lines += part.num_lines
        merged.num_records += part.num_records
        merged.num_without_id += part.num_without_id
        merged.bad_lines += part.bad_lines
        merged.other_tags |= part.other_tags
        posts = part.posts
        names = {"characters": posts.character_names, "ratings": posts.rating_names, "tag_codes": posts.tag_names}
        for column, arrays in columns.items():
            values = getattr(posts, column)
            if column in names:
                codes = vocabularies[column]
                # The two extra places at the end catch NO_CHARACTER = -1 and SEVERAL_CHARACTERS = -2.
                renumbered = [codes[name] for name in names[column]] + [SEVERAL_CHARACTERS, NO_CHARACTER]
                values = np.array(renumbered, np.int32)[values]
            arrays.append(values)
    arrays = [np.concatenate(columns.pop(name)) for name in list(columns)]
    merged.posts = PostsTable(*arrays, *(list(codes) for codes in vocabularies.values()))
    return merged


def write_rejects(path: Path, bad_lines: list[BadLine]) -> None:
    """One JSON object per bad line: file, line, reason, text."""
    with path.open("w", encoding="utf-8") as file:
        for bad in bad_lines:
            file.write(json.dumps(vars(bad), ensure_ascii=False) + "\n")

"""One post of a dump, in the shapes that dumps have, and the task of reading some of them.

A new JSON shape is one more class like `FlatPost`; anything else becomes a `PlainPost`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

from dataset_scripts.terminal import printable

GENERAL, CHARACTER = 0, 4  # Danbooru's tag categories; 1 artist, 3 copyright, 5 meta
KEPT_LINE_CHARS = 10_000  # of a bad line in the rejects file
MAX_RECORD_BYTES = 64 * 2**20  # a post has 2 kB; more is no post, and a bomb must not fill the memory

# Numbers are strings in the dumps and integers in API records: the decoder is lax (strict=False) and takes both.
PostId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class FlatPost(msgspec.Struct, gc=False):
    """A post of Danbooru2021 or of Danbooru's API. NULL keys are absent, the id of banned posts included."""

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
    """A post of Danbooru2017-2020."""

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


Tags = list[str] | str | None


class ListedPost(FlatPost, gc=False):
    """A post beside its picture: an API record with lists besides (gallery-dl), or lists alone (WebDataset)."""

    tags_general: Tags = None
    tags_character: Tags = None
    general_tags_: Tags = msgspec.field(default=None, name="general_tags")
    character_tags: Tags = None

    def characters(self) -> set[str]:
        return split_tags(self.tags_character) | split_tags(self.character_tags) | super().characters()

    def general_tags(self) -> set[str]:
        return split_tags(self.tags_general) | split_tags(self.general_tags_) | super().general_tags()


@dataclass
class PlainPost:
    """A post from a table or a folder."""

    id: int | None
    character_tags: set[str]
    tags: set[str]
    rating: str = ""
    is_deleted: bool = False
    split: int | None = None  # index into SPLITS, where the dump comes with one

    def characters(self) -> set[str]:
        return self.character_tags

    def general_tags(self) -> set[str]:
        return self.tags

    def other_tags(self) -> list[str]:
        return []


SHAPES = {"nested": NestedPost, "flat": FlatPost, "listed": ListedPost}


@dataclass
class ParseTask:
    """Some records of a dump. `name` is the path as shown to the user.

    `container` says how they lie in the file: "lines" (those that begin in bytes [start, end)), "stream" (compressed
    lines), "json" (one value: a post or an array of posts), "parquet" (row groups [start, end)), "webdataset" (a tar),
    "sidecars" and "folder" (the files `members`), "dafre" (a CSV). `shape` is one of SHAPES, for JSON.
    """

    path: str
    name: str
    container: str = "lines"
    shape: str = "flat"
    start: int = 0
    end: int = 0
    members: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()  # of "folder": that of each member, "" for none


@dataclass
class BadLine:
    """A record that is no post: where, why, and its text (cut at KEPT_LINE_CHARS)."""

    file: str
    line: int
    reason: str
    text: str


def bad_line(file: str, line: int, reason: object, text: bytes) -> BadLine:
    """A `BadLine` of at most KEPT_LINE_CHARS, whatever the bytes."""
    shown = text[:KEPT_LINE_CHARS].decode("utf-8", "backslashreplace")
    return BadLine(printable(file), line, printable(reason), shown)


def split_tags(tags: Tags) -> set[str]:
    """Tags of a list, of a string with ", " between them (where spaces become underscores) or with spaces."""
    if not tags:
        return set()
    if isinstance(tags, str):
        tags = tags.split(", ") if ", " in tags else tags.split()
    return {name for tag in tags if (name := underscored(tag))}


def underscored(tag: str) -> str:
    """`long hair ` → `long_hair`: every set here names its tags as Danbooru does."""
    return "_".join(tag.split())

"""One post of a dump, in the shapes that dumps have, and the task of reading some of them.

JSON of any shape becomes a `JsonPost`, which has the keys of all of them; anything else becomes a `PlainPost`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

GENERAL, COPYRIGHT, CHARACTER = 0, 3, 4  # Danbooru's tag categories; 1 artist, 5 meta
KEPT_LINE_CHARS, KEPT_REASON_CHARS = 1_000, 300  # of a bad line in the rejects file
RECORD_BYTES = 2_000  # of a post; a bad line of more is counted as so many records
MAX_RECORD_BYTES = 2**20  # more is no post, and a bomb must not fill the memory

MD5 = re.compile(r"[0-9a-fA-F]{32}")
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
    # What other posts show the same: nobody's reason to lose a post, so of any type here.
    parent_id: object = None
    md5: object = None

    def characters(self) -> set[str]:
        return set((self.tag_string_character or "").split())

    def series(self) -> set[str]:
        return set((self.tag_string_copyright or "").split())

    def general_tags(self) -> set[str]:
        return set((self.tag_string_general or "").split())

    def other_tags(self) -> list[str]:
        strings = (self.tag_string_artist, self.tag_string_copyright, self.tag_string_meta)
        return " ".join(string or "" for string in strings).split()


Tags = list[str] | str | None


class ListedPost(FlatPost, gc=False):
    """A post beside its picture: an API record with lists besides (gallery-dl), or lists alone (WebDataset)."""

    tags_general: Tags = None
    tags_character: Tags = None
    general_tags_: Tags = msgspec.field(default=None, name="general_tags")
    character_tags: Tags = None
    tags_copyright: Tags = None
    copyright_tags: Tags = None

    def characters(self) -> set[str]:
        return split_tags(self.tags_character) | split_tags(self.character_tags) | super().characters()

    def series(self) -> set[str]:
        if not self.tags_copyright and not self.copyright_tags:
            return super().series()
        return split_tags(self.tags_copyright) | split_tags(self.copyright_tags) | super().series()

    def general_tags(self) -> set[str]:
        return split_tags(self.tags_general) | split_tags(self.general_tags_) | super().general_tags()


class NestedTag(msgspec.Struct, gc=False):
    """One tag of a nested post."""

    name: str | None = None
    category: int | None = None


class JsonPost(ListedPost, gc=False):
    """A post of any shape. `tags` are those of Danbooru2017-2020 where they are objects with a category."""

    tags: list[NestedTag | str | float | None] | dict | str | float | None = None

    def nested_tags(self) -> list[NestedTag]:
        return [tag for tag in self.tags if isinstance(tag, NestedTag)] if isinstance(self.tags, list) else []

    def nested_names(self, category: int) -> set[str]:
        return {tag.name for tag in self.nested_tags() if tag.category == category and tag.name}

    def characters(self) -> set[str]:
        if not self.tags and not self.tags_character and not self.character_tags:  # five million times
            return set((self.tag_string_character or "").split())
        return super().characters() | self.nested_names(CHARACTER)

    def series(self) -> set[str]:
        return super().series() | self.nested_names(COPYRIGHT) if self.tags else super().series()

    def general_tags(self) -> set[str]:
        if not self.tags and not self.tags_general and not self.general_tags_:
            return set((self.tag_string_general or "").split())
        return super().general_tags() | self.nested_names(GENERAL)

    def other_tags(self) -> list[str]:
        nested = self.nested_tags() if self.tags else ()
        names = [tag.name for tag in nested if tag.category not in (GENERAL, CHARACTER) and tag.name]
        return super().other_tags() + names

    def check(self) -> None:
        """Raises ValueError for an object that is no post, and for tags of which nothing says what they are."""
        if self == NO_POST:
            raise ValueError("expected a post, found none of its keys (id, rating, tag_string_general, tags, ...)")
        if self.tags and not self.nested_tags() and all(getattr(self, key) is None for key in TAG_KEYS):
            raise ValueError("expected tags with their categories, found tags alone")


NO_POST = JsonPost()
TAG_KEYS = (
    "tags_general",
    "tags_character",
    "general_tags_",
    "character_tags",
    "tag_string_general",
    "tag_string_character",
    "tag_string_artist",
    "tag_string_copyright",
    "tag_string_meta",
)


@dataclass
class PlainPost:
    """A post from a table or a folder."""

    id: int | None
    character_tags: set[str]
    tags: set[str]
    rating: str = ""
    is_deleted: bool = False
    split: int | None = None  # index into SPLITS, where the dump comes with one
    series_tags: set[str] = field(default_factory=set)
    parent_id: object = None
    md5: object = None

    def characters(self) -> set[str]:
        return self.character_tags

    def series(self) -> set[str]:
        return self.series_tags

    def general_tags(self) -> set[str]:
        return self.tags

    def other_tags(self) -> list[str]:
        return []


@dataclass
class ParseTask:
    """Some records of a dump. `name` is the path as shown to the user.

    `container` says how they lie in the file: "lines" (those that begin in bytes [start, end)), "json" (a file of
    lines, of one array or of one post, compressed or not, or a tar of such), "parquet" (row groups [start, end)),
    "webdataset" (a tar), "sidecars" and "folder" (the files `members`), "dafre" (a CSV).
    """

    path: str
    name: str
    container: str = "lines"
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
    num_records: int = 1  # that its bytes may have been


def bad_line(file: str, line: int, reason: object, text: bytes, size: int = 0) -> BadLine:
    """A `BadLine` of at most KEPT_LINE_CHARS, whatever the bytes. `size`: of the record, where `text` is cut."""
    shown = text[:KEPT_LINE_CHARS].decode("utf-8", "backslashreplace")
    num_records = max(1, max(size, len(text)) // RECORD_BYTES)
    return BadLine(printable(file), line, printable(str(reason)[:KEPT_REASON_CHARS]), shown, num_records)


def parent_of(value: object) -> int | None:
    """The id of a post's parent from a record, or None: dumps write null, 0 or "0" where there is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    return value if isinstance(value, int) and 0 < value < 2**63 else None  # True is 1, and no record has it


def digest_of(value: object) -> int:
    """The first 64 bits of the MD5 of a post's file, 0 for none."""
    return int(value[:16], 16) if isinstance(value, str) and MD5.fullmatch(value) else 0


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


def printable(text: object) -> str:
    """Text of others for a terminal: what could move its cursor, colour it or set its title is shown as an escape,
    and so are bytes of a file name that are no text."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))

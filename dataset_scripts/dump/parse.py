"""The posts of a dump as one table of integer codes, whatever the format they came in.

`parse` handles one task (a byte range, a tar, some sidecars; see `READERS`) and is picklable, so any
`concurrent.futures.Executor` may run it. `merge` joins what the tasks found.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset_scripts.dump.list_images import ImageFile
from dataset_scripts.dump.read_folders import read_folder, read_sidecars, read_webdataset
from dataset_scripts.dump.read_json import read_json, read_lines
from dataset_scripts.dump.read_tables import read_dafre, read_parquet
from dataset_scripts.dump.records import BadLine, ParseTask, digest_of, parent_of
from dataset_scripts.dump.site_posts import SitePost
from dataset_scripts.rules.posts_table import NO_CHARACTER, POST_COLUMNS, SEVERAL_CHARACTERS, PostsTable

MAX_BAD_LINES = 10_000  # that are kept with their text

READERS = {  # of a container that holds records alone: each yields a post, a BadLine, or None for a blank line
    "lines": read_lines,
    "json": read_json,
    "parquet": read_parquet,
    "dafre": read_dafre,
}
READERS_WITH_IMAGES = {"sidecars": read_sidecars, "folder": read_folder, "webdataset": read_webdataset}


@dataclass
class Parsed:
    """What `parse` found in one byte range, or `merge` in all of them."""

    posts: PostsTable
    num_lines: int = 0  # every line of the range; `parse` counts from its own start, `merge` corrects bad lines
    num_records: int = 0  # lines that are not blank
    num_without_id: int = 0
    other_tags: set[str] = field(default_factory=set)  # artist, copyright and meta tags of one-character posts
    num_bad: int = 0  # records that are no post, among num_records
    bad_lines: list[BadLine] = field(default_factory=list)  # the first MAX_BAD_LINES of them
    images: list[ImageFile | None] = field(default_factory=list)  # of each post, where they lie together
    sites: Counter[str] = field(default_factory=Counter)  # posts of each, where the records name theirs
    ignored: Counter[str] = field(default_factory=Counter)  # files beside the records that are not read, by suffix
    splits: dict[int, int] = field(default_factory=dict)  # by post id, where the dump comes with a split (DAF:re)
    series: Counter[tuple[str, str]] = field(default_factory=Counter)  # by (character, series); (…, "") counts all


class Codes(dict):
    """name -> code in order of first use; a hit costs one C look-up."""

    def __missing__(self, name: str) -> int:
        self[name] = code = len(self)
        return code


def posts_of(task: ParseTask) -> Iterator[tuple[object, ImageFile | None]]:
    """(post, BadLine, None or the suffix of a file that is not read; its image where both lie together)."""
    if task.container in READERS_WITH_IMAGES:
        yield from READERS_WITH_IMAGES[task.container](task)
    else:
        for post in READERS[task.container](task):
            yield post, None


def parse(task: ParseTask) -> Parsed:
    """Parse one task. A record that is no post is kept in `bad_lines` with its reason, never raised.

    Raises OSError or ValueError when the file itself cannot be read, with the name of the file.
    """
    characters, ratings, tags = Codes(), Codes(), Codes()
    ids, character_codes, rating_codes = array("q"), array("i"), array("i")
    deleted, families, file_hashes = bytearray(), array("q"), array("Q")
    tag_counts, tag_codes = array("i"), array("i")
    parsed = Parsed(posts=None)
    for post, image in posts_of(task):
        if isinstance(post, str):
            parsed.ignored[post] += 1
            continue
        parsed.num_lines += 1
        if post is None:
            continue
        parsed.num_records += 1
        if isinstance(post, BadLine):
            parsed.num_records += post.num_records - 1
            parsed.num_bad += post.num_records
            if len(parsed.bad_lines) < MAX_BAD_LINES:
                parsed.bad_lines.append(post)
            continue
        if post.id is None:
            parsed.num_without_id += 1
            continue
        if task.container == "dafre":
            parsed.splits[post.id] = post.split
        if task.container in READERS_WITH_IMAGES:
            parsed.images.append(image)
        if isinstance(post, SitePost):
            parsed.sites[post.site] += 1
        names = post.characters()
        ids.append(post.id)
        rating_codes.append(ratings[post.rating or ""])
        deleted.append(bool(post.is_deleted))
        families.append(parent_of(post.parent_id) or post.id)
        file_hashes.append(digest_of(post.md5))
        if len(names) == 1:
            general, name = post.general_tags(), names.pop()
            character_codes.append(characters[name])
            parsed.series.update((name, series) for series in ("", *post.series()))
            tag_counts.append(len(general))
            tag_codes.extend(map(tags.__getitem__, general))
            parsed.other_tags.update(post.other_tags())
        else:
            character_codes.append(SEVERAL_CHARACTERS if names else NO_CHARACTER)
            tag_counts.append(0)
    parsed.posts = PostsTable(
        np.array(ids, np.int64),
        np.array(character_codes, np.int32),
        np.array(rating_codes, np.int32),
        np.array(deleted, bool),
        np.array(families, np.int64),
        np.array(file_hashes, np.uint64),
        np.array(tag_counts, np.int32),
        np.array(tag_codes, np.int32),
        list(characters),
        list(ratings),
        list(tags),
    )
    return parsed


def merge(parts: Iterable[tuple[ParseTask, Parsed]]) -> Parsed:
    """Join the tasks in their order; codes are renumbered, bad lines get their line number in the file."""
    vocabularies = {"characters": Codes(), "ratings": Codes(), "tag_codes": Codes()}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*POST_COLUMNS, "tag_codes")}
    merged, lines_before = Parsed(posts=None), 0
    for task, part in parts:
        lines_before = lines_before if task.start else 0
        for bad in part.bad_lines:
            bad.line += lines_before
        lines_before += part.num_lines
        merged.num_lines += part.num_lines
        merged.num_records += part.num_records
        merged.num_without_id += part.num_without_id
        merged.num_bad += part.num_bad
        merged.bad_lines += part.bad_lines[: MAX_BAD_LINES - len(merged.bad_lines)]
        merged.other_tags |= part.other_tags
        merged.images += part.images
        merged.sites += part.sites
        merged.ignored += part.ignored
        merged.splits |= part.splits
        merged.series.update(part.series)
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

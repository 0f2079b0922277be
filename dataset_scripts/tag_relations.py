"""Tag aliases and implications of a dump (Danbooru2021: tag_aliases*.json, tag_implications*.json), if asked for.

The paper does not apply them, so both are off by default. Only active relations count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import msgspec
import numpy as np
from upath import UPath

from dataset_scripts.open_files import DAMAGED
from dataset_scripts.posts import PostsTable
from dataset_scripts.read_json import COMPRESSED_SUFFIXES, JSON_SUFFIXES, opened_files, records_of

ACTIVE = ("active", None)


class Relation(msgspec.Struct):
    """A line of either file."""

    antecedent_name: str
    consequent_name: str
    status: str | None = None


def read_relations(source: UPath, kind: str) -> list[tuple[str, str]]:
    """Active (antecedent, consequent) pairs of `source/metadata*/tag_KIND*` (or `source/tag_KIND*`), sorted.

    Raises FileNotFoundError without such a file, ValueError with file and line for a line that is no relation.
    """
    paths = [*source.glob(f"metadata*/tag_{kind}*"), *source.glob(f"tag_{kind}*")]
    paths = sorted((path for path in paths if path.name.endswith((*JSON_SUFFIXES, *COMPRESSED_SUFFIXES))), key=str)
    if not paths:
        raise FileNotFoundError(f"--{kind} expects tag_{kind}*.json in {source}/metadata*/, found none: leave it out.")
    pairs = set()
    for path in paths:
        try:
            for name, file in opened_files(str(path), path.name):
                if file is not None:
                    pairs.update(active_pairs(file, name))
        except DAMAGED as error:
            raise ValueError(f"{path.name} cannot be unpacked to its end ({error}): get it again.") from error
    return sorted(pairs)


def active_pairs(file: BinaryIO, name: str) -> Iterator[tuple[str, str]]:
    """The pairs of one file: lines, or an array. Raises ValueError with file and line for what is no relation."""
    decode = msgspec.json.Decoder(Relation).decode
    for number, record in enumerate(records_of(file, name), 1):
        if not record.strip():
            continue
        try:
            relation = decode(record)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}:{number}: expected a relation of two tags, {error}.") from error
        if relation.status in ACTIVE and relation.antecedent_name != relation.consequent_name:
            yield relation.antecedent_name, relation.consequent_name


def follow(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Every tag that a tag leads to, over any number of steps, without itself: a circle ends where it began."""
    steps: dict[str, list[str]] = {}
    for antecedent, consequent in pairs:
        steps.setdefault(antecedent, []).append(consequent)
    reached: dict[str, list[str]] = {}
    for start in steps:
        found, waiting = {start: None}, [start]
        while waiting:
            for tag in steps.get(waiting.pop(), ()):
                if tag not in found:
                    found[tag] = None
                    waiting.append(tag)
        reached[start] = list(found)[1:]
    return reached


def apply_aliases(posts: PostsTable, pairs: list[tuple[str, str]]) -> PostsTable:
    """The table with every tag and character under the name at the end of its aliases; a tag counts once a post.

    Raises ValueError when aliases go in a circle.
    """
    next_names, last_names = dict(pairs), {}
    for name in next_names:
        last, seen = name, set()
        while last in next_names:
            if last in seen:
                raise ValueError(f"--aliases expects every alias to end somewhere, but {last} leads back to itself.")
            seen.add(last)
            last = next_names[last]
        last_names[name] = last
    characters, character_names = renamed(posts.characters, posts.character_names, last_names)
    tag_codes, tag_names = renamed(posts.tag_codes, posts.tag_names, last_names)
    return with_tags(posts, tag_codes, posts.tag_counts, tag_names, characters, character_names)


def renamed(codes: np.ndarray, names: list[str], new_names: dict[str, str]) -> tuple[np.ndarray, list[str]]:
    """Codes of renamed names; negative codes stay."""
    numbers: dict[str, int] = {}
    table = [numbers.setdefault(new_names.get(name, name), len(numbers)) for name in names]
    # The two last places catch NO_CHARACTER = -1 and SEVERAL_CHARACTERS = -2.
    return np.array([*table, -2, -1], np.int32)[codes], list(numbers)


def apply_implications(posts: PostsTable, pairs: list[tuple[str, str]]) -> PostsTable:
    """The table with the tags that a post's tags imply, over any number of steps, added to it."""
    reached = follow(pairs)
    names = list(posts.tag_names)
    numbers = {name: code for code, name in enumerate(names)}
    implied: list[list[int]] = []
    for name in posts.tag_names:
        for tag in reached.get(name, ()):
            if tag not in numbers:
                numbers[tag] = len(names)
                names.append(tag)
        implied.append([numbers[tag] for tag in reached.get(name, ())])
    num_implied = np.array([len(codes) for codes in implied], np.int64)
    starts = np.cumsum(num_implied) - num_implied
    flat = np.array([code for codes in implied for code in codes], np.int32)

    added = num_implied[posts.tag_codes]  # for each tag use
    places = np.repeat(starts[posts.tag_codes] - (np.cumsum(added) - added), added) + np.arange(added.sum())
    owners = np.repeat(np.arange(len(posts)), posts.tag_counts)
    all_owners = np.concatenate([owners, np.repeat(owners, added)])
    all_codes = np.concatenate([posts.tag_codes, flat[places]])
    order = np.argsort(all_owners, kind="stable")
    counts = np.bincount(all_owners, minlength=len(posts)).astype(np.int32)
    return with_tags(posts, all_codes[order], counts, names, posts.characters, posts.character_names)


def with_tags(
    posts: PostsTable,
    tag_codes: np.ndarray,
    tag_counts: np.ndarray,
    tag_names: list[str],
    characters: np.ndarray,
    character_names: list[str],
) -> PostsTable:
    """The posts with other tags, each once a post."""
    owners = np.repeat(np.arange(len(posts)), tag_counts)
    pairs = np.unique(owners * max(len(tag_names), 1) + tag_codes)
    counts = np.bincount(pairs // max(len(tag_names), 1), minlength=len(posts)).astype(np.int32)
    return PostsTable(
        posts.post_ids,
        characters,
        posts.ratings,
        posts.is_deleted,
        counts,
        (pairs % max(len(tag_names), 1)).astype(np.int32),
        character_names,
        posts.rating_names,
        tag_names,
    )

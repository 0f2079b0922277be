"""Tag aliases and implications of a dump (Danbooru2021: tag_aliases*.json, tag_implications*.json), if asked for.

The paper does not apply them, so both are off by default. Only active relations count.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dataset_scripts.rules.posts_table import PostsTable

RATING = "rating:"  # begins the tags of --rating_tags
RATING_WORDS = {"g": "general", "s": "safe", "q": "questionable", "e": "explicit"}


def follow(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Every tag that a tag leads to, over any number of steps, without itself. Circles end."""
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


def resolve_aliases(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The name at the end of its aliases for each name that has one.

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
    return last_names


def apply_aliases(posts: PostsTable, last_names: dict[str, str]) -> PostsTable:
    """The table with every tag and character under its last name; a tag counts once a post."""
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


def is_rating_tag(tag: str) -> bool:
    return tag.startswith(RATING)


def add_ratings(posts: PostsTable, known: set[str] | None = None) -> PostsTable:
    """The table with the rating of each post as a tag: `rating:general` for g, `rating:questionable` for q,
    `rating:explicit` for e. `s` means sensitive where a dump has `g` too, as Danbooru's since 2022, else safe.

    Args:
        known: the tags that a vocabulary has (`--like`); None for all.
    """
    words = RATING_WORDS | ({"s": "sensitive"} if {"g", "general"} & set(posts.rating_names) else {})
    tags = [RATING + underscored_rating(words.get(name, name)) if name else None for name in posts.rating_names]
    tags = [tag if tag and (known is None or tag in known) else None for tag in tags]
    names = [*posts.tag_names, *sorted({tag for tag in tags if tag})]
    codes = np.array([names.index(tag) if tag else -1 for tag in tags], np.int32)[posts.ratings]
    rows = np.flatnonzero(codes >= 0)
    all_codes = np.insert(posts.tag_codes, posts.offsets()[1:][rows], codes[rows])
    counts = posts.tag_counts + (codes >= 0).astype(np.int32)
    return with_tags(posts, all_codes, counts, names, posts.characters, posts.character_names)


def underscored_rating(name: str) -> str:
    """A rating of any dump as part of a tag."""
    return "_".join("".join(c for c in name if c.isprintable()).lower().split())


def with_tags(
    posts: PostsTable,
    tag_codes: np.ndarray,
    tag_counts: np.ndarray,
    tag_names: list[str],
    characters: np.ndarray,
    character_names: list[str],
) -> PostsTable:
    """The posts with these tags in place of theirs; a tag counts once a post."""
    owners = np.repeat(np.arange(len(posts)), tag_counts)
    pairs = np.unique(owners * max(len(tag_names), 1) + tag_codes)
    counts = np.bincount(pairs // max(len(tag_names), 1), minlength=len(posts)).astype(np.int32)
    return replace(
        posts,
        characters=characters,
        tag_counts=counts,
        tag_codes=(pairs % max(len(tag_names), 1)).astype(np.int32),
        character_names=character_names,
        tag_names=tag_names,
    )

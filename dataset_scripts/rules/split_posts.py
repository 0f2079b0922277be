"""Splits posts: train, validation and test at 0.70 / 0.05 / 0.25 per character (paper §III.A), by a hash of the id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataset_scripts.rules.posts_table import runs_of

SPLITS = ("train", "validation", "test")


@dataclass
class NearDuplicates:
    """Which posts show the same drawing as which others."""

    groups: np.ndarray  # int64 [N], the least post id of the group; its own for a post alone
    near_train: np.ndarray  # bool [N], of validation and test: a post of train shows the same
    statistics: dict  # for build.json


@dataclass
class Divided:
    """The posts of a data set divided into its splits."""

    splits: np.ndarray  # int8 [N], index into SPLITS
    statistics: dict  # paper Table I
    near: NearDuplicates


def split_sizes(num_posts: np.ndarray | int, held_out: bool = False) -> tuple:
    """Posts in train, validation and test for characters of `num_posts` posts, in the order of SPLITS.

    `held_out`: of a data set that nothing is trained on: none, n*2//7 and the rest.

    Paper: "on the scale of 0.7, 0.25, and 0.05". Here: n*7//10, the rest, n//4, because that gives Table I at both
    ends (42,582 → 29,807 / 2,130 / 10,645; 10 → 7 / 1 / 2). Integers: in floats 0.7 * 90 is 62.99… and floors to 62.
    """
    if held_out:
        return num_posts * 0, num_posts * 2 // 7, num_posts - num_posts * 2 // 7
    train, test = num_posts * 7 // 10, num_posts // 4
    return train, num_posts - train - test, test


def assign_splits(
    post_ids: np.ndarray,
    characters: np.ndarray,
    seed: int = 0,
    held_out: bool = False,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """The split of every post as an index into SPLITS, int8 [N].

    Posts of a character are ordered by a hash of id and seed, ids breaking ties, so neither the order of the input
    nor any other character matters. Characters of fewer than 4 posts have no test post, those of 1
    no train post either.

    Args:
        post_ids: int64 [N], unique.
        characters: [N] codes >= 0.
        seed: any integer that fits 64 bits; another seed is another split.
        held_out: see [`split_sizes`].
        groups: int64 [N]; posts of one group come into one split (`--duplicates group`). See [`place_groups`].
    """
    sizes = np.stack(split_sizes(np.bincount(characters), held_out), axis=1)  # [C, 3] in the order of SPLITS
    splits = np.full(len(post_ids), -1, np.int8)
    if groups is not None:
        place_groups(splits, sizes, post_ids, characters, groups, seed)
    alone = np.flatnonzero(splits < 0)
    order = alone[np.lexsort((post_ids[alone], hash_ids(post_ids[alone], seed), characters[alone]))]
    sorted_characters = characters[order]
    counts = np.bincount(characters[alone], minlength=len(sizes))
    places = np.arange(len(order)) - (np.cumsum(counts) - counts)[sorted_characters]
    num_train, _, num_test = np.maximum(sizes, 0).T
    test_end = (num_train + num_test)[sorted_characters]
    splits[order] = np.where(places < num_train[sorted_characters], 0, np.where(places < test_end, 2, 1))
    return splits


def place_groups(
    splits: np.ndarray,
    sizes: np.ndarray,
    post_ids: np.ndarray,
    characters: np.ndarray,
    groups: np.ndarray,
    seed: int,
) -> None:
    """Set the split of all groups of two and more posts, and take them off `sizes` (int64 [C, 3]).

    The largest come first. A group goes where least of it is too much; among splits where that is equal one is drawn
    by the hash of the group, as likely as there is room. So singles, which come after, make the counts exact, but for
    characters with a group that is larger than any room left: it goes where most room is, train at first, and
    validation has so many posts less.
    """
    order = np.argsort(groups, kind="stable")
    starts, ends = runs_of(groups[order])
    starts, ends = starts[ends - starts > 1], ends[ends - starts > 1]
    names = groups[order[starts]]
    draws = hash_ids(names, seed) / 2.0**64
    for number in np.lexsort((names, starts - ends)).tolist():
        rows = order[starts[number] : ends[number]]
        of_group, counts = np.unique(characters[rows], return_counts=True)
        room = sizes[of_group]
        too_much = np.maximum(counts[:, None] - np.maximum(room, 0), 0).sum(axis=0)
        best = too_much == too_much.min()
        if too_much.min():
            split = int(np.argmax(best))  # the first of SPLITS, which is the largest
        else:
            shares = np.cumsum(np.where(best, np.maximum(room, 0).sum(axis=0), 0))
            split = int(np.searchsorted(shares, draws[number] * shares[-1], side="right"))
        splits[rows] = split
        sizes[of_group, split] -= counts


def shuffled_order(post_ids: np.ndarray, seed: int = 0) -> np.ndarray:
    """Row order inside a split: int64 [N] indices, shuffled by a second hash so that a small buffer mixes a stream."""
    # Hashed twice: with the hash of assign_splits the rows of train would start with each character's train posts.
    return np.lexsort((post_ids, hash_ids(hash_ids(post_ids, seed).view(np.int64), ~seed)))


def hash_ids(post_ids: np.ndarray, seed: int) -> np.ndarray:
    """uint64 [N]: splitmix64 of id xor (splitmix64 of seed). The same number in any engine and on any machine."""
    return splitmix64(post_ids.astype(np.uint64) ^ splitmix64(np.array([seed % 2**64], np.uint64)))


def splitmix64(values: np.ndarray) -> np.ndarray:
    """Sebastiano Vigna's mixer over uint64, modulo 2**64."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))

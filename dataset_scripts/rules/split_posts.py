"""Splits posts: train, validation and test at 0.70 / 0.05 / 0.25 per character (paper §III.A), by a hash of the id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPLITS = ("train", "validation", "test")


@dataclass
class Divided:
    """The posts of a data set divided into its splits."""

    splits: np.ndarray  # int8 [N], index into SPLITS
    statistics: dict  # paper Table I


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


def assign_splits(post_ids: np.ndarray, characters: np.ndarray, seed: int = 0, held_out: bool = False) -> np.ndarray:
    """The split of every post as an index into SPLITS, int8 [N].

    Posts of a character are ordered by a hash of id and seed, ids breaking ties, so neither the order of the input
    nor any other character matters. Characters of fewer than 4 posts have no test post, those of 1
    no train post either.

    Args:
        post_ids: int64 [N], unique.
        characters: [N] codes >= 0.
        seed: any integer that fits 64 bits; another seed is another split.
        held_out: see [`split_sizes`].
    """
    order = np.lexsort((post_ids, hash_ids(post_ids, seed), characters))
    counts = np.bincount(characters)
    starts = np.cumsum(counts) - counts
    sorted_characters = characters[order]
    places = np.arange(len(post_ids)) - starts[sorted_characters]
    num_train, _, num_test = split_sizes(counts, held_out)
    test_end = (num_train + num_test)[sorted_characters]
    by_place = np.where(places < num_train[sorted_characters], 0, np.where(places < test_end, 2, 1))
    splits = np.empty(len(post_ids), np.int8)
    splits[order] = by_place
    return splits


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

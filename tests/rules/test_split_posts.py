"""The split rule: Table I at both ends, independent of the order of the input."""

import numpy as np
import pytest

from dataset_scripts.rules.split_posts import SPLITS, assign_splits, hash_ids, shuffled_order, split_sizes, splitmix64


@pytest.mark.parametrize(
    "num_posts, train, test, validation",
    [(42_582, 29_807, 10_645, 2_130), (10, 7, 2, 1), (90, 63, 22, 5), (3, 2, 0, 1), (1, 0, 0, 1)],
)
def test_sizes_are_those_of_table_1(num_posts, train, test, validation):
    assert dict(zip(SPLITS, split_sizes(num_posts), strict=True)) == {
        "train": train,
        "validation": validation,
        "test": test,
    }


def test_a_held_out_set_has_no_train_split():
    assert [split_sizes(number, held_out=True) for number in (7, 100, 1)] == [(0, 2, 5), (0, 28, 72), (0, 0, 1)]
    splits = assign_splits(np.arange(107), np.repeat([0, 1], [7, 100]), held_out=True)
    assert np.bincount(splits).tolist() == [0, 30, 77]


def test_every_character_is_split_alone():
    characters = np.repeat([0, 1, 2], [10, 42_582, 13])
    splits = assign_splits(np.arange(len(characters)) * 7, characters)
    for code, number in enumerate([10, 42_582, 13]):
        assert tuple(np.bincount(splits[characters == code], minlength=3)) == split_sizes(number)


def test_split_is_the_same_in_any_order_of_input():
    ids, characters = np.arange(1000, 1500), np.arange(500) % 7
    order = np.random.default_rng(0).permutation(500)
    assert np.array_equal(assign_splits(ids, characters)[order], assign_splits(ids[order], characters[order]))


def test_another_seed_is_another_split_and_negative_seeds_work():
    ids, characters = np.arange(500), np.zeros(500, int)
    assert not np.array_equal(assign_splits(ids, characters, 0), assign_splits(ids, characters, 1))
    assert tuple(np.bincount(assign_splits(ids, characters, -1))) == split_sizes(500)


def test_rows_are_shuffled_within_a_split_without_trace_of_the_split_hash():
    ids = np.arange(10_000)
    order = shuffled_order(ids)
    assert sorted(order.tolist()) == ids.tolist()
    split_rank = np.argsort(np.argsort(hash_ids(ids, 0)))
    assert abs(np.corrcoef(np.arange(10_000), split_rank[order])[0, 1]) < 0.05
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05


def test_hash_is_splitmix64():
    assert splitmix64(np.array([0], np.uint64))[0] == 0xE220A8397B1DCDAF  # first output of the reference, seed 0

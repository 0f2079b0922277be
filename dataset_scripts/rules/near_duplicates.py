"""Posts that show the same drawing: by the dump's parents, by the MD5 of the file, by a hash of the picture.

The search is exact: if the first 64 bits of two hashes differ in at most 7, one of their four quarters differs by at
most one bit, so only pictures with a quarter that close are compared at all. The other 192 bits have to agree as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dataset_scripts.rules.picture_hash import MIRRORED_BITS
from dataset_scripts.rules.posts_table import PostsTable, in_sorted, runs_of
from dataset_scripts.rules.split_posts import SPLITS, NearDuplicates

MAX_DISTANCE = 7  # bits; see above
DISTANCE = 6  # measured on planted copies: tests/benchmarks/bench_duplicates.py
FURTHER = 7  # of the 192 further bits may differ for each of the first; copies that are not cropped need half of that
QUARTER = 16  # bits
PAIRS_AT_ONCE = 2**22
PAIRS_KEPT = 2**22  # until they are joined


@dataclass
class Images:
    """What is known of the images of n posts."""

    post_ids: np.ndarray  # int64 [n], sorted
    num_bytes: np.ndarray  # int64 [n]
    num_pixels: np.ndarray  # int64 [n]
    picture_hashes: np.ndarray  # uint64 [n, 4], see `picture_hash`; 0 = none
    broken: dict[str, np.ndarray]  # ids by what is wrong with their image

    def of(self, post_ids: np.ndarray) -> Images:
        """Those of some of the posts, in the order asked for."""
        rows = np.searchsorted(self.post_ids, post_ids)
        return Images(post_ids, self.num_bytes[rows], self.num_pixels[rows], self.picture_hashes[rows], self.broken)


@dataclass
class OtherPosts:
    """Train posts of another data set, which those of this one may show again."""

    post_ids: np.ndarray  # int64 [m]
    families: np.ndarray  # int64 [m]
    picture_hashes: np.ndarray  # uint64 [m, 4]
    characters: np.ndarray  # int [m], index into character_names
    character_names: list[str]

    def codes(self, character_names: list[str]) -> np.ndarray:
        """Their characters as indices into other names, -1 for one that is not among them."""
        places = {name: code for code, name in enumerate(character_names)}
        return np.array([places.get(name, -1) for name in self.character_names] or [-1])[self.characters]


def join_families(post_ids: np.ndarray, families: np.ndarray) -> np.ndarray:
    """int64 [N]: the least id of all that are linked by parents, over any number of steps.

    Siblings are a family even where the dump has not got their parent; circles of parents are one too.

    Args:
        post_ids, families: int64 [N], each with the id of its parent or its own.
    """
    if not len(post_ids) or (post_ids == families).all():
        return families
    names, codes = np.unique(np.concatenate([post_ids, families]), return_inverse=True)
    ours, parents = np.split(codes, [len(post_ids)])
    return names[joined(len(names), ours, parents)[ours]]


def joined(number: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int64 [number]: of each node the least that links lead to, over any number of steps.

    SciPy's connected components take 0.3 s to import, a tenth of the build of a thousand pictures.
    """
    least = np.arange(number)
    while True:
        a, b = least[first], least[second]
        if (a == b).all():
            return least
        np.minimum.at(least, np.maximum(a, b), np.minimum(a, b))
        while ((further := least[least]) != least).any():
            least = further


def families_of(wanted: np.ndarray, post_ids: np.ndarray, families: np.ndarray) -> np.ndarray:
    """The families of some ids among posts; an id that is none of them is its own."""
    if not len(post_ids):
        return wanted
    order = np.argsort(post_ids, kind="stable")
    places = order[np.minimum(np.searchsorted(post_ids, wanted, sorter=order), len(order) - 1)]
    return np.where(post_ids[places] == wanted, families[places], wanted)


def group_posts(
    posts: PostsTable, picture_hashes: np.ndarray, distance: int, others: OtherPosts | None = None
) -> dict[str, np.ndarray]:
    """{"parent", "file", "picture", "any"}: the group of each post (int64 [N + m], its least post id) by each of the
    relations alone, and by all together, over any number of steps; the m other posts at the end.

    Args:
        posts: N of unique ids, their families as [`join_families`] gives them.
        picture_hashes: uint64 [N, 4]; 0 for none, which is like nothing.
        distance: see [`alike_pictures`].
        others: of another data set.
    """
    post_ids, families, characters, file_hashes, picture_hashes = with_others(posts, picture_hashes, others)
    order = np.argsort(post_ids)  # so that the least node of a group is its least id
    rows = {
        "parent": first_of(families[order] + 1),
        "file": first_of(file_hashes[order]),
        "picture": alike_pictures(picture_hashes[order], characters[order], distance),
    }
    nodes = np.tile(np.arange(len(order)), len(rows))
    rows["any"] = joined(len(order), nodes, np.concatenate(list(rows.values())))
    groups = {}
    for name, least in rows.items():
        groups[name] = np.empty(len(order), np.int64)
        groups[name][order] = post_ids[order][least]
    return groups


def with_others(
    posts: PostsTable, picture_hashes: np.ndarray, others: OtherPosts | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids, families, characters, file hashes and picture hashes of N posts and behind them of m others."""
    columns = (posts.post_ids, posts.families, posts.characters, posts.file_hashes, picture_hashes)
    if others is None:
        return columns
    no_files = np.zeros(len(others.post_ids), np.uint64)
    characters = others.codes(posts.character_names)
    more = (others.post_ids, others.families, characters, no_files, others.picture_hashes)
    return tuple(np.concatenate(pair) for pair in zip(columns, more, strict=True))


def find_near_train(relations: dict[str, np.ndarray], splits: np.ndarray) -> NearDuplicates:
    """The groups of the N posts of `splits`, which of them lie near a train post, and how many there are.

    Args:
        relations: of [`group_posts`]; what it has more than N are train posts of another set.
        splits: int8 [N], index into SPLITS.
    """
    groups, num_posts = relations["any"], len(splits)
    sizes = group_sizes(groups)[:num_posts]
    in_train = np.concatenate([groups[:num_posts][splits == 0], groups[num_posts:]])
    groups = groups[:num_posts]
    near_train = (splits != 0) & in_sorted(groups, np.unique(in_train))
    several = sizes > 1
    pairs = np.unique(np.stack([groups[several], splits[several]]), axis=1)
    statistics = {
        "groups": len(np.unique(groups[several])),
        "posts_in_groups": int(several.sum()),
        "largest_group": int(sizes.max(initial=0)),
        "posts_by_relation": {
            name: int((group_sizes(relations[name])[:num_posts] > 1).sum()) for name in ("parent", "file", "picture")
        },
        "groups_across_splits": int((np.unique(pairs[0], return_counts=True)[1] > 1).sum()),
        "near_train": {
            name: int(near_train[splits == split].sum()) for split, name in enumerate(SPLITS) if name != "train"
        },
    }
    return NearDuplicates(groups, near_train, statistics)


def group_sizes(groups: np.ndarray) -> np.ndarray:
    """The number of posts in the group of each post."""
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return counts[inverse]


def describe_duplicates(found: dict) -> str:
    """The statistics of [`find_near_train`] in two sentences."""
    if not found["posts_in_groups"]:
        return "near-duplicates: none"
    by = ", ".join(f"{number:,} by {name}" for name, number in found["posts_by_relation"].items())
    near = ", ".join(f"{number:,} {name}" for name, number in found["near_train"].items())
    return (
        f"near-duplicates: {found['posts_in_groups']:,} posts in {found['groups']:,} groups ({by}), the largest of "
        f"{found['largest_group']:,}; {found['groups_across_splits']:,} groups lie in several splits.\n"
        f"posts that a train post shows too: {near}"
    )


def first_of(values: np.ndarray) -> np.ndarray:
    """int64 [N]: the first place with the same value, or the same row of values; 0 is like nothing."""
    columns = values.T if values.ndim == 2 else values[None]
    order = np.lexsort(columns)
    is_new = np.ones(len(values), bool)
    is_new[1:] = (columns[:, order[1:]] != columns[:, order[:-1]]).any(axis=0)
    first = np.empty(len(values), np.int64)
    first[order] = order[is_new][np.cumsum(is_new) - 1]  # lexsort is stable: the first of equals is the first place
    return np.where(columns.any(axis=0), first, np.arange(len(values)))


def alike_pictures(hashes: np.ndarray, characters: np.ndarray, distance: int) -> np.ndarray:
    """int64 [N]: the first place of those that are linked by hashes within `distance`, mirrored or not.

    Only pictures of one character are: a heart of another colour is another emoji, and of a million pictures many are
    alike by chance.

    Args:
        hashes: uint64 [N, 4]; 0 for none, which is like nothing.
        characters: int [N]; those below 0 are nobody's.
        distance: bits of the first 64 that may differ, 0 to 7, and `FURTHER` times as many of the others.
    """
    is_known = hashes.any(axis=1) & (characters >= 0)
    keys = np.concatenate([hashes, characters.astype(np.uint64)[:, None] + np.uint64(1)], axis=1)
    first = first_of(np.where(is_known[:, None], keys, np.uint64(0)))
    distinct = np.flatnonzero((first == np.arange(len(hashes))) & is_known)
    least = np.arange(len(distinct))
    for a, b in close_pairs(hashes[distinct], distance, characters[distinct]):
        ends = np.concatenate([np.arange(len(distinct)), a]), np.concatenate([least, b])
        least = joined(len(distinct), *ends)
    alike = np.arange(len(hashes))
    alike[distinct] = distinct[least]
    return alike[first]


def close_pairs(hashes: np.ndarray, distance: int, characters: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of all pairs of hashes of one character within `distance` bits, mirrored or not, some millions at a time;
    some pairs come more than once.

    Raises ValueError for a distance that the search would not be exact for.
    """
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"Expected a distance of 0 to {MAX_DISTANCE} bits, got {distance}.")
    flips = [0] + [1 << bit for bit in range(QUARTER) if distance >= 4]
    both, characters = np.concatenate([hashes, hashes ^ MIRRORED_BITS]), np.tile(characters, 2)
    found: list[tuple[np.ndarray, np.ndarray]] = [(np.array([], np.int64),) * 2]
    num_found = 0
    for quarter in range(4):
        shift = np.uint64(quarter * QUARTER)
        plain, mirrored = (Buckets(part[:, 0], shift) for part in np.split(both, 2))
        mirrored.rows += len(hashes)
        for key in np.flatnonzero(np.diff(plain.starts)).tolist():
            rows, values = plain.bucket(key)
            parts = [plain.bucket(key ^ flip) for flip in flips if key ^ flip >= key]
            parts += [mirrored.bucket(key ^ flip) for flip in flips]
            theirs = np.concatenate([part for part, _ in parts])
            their_values = np.concatenate([part for _, part in parts])
            step = max(1, PAIRS_AT_ONCE // max(1, len(theirs)))
            for start in range(0, len(rows), step):
                differ = np.bitwise_count(values[start : start + step, None] ^ their_values)
                # What is near is rare: a flat search is cheaper than one by rows and columns.
                places = np.flatnonzero(differ <= distance)
                a, b = rows[start + places // len(theirs)], theirs[places % len(theirs)]
                kept = (a != b) & (characters[a] == characters[b])
                a, b = a[kept], b[kept]
                kept = further_bits(both[a], both[b]) <= FURTHER * distance
                found.append((a[kept], b[kept] % len(hashes)))
                num_found += int(kept.sum())
                if num_found > PAIRS_KEPT:
                    yield tuple(np.concatenate(column) for column in zip(*found, strict=True))
                    found, num_found = found[:1], 0
    yield tuple(np.concatenate(column) for column in zip(*found, strict=True))


def further_bits(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """In how many bits behind the first 64 hashes [..., 4] differ."""
    return np.bitwise_count(one[..., 1:] ^ other[..., 1:]).sum(axis=-1, dtype=np.int64)


class Buckets:
    """The first words of hashes, sorted by one of their quarters."""

    def __init__(self, hashes: np.ndarray, shift: np.uint64):
        keys = (hashes >> shift).astype(np.uint16)
        self.rows = np.argsort(keys, kind="stable")
        self.values = hashes[self.rows]
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=2**QUARTER))])

    def bucket(self, key: int) -> tuple[np.ndarray, np.ndarray]:
        """Places and hashes of those with this quarter."""
        part = slice(self.starts[key], self.starts[key + 1])
        return self.rows[part], self.values[part]


def copies(posts: PostsTable, images: Images, distance: int, others: OtherPosts | None = None) -> np.ndarray:
    """Posts that are copies of a better one of the same character, bool [N] (`--duplicates drop`).

    Better is what has more pixels, then more bytes, then the lower id. Going from the best to the worst, a post goes
    if it is like one that stays: so what is left is never alike, and nothing goes that is like nothing that stays.
    A child of another post is no copy for that.

    Args:
        posts: N.
        images: of the posts.
        distance: see [`alike_pictures`].
        others: posts that are there already (`--like`): what is a copy of one of them goes, however good it is.
    """
    number = len(posts)
    ids, _, characters, files, hashes = with_others(posts, images.picture_hashes, others)
    ends = np.concatenate([alike_pictures(hashes, characters, distance), first_of(files)])
    alike = joined(len(hashes), np.tile(np.arange(len(hashes)), 2), ends)
    quality = np.full((2, len(hashes)), np.iinfo(np.int64).max)
    quality[:, :number] = images.num_pixels, images.num_bytes
    dropped = np.zeros(len(hashes), bool)
    order = np.lexsort((ids, -quality[1], -quality[0], alike))  # the others come first in their groups
    starts, ends = runs_of(alike[order])
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        kept: list[int] = []
        for row in order[start:end].tolist():
            same = [other for other in kept if characters[other] == characters[row]]
            is_copy = (files[row] != 0 and (files[same] == files[row]).any()) or is_near(
                hashes[row], hashes[same], distance
            ).any()
            if is_copy and row < number:
                dropped[row] = True
            else:
                kept.append(row)
    return dropped[:number]


def is_near(value: np.ndarray, others: np.ndarray, distance: int) -> np.ndarray:
    """bool [n]: which hashes (uint64 [n, 4]) are within `distance` of one, mirrored or not; 0 is like nothing."""
    near = np.zeros(len(others), bool)
    for one in (value, value ^ MIRRORED_BITS):
        is_close = np.bitwise_count(others[:, 0] ^ one[0]) <= distance
        near |= is_close & (further_bits(others, one) <= FURTHER * distance)
    return near & others.any(axis=1) & value.any()

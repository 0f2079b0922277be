"""The posts of a dump as one table of integer codes, whatever the format they came in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

NO_CHARACTER, SEVERAL_CHARACTERS = -1, -2
POST_COLUMNS = ("post_ids", "characters", "ratings", "is_deleted", "families", "file_hashes", "tag_counts")


@dataclass
class PostsTable:
    """Posts as integer codes. N posts, M tag uses; a code indexes the list of names of its kind.

    General tags are kept only for posts of exactly one character: no option ever selects another post.
    """

    post_ids: np.ndarray  # int64 [N]
    characters: np.ndarray  # int32 [N], or NO_CHARACTER, SEVERAL_CHARACTERS
    ratings: np.ndarray  # int32 [N]
    is_deleted: np.ndarray  # bool [N]
    families: np.ndarray  # int64 [N], as parsed the id of the parent, or its own; see `join_families`
    file_hashes: np.ndarray  # uint64 [N], of the MD5 that the record names; 0 = none
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
        return replace(self.take(np.flatnonzero(kept)), tag_codes=tag_codes)

    def take(self, rows: np.ndarray) -> PostsTable:
        """Every column of one value a post at `rows`; `tag_codes` are still those of all posts."""
        return replace(self, **{name: getattr(self, name)[rows] for name in POST_COLUMNS})

    def drop_tags(self, dropped: np.ndarray) -> PostsTable:
        """The table without the tags where `dropped` (bool, one per tag name) is true. No post goes."""
        if not dropped.any():
            return self
        kept = ~dropped[self.tag_codes]
        tag_counts, filled = np.zeros_like(self.tag_counts), self.tag_counts > 0
        if filled.any():  # reduceat has no empty segments, so it runs over the posts that have tags
            tag_counts[filled] = np.add.reduceat(kept, self.offsets()[:-1][filled], dtype=np.int32)
        return replace(self, tag_counts=tag_counts, tag_codes=self.tag_codes[kept])


def count_posts_of_tags(posts: PostsTable) -> np.ndarray:
    """int64 [K]: posts per tag. A tag stands at most once in a post."""
    return np.bincount(posts.tag_codes, minlength=len(posts.tag_names))


def in_sorted(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """bool: which values are in the sorted array. Less memory than np.isin, which sorts both together."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[places] == values


def runs_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal values begins in a sorted array, and where it ends."""
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]][: len(values)])
    return starts, np.r_[starts[1:], len(values)][: len(starts)]


def in_canonical_order(posts: PostsTable) -> PostsTable:
    """The same posts by rising id, character and tag names alphabetical and only those in use, tags of a post sorted.

    What is written depends on this order alone and not on the order of the dump's lines.
    """
    characters, character_names = renumber_by_name(posts.characters, posts.character_names)
    tag_codes, tag_names = renumber_by_name(posts.tag_codes, posts.tag_names)
    order = np.argsort(posts.post_ids)
    rank = np.empty(len(posts), np.int64)
    rank[order] = np.arange(len(posts))
    tag_codes = tag_codes[np.lexsort((tag_codes, np.repeat(rank, posts.tag_counts)))]
    posts = replace(posts, characters=characters, character_names=character_names, tag_names=tag_names)
    return replace(posts.take(order), tag_codes=tag_codes)


def renumber_by_name(codes: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Codes and names such that the names are sorted and every one is used."""
    used = sorted(np.unique(codes).tolist(), key=names.__getitem__)
    new_codes = np.full(len(names), -1, np.int32)
    new_codes[used] = np.arange(len(used))
    return new_codes[codes], [names[code] for code in used]

"""The rules of paper §III.A, one function each, over the posts table of `posts_table.py`.

Every rule returns what it drops as a bool array, over posts [N] or over tag names [K]; none changes its arguments.
`selection.py` applies them in turn and counts. No rule depends on the order of the input.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection

import numpy as np

from dataset_scripts.rules.posts_table import PostsTable, count_posts_of_tags, in_sorted, runs_of

# Paper: removes "facial expressions that have no real meaning using regular expressions, such as '>_<', '=_', '^3^',
# 's.m.s.'", pattern not given. Here: an ASCII tag with a symbol in it and nowhere two letters or digits in a row,
# because that is what the four examples share. So `1girl`, `6+girls`, `c-47`, `xd` stay, and so do `v` and `3` (no
# symbol), `+1` (a signed number) and every tag with a character beyond ASCII. It also takes `...`, `!?` and acronyms
# such as `s.w.a.t.`, which only a word list could tell from 's.m.s.'.
EMOTICON_PATTERN = r"(?![+-]\d$)(?=.*[^A-Za-z0-9])(?!.*[A-Za-z0-9]{2})[\x21-\x7e]+"
TOKEN_NAMES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # of every tag tokenizer
LOG_BASES = {"natural": math.e, "e": math.e, "2": 2.0, "10": 10.0}
THRESHOLD_LADDER = (0.0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # of Eq. 1


def posts_without_image(posts: PostsTable, image_ids: np.ndarray) -> np.ndarray:
    """Posts whose id is not in the listing of the 512px folder (`image_ids`: int64, sorted)."""
    return ~in_sorted(posts.post_ids, image_ids)


def missing_images(posts: PostsTable, image_ids: np.ndarray) -> np.ndarray:
    """Ids of one-character posts whose image should be in the listing and is not, sorted.

    A 512px folder holds safe posts only, so a post without image is no fault in itself. It is one where most
    one-character posts of the same rating have their image.
    """
    one_character = ~posts_not_of_one_character(posts)
    absent = posts_without_image(posts, image_ids)
    all_of_rating = np.bincount(posts.ratings[one_character], minlength=len(posts.rating_names))
    absent_of_rating = np.bincount(posts.ratings[one_character & absent], minlength=len(posts.rating_names))
    is_expected = 2 * absent_of_rating < all_of_rating
    return np.unique(posts.post_ids[one_character & absent & is_expected[posts.ratings]])


def posts_of_other_ratings(posts: PostsTable, ratings: list[str] | None) -> np.ndarray:
    """Posts whose rating is not asked for; None asks for all (the paper names no rating).

    Raises ValueError for a rating that no post has.
    """
    if ratings is None:
        return np.zeros(len(posts), bool)
    unknown = sorted(set(ratings) - set(posts.rating_names))
    if unknown:
        found = sorted(posts.rating_names)
        raise ValueError(f"--ratings asks for {unknown}, but the posts are rated {found}: choose among those.")
    wanted = np.array([name in ratings for name in posts.rating_names], bool)
    return ~wanted[posts.ratings]


def deleted_posts(posts: PostsTable) -> np.ndarray:
    """Posts marked deleted. The dump carries them and the paper does not say that they go: off by default."""
    return posts.is_deleted.copy()


def posts_not_of_one_character(posts: PostsTable) -> np.ndarray:
    """Posts without exactly one character tag (category 4): "images in which only one anime character appears"."""
    return posts.characters < 0


def duplicate_posts(posts: PostsTable) -> tuple[np.ndarray, int]:
    """All records of an id but one, and the number of ids whose records differ.

    Kept: the record with the most tags, then the first by tags, character, rating, deleted. Equal records are
    interchangeable, so the outcome does not depend on the order of the input.
    """
    dropped, conflicts = np.zeros(len(posts), bool), 0
    order = np.argsort(posts.post_ids, kind="stable")
    ids = posts.post_ids[order]
    starts, ends = runs_of(ids)
    offsets = posts.offsets()

    def content(row: int) -> tuple:
        tags = sorted(posts.tag_names[code] for code in posts.tag_codes[offsets[row] : offsets[row + 1]])
        character = posts.character_names[posts.characters[row]] if posts.characters[row] >= 0 else ""
        rating = posts.rating_names[posts.ratings[row]]
        return -len(tags), tags, character, rating, bool(posts.is_deleted[row])

    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        rows = sorted(order[start:end].tolist(), key=content)
        dropped[rows[1:]] = True
        conflicts += content(rows[0]) != content(rows[-1])
    return dropped, conflicts


def posts_of_rare_characters(posts: PostsTable, min_posts: int) -> np.ndarray:
    """Posts of characters with fewer than `min_posts` posts ("fewer than 10 images are removed"), counted once."""
    counts = np.bincount(posts.characters, minlength=len(posts.character_names))
    return counts[posts.characters] < min_posts


def posts_of_unknown_characters(posts: PostsTable, known: Collection[str]) -> np.ndarray:
    """Posts of characters that are not among `known` names."""
    return ~np.array([name in known for name in posts.character_names], bool)[posts.characters]


def unknown_tags(posts: PostsTable, known: Collection[str]) -> np.ndarray:
    """Tags that are not among `known` names."""
    return np.array([name not in known for name in posts.tag_names], bool)


def is_tag(name: str) -> bool:
    """Whether training can have a tag of this spelling, as Danbooru's own all are: small letters, nothing that moves
    a cursor or cannot be seen, no space, and not the name of a special token in any spelling that becomes it.

    Printable means known to this Python, too: among the characters of a later Unicode are capitals.
    """
    if not name or not name.isprintable() or " " in name:
        return False
    return name == name.lower() and name.upper() not in TOKEN_NAMES


def misspelt_tags(posts: PostsTable) -> np.ndarray:
    """Tags that no vocabulary can hold. They are not respelt: `Long Hair` may or may not be meant as `long_hair`."""
    return np.array([not is_tag(name) for name in posts.tag_names], bool)


def posts_of_misspelt_characters(posts: PostsTable) -> np.ndarray:
    """Posts of one character whose name is blank or has line breaks, controls or bytes that are no text in it."""
    misspelt = np.array([not (name.isprintable() and name.strip()) for name in posts.character_names], bool)
    return misspelt[posts.characters]


def emoticon_tags(posts: PostsTable, pattern: str = EMOTICON_PATTERN) -> np.ndarray:
    """Tags that `pattern` matches in full. Run on the unique names, in one regex dialect: Python's."""
    matches = re.compile(pattern).fullmatch
    return np.fromiter((matches(name) is not None for name in posts.tag_names), bool, len(posts.tag_names))


def rare_tags(posts: PostsTable, min_tag_posts: int) -> np.ndarray:
    """Tags on fewer than `min_tag_posts` of the selected posts ("tags that appear only once": 2)."""
    return count_posts_of_tags(posts) < min_tag_posts


def low_tf_idf_tags(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Tags whose summed TF-IDF (Eq. 1) is under the threshold (0.2 in the paper)."""
    return scores < threshold


def tf_idf_sums(posts: PostsTable, log_base: str = "natural") -> np.ndarray:
    """Eq. 1 for every tag: (sum of 1/k over the tag's posts) * log(C / c), float64 [K]; 0 for a tag without posts.

    k: tags of the post, after the emoticon and seen-once rules. c: posts with the tag. C: all selected posts, those
    without any tag included. The posts are grouped by k, counted in integers and added with k rising, so the sums
    are the same to the last bit in any order of input.
    """
    sums = np.zeros(len(posts.tag_names))
    order = np.argsort(posts.tag_counts, kind="stable")
    sorted_counts, starts = posts.tag_counts[order], posts.offsets()[:-1][order]
    for k in np.unique(sorted_counts[sorted_counts > 0]).tolist():
        rows = starts[np.searchsorted(sorted_counts, k, "left") : np.searchsorted(sorted_counts, k, "right")]
        codes = posts.tag_codes[rows[:, None] + np.arange(k)]
        sums += np.bincount(codes.ravel(), minlength=len(sums)) / k
    counts = count_posts_of_tags(posts)
    return sums * np.log(max(len(posts), 1) / np.maximum(counts, 1)) / math.log(LOG_BASES[log_base])


def threshold_ladder(scores: np.ndarray, threshold: float) -> list[dict]:
    """How many tags each threshold of Eq. 1 would leave; `scores` holds the tags that reach that rule."""
    steps = sorted({float(step) for step in THRESHOLD_LADDER} | {float(threshold)})
    ordered = np.sort(scores)
    return [{"threshold": step, "tags": int(len(scores) - np.searchsorted(ordered, step))} for step in steps]


def threshold_for(scores: np.ndarray, num_tags: int) -> float | None:
    """The threshold that leaves `num_tags` tags (more where scores tie), None when there are not that many."""
    return float(np.sort(scores)[-num_tags]) if 0 < num_tags <= len(scores) else None

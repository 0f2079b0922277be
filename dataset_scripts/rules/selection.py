"""The rules of paper §III.A in the paper's order, and the loop that applies and counts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from dataset_scripts.rules.near_duplicates import DISTANCE, Images, OtherPosts
from dataset_scripts.rules.posts_table import PostsTable, count_posts_of_tags, in_sorted
from dataset_scripts.rules.select_posts import (
    EMOTICON_PATTERN,
    deleted_posts,
    duplicate_posts,
    emoticon_tags,
    low_tf_idf_tags,
    misspelt_tags,
    posts_not_of_one_character,
    posts_of_misspelt_characters,
    posts_of_other_ratings,
    posts_of_rare_characters,
    posts_of_unknown_characters,
    posts_without_image,
    rare_tags,
    tf_idf_sums,
    threshold_ladder,
    unknown_tags,
)
from dataset_scripts.rules.split_posts import hash_ids

EXAMPLES = 20  # of what a rule dropped, for build.json
CHARACTER_SPELLING, TAG_SPELLING = "character_spelling", "tag_spelling"


@dataclass
class Like:
    """A built data set whose characters and tags take the place of some rules (`--like`)."""

    characters: set[str]
    tags: set[str]
    post_ids: np.ndarray  # int64 [N], sorted
    train: OtherPosts


@dataclass
class Criteria:
    """What the rules go by. The defaults are the paper's values."""

    ratings: list[str] | None = None
    drop_deleted: bool = False
    min_posts: int = 10
    emoticon_pattern: str = EMOTICON_PATTERN
    min_tag_posts: int = 2
    tfidf_threshold: float = 0.2
    log_base: str = "natural"
    duplicates: str = "report"  # or "group", "drop"
    duplicate_distance: int = DISTANCE
    like: Like | None = None


@dataclass(frozen=True)
class Rule:
    """One rule: its name in the table and in build.json, what it drops in words, and the function that says which.

    Args:
        name: one word.
        drops: for the reader.
        function: takes the selection so far, returns bool over its posts [N], or over its tag names [K].
        of: "posts" or "tags".
        when: whether the rule applies at all.
        only_if_any: the rule is no row of the table where it drops nothing.
    """

    name: str
    drops: str
    function: Callable[[Selection], np.ndarray]
    of: str = "posts"
    when: Callable[[Selection], bool] = lambda selection: True
    only_if_any: bool = False


@dataclass
class RuleCount:
    """What one rule left: posts, characters, tags, each before → dropped → after.

    Characters and tags are those seen on posts of exactly one character.
    """

    rule: str
    posts_before: int
    posts_dropped: int
    posts_after: int
    characters_before: int
    characters_dropped: int
    characters_after: int
    tags_before: int
    tags_dropped: int
    tags_after: int
    examples: list[dict]  # of what was dropped: posts with character and tags, or tags with their number of posts


@dataclass
class Selection:
    """The posts that are left, and what the rules go by and find.

    Args:
        posts: all posts of the dump at first.
        criteria: see [`Criteria`].
        image_ids: int64, sorted: the posts whose image is in the dump.
        num_other_tags: artist, copyright and meta tags, which the parser leaves out; the first row counts them.
        check_images: from posts to the sorted ids of those with a broken image; None opens no image.
        find_copies: from posts whose images were checked to those that are copies of a better one, bool.
    """

    posts: PostsTable
    criteria: Criteria = field(default_factory=Criteria)
    image_ids: np.ndarray = field(default_factory=lambda: np.array([], np.int64))
    num_other_tags: int = 0
    check_images: Callable[[PostsTable], np.ndarray] | None = None
    find_copies: Callable[[PostsTable], np.ndarray] | None = None
    counts: list[RuleCount] = field(default_factory=list)
    num_conflicts: int = 0  # ids whose records differ
    scores: np.ndarray | None = None  # Eq. 1 for every tag name [K]
    ladder: list[dict] = field(default_factory=list)  # how many tags each threshold of Eq. 1 would leave

    def apply(self, rule: Rule) -> None:
        """Drop what a rule drops, and count it."""
        dropped, posts = rule.function(self), self.posts
        if rule.only_if_any and not (dropped if rule.of == "posts" else dropped[posts.tag_codes]).any():
            return
        before = self._number()
        examples = example_posts(posts, dropped) if rule.of == "posts" else example_tags(posts, dropped)
        self.posts = posts.drop_posts(dropped) if rule.of == "posts" else posts.drop_tags(dropped)
        self._count(rule.name, before, examples)

    def apply_all(self) -> None:
        """Every rule that applies, in the paper's order."""
        posts, characters, tags = self._number()
        self._count("general_tags", (posts, characters, tags + self.num_other_tags))
        for rule in RULES:
            if rule.when(self):
                self.apply(rule)
        if self.scores is None:
            self.scores = tf_idf_sums(self.posts, self.criteria.log_base)

    def table(self) -> list[dict]:
        """The counts as plain dictionaries, for build.json."""
        return [asdict(count) for count in self.counts]

    def _number(self) -> tuple[int, int, int]:
        posts = self.posts
        characters = np.unique(posts.characters[posts.characters >= 0])
        return len(posts), len(characters), int(np.count_nonzero(count_posts_of_tags(posts)))

    def _count(self, rule: str, before: tuple[int, int, int], examples: Sequence[dict] = ()) -> None:
        numbers = [n for b, a in zip(before, self._number(), strict=True) for n in (b, b - a, a)]
        self.counts.append(RuleCount(rule, *numbers, list(examples)))


@dataclass
class Selected:
    """What is left of a dump: the posts in canonical order, and what the rules did."""

    posts: PostsTable
    scores: dict[str, float]  # Eq. 1 by tag name
    counts: list[RuleCount]
    ladder: list[dict]
    problems: dict[str, np.ndarray]  # ids of posts with missing or broken images, by reason
    num_conflicts: int  # ids whose records differ
    images: Images | None  # of the posts; None where no image was opened


def second_records(selection: Selection) -> np.ndarray:
    """All records of an id but one."""
    dropped, num_conflicts = duplicate_posts(selection.posts)
    selection.num_conflicts += num_conflicts
    return dropped


def tags_of_low_score(selection: Selection) -> np.ndarray:
    """Tags under the threshold of Eq. 1; keeps the scores, and what other thresholds would leave."""
    posts, criteria = selection.posts, selection.criteria
    selection.scores = tf_idf_sums(posts, criteria.log_base)
    in_use = count_posts_of_tags(posts) > 0
    selection.ladder = threshold_ladder(selection.scores[in_use], criteria.tfidf_threshold)
    return low_tf_idf_tags(selection.scores, criteria.tfidf_threshold)


def is_like(selection: Selection) -> bool:
    return selection.criteria.like is not None


def is_not_like(selection: Selection) -> bool:
    return selection.criteria.like is None


RULES = (
    Rule(
        "has_image",
        "posts whose picture is not in the dump",
        lambda s: posts_without_image(s.posts, s.image_ids),
    ),
    Rule(
        "ratings",
        "posts of other ratings than those asked for",
        lambda s: posts_of_other_ratings(s.posts, s.criteria.ratings),
        when=lambda s: bool(s.criteria.ratings),
    ),
    Rule(
        "not_deleted",
        "posts marked deleted",
        lambda s: deleted_posts(s.posts),
        when=lambda s: s.criteria.drop_deleted,
    ),
    Rule(
        "single_character",
        "posts without exactly one character tag",
        lambda s: posts_not_of_one_character(s.posts),
    ),
    Rule(  # no rule of the paper, whose board has no such names
        CHARACTER_SPELLING,
        "characters whose name is blank or no text",
        lambda s: posts_of_misspelt_characters(s.posts),
        only_if_any=True,
    ),
    Rule(
        "unique_id",
        "further records of an id",
        second_records,
    ),
    Rule(
        "new_post",
        "posts that the data set of --like has",
        lambda s: in_sorted(s.posts.post_ids, s.criteria.like.post_ids),
        when=is_like,
    ),
    Rule(
        "known_character",
        "characters that the data set of --like has not",
        lambda s: posts_of_unknown_characters(s.posts, s.criteria.like.characters),
        when=is_like,
    ),
    Rule(  # before min_posts is counted: a broken image can push a character under the minimum
        "readable_image",
        "posts whose picture is broken",
        lambda s: in_sorted(s.posts.post_ids, s.check_images(s.posts)),
        when=lambda s: s.check_images is not None,
    ),
    Rule(  # no rule of the paper, which has copies in train and test
        "near_duplicates",
        "posts whose picture is a copy of a better one of the same character",
        lambda s: s.find_copies(s.posts),
        when=lambda s: s.criteria.duplicates == "drop" and s.check_images is not None,
    ),
    Rule(
        "min_posts",
        "characters with few posts",
        lambda s: posts_of_rare_characters(s.posts, s.criteria.min_posts),
        when=is_not_like,
    ),
    Rule(
        TAG_SPELLING,
        "tags that no vocabulary can hold",
        lambda s: misspelt_tags(s.posts),
        of="tags",
        only_if_any=True,
    ),
    Rule(
        "known_tag",
        "tags that the data set of --like has not",
        lambda s: unknown_tags(s.posts, s.criteria.like.tags),
        of="tags",
        when=is_like,
    ),
    Rule(
        "emoticon_tags",
        "facial expressions such as >_<",
        lambda s: emoticon_tags(s.posts, s.criteria.emoticon_pattern),
        of="tags",
        when=is_not_like,
    ),
    Rule(
        "min_tag_posts",
        "tags that appear only once",
        lambda s: rare_tags(s.posts, s.criteria.min_tag_posts),
        of="tags",
        when=is_not_like,
    ),
    Rule(
        "tf_idf_sum",
        "tags whose summed TF-IDF (Eq. 1) is low",
        tags_of_low_score,
        of="tags",
        when=is_not_like,
    ),
)


def example_posts(posts: PostsTable, dropped: np.ndarray) -> list[dict]:
    """Up to EXAMPLES dropped posts, by the hash of their ids: a fair sample that no order of input changes."""
    rows = np.flatnonzero(dropped)
    hashes = hash_ids(posts.post_ids[rows], seed=0)
    if len(rows) > EXAMPLES:
        rows = rows[hashes <= np.partition(hashes, EXAMPLES)[EXAMPLES]]  # more than that where records share an id
    offsets = posts.offsets()
    examples = sorted(
        (
            {
                "post_id": int(posts.post_ids[row]),
                "character": posts.character_names[code] if (code := posts.characters[row]) >= 0 else None,
                "tags": sorted(posts.tag_names[tag] for tag in posts.tag_codes[offsets[row] : offsets[row + 1]]),
                "rating": posts.rating_names[posts.ratings[row]],
            }
            for row in rows.tolist()
        ),
        key=lambda post: (post["post_id"], post["tags"], post["character"] or "", post["rating"]),
    )
    return examples[:EXAMPLES]


def example_tags(posts: PostsTable, dropped: np.ndarray) -> list[dict]:
    """The EXAMPLES dropped tags with most posts, ties by name."""
    counts = count_posts_of_tags(posts)
    codes = np.flatnonzero(dropped & (counts > 0))
    if len(codes) > EXAMPLES:
        least = np.partition(counts[codes], -EXAMPLES)[-EXAMPLES]
        codes = codes[counts[codes] >= least]
    rows = sorted((-int(counts[code]), posts.tag_names[code]) for code in codes.tolist())
    return [{"tag": name, "posts": -number} for number, name in rows[:EXAMPLES]]


def format_counts(counts: list[RuleCount]) -> str:
    """The table of rules as text: one line per rule, before → dropped → after for posts, characters and tags."""
    lines = [f"{'rule':<18}{'posts':>34}{'characters':>30}{'tags':>30}"]
    for count in counts:
        cells = [
            f"{getattr(count, f'{kind}_before'):,} → {-getattr(count, f'{kind}_dropped'):,} → "
            f"{getattr(count, f'{kind}_after'):,}"
            for kind in ("posts", "characters", "tags")
        ]
        lines.append(f"{count.rule:<18}{cells[0]:>34}{cells[1]:>30}{cells[2]:>30}")
    return "\n".join(lines)

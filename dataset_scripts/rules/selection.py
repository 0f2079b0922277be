"""The rules of `select_posts.py` in the paper's order, with what each one dropped."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dataset_scripts.dump.parse import Parsed
from dataset_scripts.folder.terminal import printable
from dataset_scripts.rules import select_posts as rules
from dataset_scripts.rules.posts_table import PostsTable, count_posts_of_tags
from dataset_scripts.rules.split_posts import hash_ids

PAPER_TAGS = 25_404
EXAMPLES = 20  # of what a rule dropped, for build.json
CHARACTER_SPELLING, TAG_SPELLING = "character_spelling", "tag_spelling"

SHOWN_NAMES, SHOWN_CHARACTERS = 5, 60
EXPECTED = {
    "tag": "small letters without spaces or controls, and no name of a special token such as [mask]",
    "character": "names without line breaks, controls or bytes that are no text",
}


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


class Selection:
    """The posts left so far, and the count of every rule applied to them."""

    def __init__(self, posts: PostsTable, num_other_tags: int):
        self.posts = posts
        self.rules: list[RuleCount] = []
        counts = self._counts()
        # The parser leaves out artist, copyright and meta tags; the first row of the table says how many.
        self._record("general_tags", (*counts[:2], counts[2] + num_other_tags))

    def drop_posts(self, rule: str, dropped: np.ndarray) -> None:
        """Apply a rule over posts and count it."""
        before, examples = self._counts(), example_posts(self.posts, dropped)
        self.posts = self.posts.drop_posts(dropped)
        self._record(rule, before, examples)

    def drop_tags(self, rule: str, dropped: np.ndarray) -> None:
        """Apply a rule over tags and count it."""
        before, examples = self._counts(), example_tags(self.posts, dropped)
        self.posts = self.posts.drop_tags(dropped)
        self._record(rule, before, examples)

    def table(self) -> list[dict]:
        """The counts as plain dictionaries, for build.json."""
        return [asdict(rule) for rule in self.rules]

    def _counts(self) -> tuple[int, int, int]:
        posts = self.posts
        characters = np.unique(posts.characters[posts.characters >= 0])
        return len(posts), len(characters), int(np.count_nonzero(count_posts_of_tags(posts)))

    def _record(self, rule: str, before: tuple[int, int, int], examples: Sequence[dict] = ()) -> None:
        after = self._counts()
        numbers = [n for b, a in zip(before, after, strict=True) for n in (b, b - a, a)]
        self.rules.append(RuleCount(rule, *numbers, list(examples)))


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


def format_rules(counts: list[RuleCount]) -> str:
    """The table of rules as text: one line per rule, before → dropped → after for posts, characters and tags."""
    lines = [f"{'rule':<18}{'posts':>34}{'characters':>30}{'tags':>30}"]
    for rule in counts:
        cells = [
            f"{getattr(rule, f'{kind}_before'):,} → {-getattr(rule, f'{kind}_dropped'):,} → "
            f"{getattr(rule, f'{kind}_after'):,}"
            for kind in ("posts", "characters", "tags")
        ]
        lines.append(f"{rule.rule:<18}{cells[0]:>34}{cells[1]:>30}{cells[2]:>30}")
    return "\n".join(lines)


def print_misspelt(counts: list[RuleCount]) -> None:
    """The first names that were dropped for their spelling: perhaps the dump only needs underscores."""
    for rule in counts:
        if rule.rule in (CHARACTER_SPELLING, TAG_SPELLING):
            kind = "tag" if rule.rule == TAG_SPELLING else "character"
            names = dict.fromkeys(example[kind] for example in rule.examples)
            shown = ", ".join(f"'{printable(name)[:SHOWN_CHARACTERS]}'" for name in list(names)[:SHOWN_NAMES])
            print(f"{rule.rule}: expected {EXPECTED[kind]}; among the dropped {kind}s are {shown}")


def apply_post_rules(selection: Selection, image_ids: np.ndarray, options: argparse.Namespace) -> int:
    """The rules over posts that need no image file. Returns the number of ids whose records differ."""
    selection.drop_posts("has_image", rules.posts_without_image(selection.posts, image_ids))
    if options.ratings:
        selection.drop_posts("ratings", rules.posts_of_other_ratings(selection.posts, options.ratings))
    if options.drop_deleted:
        selection.drop_posts("not_deleted", rules.deleted_posts(selection.posts))
    selection.drop_posts("single_character", rules.posts_not_of_one_character(selection.posts))
    misspelt = rules.posts_of_misspelt_characters(selection.posts)
    if misspelt.any():  # no rule of the paper, whose board has none of them: a row only where it does something
        selection.drop_posts(CHARACTER_SPELLING, misspelt)
    duplicates, num_conflicts = rules.duplicate_posts(selection.posts)
    selection.drop_posts("unique_id", duplicates)
    return num_conflicts


def apply_tag_rules(
    selection: Selection, options: argparse.Namespace, known_tags: Collection[str] | None = None
) -> tuple[np.ndarray, list[dict]]:
    """The rules over tags; with `known_tags` all others go instead. Returns Eq. 1 for every tag name, and how many
    tags each threshold would leave."""
    misspelt = rules.misspelt_tags(selection.posts)
    if misspelt[selection.posts.tag_codes].any():
        selection.drop_tags(TAG_SPELLING, misspelt)
    if known_tags is not None:
        selection.drop_tags("known_tag", rules.unknown_tags(selection.posts, known_tags))
        return rules.tf_idf_sums(selection.posts, options.log_base), []
    selection.drop_tags("emoticon_tags", rules.emoticon_tags(selection.posts, options.emoticon_pattern))
    selection.drop_tags("min_tag_posts", rules.rare_tags(selection.posts, options.min_tag_posts))
    scores = rules.tf_idf_sums(selection.posts, options.log_base)
    in_use = count_posts_of_tags(selection.posts) > 0
    ladder = rules.threshold_ladder(scores[in_use], options.tfidf_threshold)
    selection.drop_tags("tf_idf_sum", rules.low_tf_idf_tags(scores, options.tfidf_threshold))
    return scores, ladder


def print_ladder(scores: np.ndarray, ladder: list[dict]) -> None:
    """The thresholds of Eq. 1 and what each would leave."""
    steps = "  ".join(f"{step['threshold']:g}: {step['tags']:,}" for step in ladder)
    print(f"tags left by a threshold of Eq. 1 of  {steps}")
    threshold = rules.threshold_for(scores[scores > 0], PAPER_TAGS)
    if threshold is not None:
        print(f"{PAPER_TAGS:,} tags, the paper's number, are left by {threshold:.4g}")


def refuse_problems(problems: dict[str, np.ndarray]) -> None:
    """--strict: raises ValueError when an image is missing or broken."""
    found = [f"{len(ids):,} {reason} (post {ids[0]})" for reason, ids in sorted(problems.items()) if len(ids)]
    if found:
        raise ValueError(
            f"--strict expects every image to be there and whole, found {', '.join(found)}: fetch those again, or "
            "build without --strict to drop them."
        )


def print_problems(parsed: Parsed, problems: dict[str, np.ndarray], num_conflicts: int, num_ignored: int) -> None:
    """What was skipped on the way, in one line each; nothing when there was nothing."""
    lines = {
        "malformed metadata lines": parsed.num_bad,
        "records without id": parsed.num_without_id,
        "ids whose records differ (the one with most tags is kept)": num_conflicts,
        "files among the images that are no image of a post": num_ignored,
    } | {f"images {reason}": len(ids) for reason, ids in problems.items()}
    for what, number in lines.items():
        if number:
            print(f"{what}: {number:,}")

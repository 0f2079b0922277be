"""The rules of paper §III.A one by one, on tables small enough to count by hand."""

import math
import random
import sys

import numpy as np
import pytest

from dataset_scripts.dump.parse import Codes
from dataset_scripts.rules import select_posts as rules
from dataset_scripts.rules.posts_table import NO_CHARACTER, SEVERAL_CHARACTERS, PostsTable, in_canonical_order
from dataset_scripts.rules.selection import RULES, Rule, Selection, format_counts
from modeling_mfdn.training.tag_tokenizer import build_tag_tokenizer


def table(*rows):
    """A posts table of (id, character or None or "several", tags, rating, deleted); the last two may be left out."""
    characters, ratings, tags = Codes(), Codes(), Codes()
    full = [(*row, "s", False)[:5] if len(row) == 3 else (*row, False)[:5] for row in rows]
    special = {None: NO_CHARACTER, "several": SEVERAL_CHARACTERS}
    codes = [special[name] if name in special else characters[name] for _, name, *_ in full]
    return PostsTable(
        np.array([row[0] for row in full], np.int64),
        np.array(codes, np.int32),
        np.array([ratings[row[3]] for row in full], np.int32),
        np.array([row[4] for row in full], bool),
        np.array([row[0] for row in full], np.int64),
        np.zeros(len(full), np.uint64),
        np.array([len(row[2]) for row in full], np.int32),
        np.array([tags[tag] for row in full for tag in row[2]], np.int32),
        list(characters),
        list(ratings),
        list(tags),
    )


def names_of(posts, dropped):
    return {name for name, is_dropped in zip(posts.tag_names, dropped, strict=True) if is_dropped}


def test_posts_without_image():
    posts = table((1, "a", []), (5, "a", []), (9, "a", []))
    assert rules.posts_without_image(posts, np.array([5, 6])).tolist() == [True, False, True]
    assert rules.posts_without_image(posts, np.array([], np.int64)).all()


def test_missing_images_are_those_of_ratings_that_mostly_have_one():
    posts = table((1, "a", [], "s"), (2, "a", [], "s"), (3, "a", [], "s"), (4, "a", [], "e"), (5, None, [], "s"))
    assert rules.missing_images(posts, np.array([1, 2])).tolist() == [3]  # 4 is explicit, 5 is no candidate


def test_single_character():
    posts = table((1, "a", []), (2, None, []), (3, "several", []))
    assert rules.posts_not_of_one_character(posts).tolist() == [False, True, True]


def test_ratings_and_deleted():
    posts = table((1, "a", [], "s"), (2, "a", [], "q"), (3, "a", [], "s", True))
    assert rules.posts_of_other_ratings(posts, ["s"]).tolist() == [False, True, False]
    assert not rules.posts_of_other_ratings(posts, None).any()
    assert rules.deleted_posts(posts).tolist() == [False, False, True]
    with pytest.raises(ValueError, match=r"\['x'\].*\['q', 's'\]"):
        rules.posts_of_other_ratings(posts, ["s", "x"])


def test_of_two_records_the_one_with_more_tags_stays_in_any_order():
    records = [(1, "a", ["x"]), (1, "b", ["x", "y"]), (2, "a", ["z"]), (2, "a", ["z"]), (3, "a", [])]
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 3, 0, 4, 2]):
        posts = table(*(records[i] for i in order))
        dropped, conflicts = rules.duplicate_posts(posts)
        left = posts.drop_posts(dropped)
        named = sorted((int(i), left.character_names[c]) for i, c in zip(left.post_ids, left.characters, strict=True))
        assert named == [(1, "b"), (2, "a"), (3, "a")]
        assert conflicts == 1  # the two records of 2 are equal


def test_rare_characters():
    posts = table(*((i, "many", []) for i in range(10)), *((20 + i, "few", []) for i in range(9)))
    assert rules.posts_of_rare_characters(posts, 10).tolist() == [False] * 10 + [True] * 9


# All of these are real general tags, of those on 38 posts or more.
EMOTICONS = """
    :d :o :3 ^_^ ? ;d >_< ^^^ ... :< :p ! @_@ :q +_+ =_= :t !? ;) o_o |_| +++ :> >:) :/ !! ;o :| 0_0 d: 3:
    \\m/ ;p >:( :>= ?? \\||/ ;q u_u :i >_o ;3 ._. x_x :x c: >o< \\o/ \\n/ <|>_<|> <o>_<o> ...? :c ;( :s ;< d; ...! ;t
    s.e.e.s ;> t_t ^q^ 3; 3_3 ;| s&w_m&p s.w.a.t. 6_9 s.m.s. >3< ;/ \\(^o^)/ +_- k.o. o_x \\\\// ^v^ ^3^ n.u.n.s.
    h-a-j-i-m-a-r-i-u-t-a-!! :v x<""".split()
MEANINGFUL = """
    1girl 2boys 6+girls v w x 3d xd x3 69 39 9/11 c-47 t-34 uu~ ko~n ak_5 long_hair
    k/da_(league_of_legends)    +1 -1 4koma 3 no fate/stay_night :d_(smile) 帽子 é ♥ ☆_☆ (´・ω・`)""".split()


def test_emoticons_go_and_names_stay():
    posts = table((1, "a", EMOTICONS + MEANINGFUL + ["=_"]))
    assert names_of(posts, rules.emoticon_tags(posts)) == {*EMOTICONS, "=_"}


MISSPELT = ["Long Hair", "", " ", "[MASK]", "[mask]", "[\u017fep]", "a\tb", "a\u2028b", "a\x85b", "a\x1cb", "\ufeffa"]
MISSPELT += ["École", "İ", "ǅ", "a\x1b[2J", "a\u202eb", "caf\udce9", "a\u00a0b", "a, b", "\ua7cb"]


def test_tags_that_training_refuses_and_no_others_are_misspelt():
    posts = table((1, "a", EMOTICONS + MEANINGFUL + MISSPELT))
    assert names_of(posts, rules.misspelt_tags(posts)) == set(MISSPELT)


def misspelt_or_not(rng):
    """Names of a few characters from where spelling is hard: white space, cases, marks, brackets, other planes."""
    hard = ["[", "]", "mask", "PAD", "ſep", "unK", ",", " ", "\t", "\n", "\u2028", "\x1c", "ς", "Σ", "ß", "ẞ", "ŉ"]
    hard += ["\u0307", "\u0345", "ᾳ", "ǅ", "K", "\u200d", "\udc80", "_", "a", "長", "🦊", "\U00010d50", "\ua7da", "Ⅷ"]
    part = [lambda: rng.choice(hard), lambda: chr(rng.randrange(0x3000)), lambda: chr(rng.randrange(sys.maxunicode))]
    return "".join(rng.choice(part)() for _ in range(rng.randint(0, 5)))


@pytest.mark.parametrize("number", [3_000, pytest.param(300_000, marks=pytest.mark.slow)])
def test_every_tag_that_the_builder_lets_through_is_one_to_the_tokenizer_of_training(number):
    rng = random.Random(18)
    names = {misspelt_or_not(rng) for _ in range(number)}
    tags = sorted(filter(rules.is_tag, names))
    assert min(len(tags), len(names) - len(tags)) > number / 20
    tokenizer = build_tag_tokenizer(tags, max_tag_tokens=8)
    for start in range(0, len(tags), 5):
        part = tags[start : start + 5]
        token_ids = tokenizer(", ".join(part), add_special_tokens=False)["input_ids"]
        assert token_ids == tokenizer.convert_tokens_to_ids(part)


def test_names_of_characters_are_lines_of_text():
    names = ["Saber Alter", "帽子", "", "  ", "a\nb", "a\x1bb", "caf\udce9"]
    posts = table(*((number, name, []) for number, name in enumerate(names)))
    assert rules.posts_of_misspelt_characters(posts).tolist() == [False] * 2 + [True] * 5


def test_emoticon_pattern_is_an_option():
    posts = table((1, "a", [":d", ":p", "d"]))
    assert names_of(posts, rules.emoticon_tags(posts, ":d|p")) == {":d"}  # in full, so `p` alone does not match ":p"


def test_tags_seen_once():
    posts = table((1, "a", ["x", "y"]), (2, "a", ["x"]))
    assert names_of(posts, rules.rare_tags(posts, 2)) == {"y"}


def test_tf_idf_sum_is_equation_1():
    posts = table((1, "a", ["x", "y"]), (2, "a", ["x"]), (3, "a", []), (4, "a", ["x", "y", "z"]))
    sums = dict(zip(posts.tag_names, rules.tf_idf_sums(posts), strict=True))
    assert sums["x"] == pytest.approx((1 / 2 + 1 + 1 / 3) * math.log(4 / 3))
    assert sums["y"] == pytest.approx((1 / 2 + 1 / 3) * math.log(4 / 2))
    assert sums["z"] == pytest.approx(1 / 3 * math.log(4))
    base_10 = dict(zip(posts.tag_names, rules.tf_idf_sums(posts, "10"), strict=True))
    assert base_10["z"] == pytest.approx(1 / 3 * math.log10(4))


def test_tf_idf_sum_is_equal_to_the_bit_in_any_order():
    rng = np.random.default_rng(0)
    rows = [(i, "a", [f"t{t}" for t in rng.permutation(40)[: rng.integers(0, 20)]]) for i in range(300)]
    one = table(*rows)
    other = table(*(rows[i] for i in rng.permutation(300)))
    one_sums = dict(zip(one.tag_names, rules.tf_idf_sums(one).tolist(), strict=True))
    assert one_sums == dict(zip(other.tag_names, rules.tf_idf_sums(other).tolist(), strict=True))


def test_threshold_ladder_counts_what_each_threshold_leaves():
    scores = np.array([0.0, 0.2, 0.3, 7.0])
    ladder = {step["threshold"]: step["tags"] for step in rules.threshold_ladder(scores, 0.25)}
    assert (ladder[0.0], ladder[0.2], ladder[0.25], ladder[0.5], ladder[10.0]) == (4, 3, 2, 1, 0)
    assert rules.low_tf_idf_tags(scores, 0.2).tolist() == [True, False, False, False]
    assert rules.threshold_for(scores, 2) == 0.3
    assert rules.threshold_for(scores, 5) is None


def test_canonical_order_forgets_the_order_of_the_input():
    rows = [(2, "b", ["y", "x"]), (1, "a", ["z", "a"]), (3, "b", [])]
    one, other = (in_canonical_order(table(*order)) for order in (rows, rows[::-1]))
    assert one.post_ids.tolist() == other.post_ids.tolist() == [1, 2, 3]
    assert one.tag_codes.tolist() == other.tag_codes.tolist() == [0, 3, 1, 2]
    assert one.tag_names == other.tag_names == ["a", "x", "y", "z"]
    assert one.character_names == other.character_names == ["a", "b"]


def test_selection_counts_posts_characters_and_tags():
    selection = Selection(table((1, "a", ["x", "y"]), (2, "b", ["x"]), (3, None, [])))
    selection.apply(Rule("some_rule", "post 1", lambda selection: selection.posts.post_ids == 1))
    selection.apply(Rule("other_rule", "all tags", lambda selection: np.array([True, True]), of="tags"))
    first, second = selection.counts
    assert (first.posts_before, first.posts_dropped, first.posts_after) == (3, 1, 2)
    assert (first.characters_after, first.tags_after) == (1, 1)
    assert (second.posts_dropped, second.tags_after) == (0, 0)
    assert "some_rule" in format_counts(selection.counts)


def test_all_rules_are_counted_in_the_papers_order_and_the_first_row_knows_the_other_tags():
    posts = table(*((i, "a", ["x", "y"]) for i in range(12)), (20, "b", ["x"]), (21, None, []))
    selection = Selection(posts, image_ids=posts.post_ids, num_other_tags=4)
    selection.apply_all()
    assert [count.rule for count in selection.counts] == [
        "general_tags",
        "has_image",
        "single_character",
        "unique_id",
        "min_posts",
        "emoticon_tags",
        "min_tag_posts",
        "tf_idf_sum",
    ]
    first = selection.counts[0]
    assert (first.tags_before, first.tags_dropped, first.tags_after) == (6, 4, 2)
    assert selection.posts.post_ids.tolist() == list(range(12))


def test_every_rule_says_what_it_drops():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.of in ("posts", "tags") and rule.drops for rule in RULES)

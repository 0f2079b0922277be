"""Readers: both generations give the same table, bad lines are named, byte ranges join without a seam."""

import json

import numpy as np
import pytest
from dump_factory import Post, dirty_posts, write_dump
from upath import UPath

from dataset_scripts.dump import find_dump as dumps
from dataset_scripts.dump.find_dump import find_dump
from dataset_scripts.dump.parse import merge, parse
from dataset_scripts.dump.records import ParseTask
from dataset_scripts.rules.posts_table import NO_CHARACTER, SEVERAL_CHARACTERS

GENERATIONS = ["flat", "nested"]


def read(dump, format="auto", range_bytes=2**20):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dumps, "RANGE_BYTES", range_bytes)
        return merge((task, parse(task)) for task in find_dump(UPath(dump), format).tasks)


def read_lines(tmp_path, *lines):
    path = tmp_path / "posts.json"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    task = ParseTask(str(path), "posts.json", "lines", 0, 2**30)
    return merge([(task, parse(task))])


def rows(posts):
    """The table as plain tuples in file order."""
    offsets = posts.offsets()
    special = {NO_CHARACTER: None, SEVERAL_CHARACTERS: "several"}
    return [
        (
            int(posts.post_ids[i]),
            special.get(int(code)) if code < 0 else posts.character_names[code],
            sorted(posts.tag_names[tag] for tag in posts.tag_codes[offsets[i] : offsets[i + 1]]),
            posts.rating_names[posts.ratings[i]],
            bool(posts.is_deleted[i]),
        )
        for i, code in enumerate(posts.characters.tolist())
    ]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_table_equals_the_records(tmp_path, generation):
    posts = dirty_posts()
    parsed = read(write_dump(tmp_path, posts, generation))
    character = {0: lambda post: None, 1: lambda post: post.characters[0], 2: lambda post: "several"}
    expected = [
        (
            post.id,
            character[len(post.characters)](post),
            sorted(post.general) if len(post.characters) == 1 else [],
            post.rating,
            post.deleted,
        )
        for post in posts
        if post.id is not None
    ]
    assert rows(parsed.posts) == expected
    assert parsed.num_without_id == 2
    assert parsed.other_tags == {"some_artist", "highres"}


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("range_bytes", [1, 100, 999])
def test_byte_ranges_join_without_a_seam(tmp_path, generation, range_bytes):
    dump = write_dump(tmp_path, dirty_posts(), generation, extra_lines=("", "{broken", "  "))
    whole, pieces = read(dump), read(dump, range_bytes=range_bytes)
    assert rows(whole.posts) == rows(pieces.posts)
    assert whole.bad_lines == pieces.bad_lines
    assert (whole.num_lines, whole.num_records) == (pieces.num_lines, pieces.num_records)


def test_bad_line_is_named_and_the_others_are_read(tmp_path):
    parsed = read(write_dump(tmp_path, [Post(1, ["a"], ["x"]), Post(2, ["a"], ["y"])], extra_lines=("{broken",)))
    (bad,) = parsed.bad_lines
    assert (bad.file, bad.line, bad.text) == ("metadata_2021/posts000000000000.json", 2, "{broken")
    assert "malformed" in bad.reason
    assert parsed.posts.post_ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    "line, reason",
    [
        (b'{"id": 9223372036854775808}', "$.id"),
        (b'{"id": "99999999999999999999"}', "$.id"),
        (b'{"id": -1}', "$.id"),
        (b'{"id": "../../etc/passwd"}', "$.id"),
        (b'{"id": true}', "$.id"),
        (b'{"id": 1, "tag_string_general": ["a"]}', "$.tag_string_general"),
        (b'{"id": 1, "tag_string_general": "\xff"}', "utf-8"),
        (b'{"id": 1} {"id": 2}', "trailing"),
        (b"null", "object"),
        (b"\0\0\0", "malformed"),
        (b"[" * 100_000, "object"),
    ],
)
def test_what_is_no_post_is_rejected_with_a_reason(tmp_path, line, reason):
    parsed = read_lines(tmp_path, line, '{"id": 5}')
    assert [bad.line for bad in parsed.bad_lines] == [1]
    assert reason in parsed.bad_lines[0].reason
    assert parsed.posts.post_ids.tolist() == [5]


def test_numbers_may_be_strings_or_integers_and_null_may_be_anywhere(tmp_path):
    parsed = read_lines(
        tmp_path,
        '\ufeff{"id": "1", "is_deleted": "true"}',
        '{"id": 2, "is_deleted": false, "tag_string_general": "", "tag_string_character": null, "rating": null}',
        '{"id": null, "tag_string_general": "x"}',
        '{"rating": "s"}',
    )
    assert parsed.posts.post_ids.tolist() == [1, 2]
    assert parsed.posts.is_deleted.tolist() == [True, False]
    assert parsed.posts.tag_counts.tolist() == [0, 0]
    assert parsed.num_without_id == 2 and not parsed.bad_lines


def test_nested_nulls_and_integer_categories(tmp_path):
    tags = [{"name": "a", "category": 4}, {"name": "x", "category": 0}, {"name": None, "category": "0"}, {}]
    parsed = read_lines(tmp_path, json.dumps({"id": 1, "tags": tags}), '{"id": 2, "tags": null}')
    assert rows(parsed.posts) == [(1, "a", ["x"], "", False), (2, None, [], "", False)]


def test_a_tag_named_twice_in_a_post_counts_once(tmp_path):
    parsed = read_lines(tmp_path, '{"id": 1, "tag_string_character": "a a", "tag_string_general": "x  y x"}')
    assert rows(parsed.posts) == [(1, "a", ["x", "y"], "", False)]


def test_drop_tags_keeps_posts_aligned(tmp_path):
    posts = read(write_dump(tmp_path, [Post(1, ["a"], ["x", "y"]), Post(2, ["a"], []), Post(3, ["a"], ["y"])])).posts
    left = posts.drop_tags(np.array([name == "y" for name in posts.tag_names]))
    assert [row[2] for row in rows(left)] == [["x"], [], []]
    left = left.drop_posts(left.post_ids == 1)
    assert [row[0] for row in rows(left)] == [2, 3]
    nothing = posts.drop_posts(posts.post_ids > 0)
    assert len(nothing.drop_tags(np.ones(len(posts.tag_names), bool))) == 0

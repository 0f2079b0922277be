"""Aliases and implications: chains are followed, circles end, a tag counts once a post."""

import bz2
import gzip
import json
import lzma
import random

import pytest
import zstandard
from dump_factory import Post, write_dump
from test_find_dump import read
from test_parse import rows
from upath import UPath

from dataset_scripts.build_danmul import main
from dataset_scripts.dump.read_relations import read_relations
from dataset_scripts.rules.tag_relations import (
    add_ratings,
    apply_aliases,
    apply_implications,
    follow,
    resolve_aliases,
)

POSTS = [Post(1, ["kantai"], ["a", "b", "x"]), Post(2, ["kancolle"], []), Post(3, [], ["a"])]
POSTS += [Post(4, ["c"], ["d", "x"])]


@pytest.fixture
def posts(tmp_path):
    return read(write_dump(tmp_path, POSTS))[1].posts


def test_aliases_are_followed_to_their_end(posts):
    pairs = [("a", "b"), ("b", "B"), ("kantai", "kancolle")]
    found = [row[:3] for row in rows(apply_aliases(posts, resolve_aliases(pairs)))]
    assert found == [(1, "kancolle", ["B", "x"]), (2, "kancolle", []), (3, None, []), (4, "c", ["d", "x"])]


def test_aliases_in_a_circle_are_refused():
    with pytest.raises(ValueError, match="leads back to itself"):
        resolve_aliases([("d", "e"), ("e", "d")])


def test_implied_tags_are_added_once(posts):
    pairs = [("a", "m"), ("m", "n"), ("b", "n"), ("x", "a")]
    found = [row[2] for row in rows(apply_implications(posts, pairs))]
    assert found == [["a", "b", "m", "n", "x"], [], [], ["a", "d", "m", "n", "x"]]


def test_ratings_become_tags_and_s_means_what_its_dump_means(posts):
    assert [row[2] for row in rows(add_ratings(posts))] == [
        ["a", "b", "rating:safe", "x"],
        ["rating:safe"],
        ["rating:safe"],
        ["d", "rating:safe", "x"],
    ]
    posts.rating_names.append("g")
    assert rows(add_ratings(posts))[1][2] == ["rating:sensitive"]
    assert rows(add_ratings(posts, known={"rating:general"}))[1][2] == []


def test_circles_end():
    assert follow([("a", "b"), ("b", "a")]) == {"a": ["b"], "b": ["a"]}


def write_relations(folder, kind, *relations):
    keys = ("antecedent_name", "consequent_name", "status")
    lines = [json.dumps(dict(zip(keys, relation, strict=True))) for relation in relations]
    (folder / f"tag_{kind}000000000000.json").write_text("\n".join(lines) + "\n")


def test_only_active_relations_are_read_and_a_bad_line_is_named(tmp_path):
    (tmp_path / "metadata").mkdir()
    relations = ("a", "b", "active"), ("c", "d", "deleted"), ("e", "e", "active")
    write_relations(tmp_path / "metadata", "aliases", *relations)
    assert read_relations(UPath(tmp_path), "aliases") == [("a", "b")]
    with pytest.raises(FileNotFoundError, match="tag_implications"):
        read_relations(UPath(tmp_path), "implications")
    (tmp_path / "metadata" / "tag_aliases1.json").write_text('{"antecedent_name": 1}\n')
    with pytest.raises(ValueError, match="tag_aliases1.json:1"):
        read_relations(UPath(tmp_path), "aliases")


def test_the_builder_applies_them_when_asked(tmp_path):
    posts = [Post(i, ["old" if i % 2 else "new"], ["x", "y"]) for i in range(1, 21)]
    dump = write_dump(tmp_path / "dump", posts)
    write_relations(dump / "metadata_2021", "aliases", ("old", "new", "active"))
    write_relations(dump / "metadata_2021", "implications", ("x", "z", "active"))
    options = ["--source", str(dump), "--workers", "1", "--tfidf_threshold", "0"]
    assert main([*options, "--output", str(tmp_path / "plain")]) == 0
    assert main([*options, "--output", str(tmp_path / "both"), "--aliases", "--implications"]) == 0
    names = {
        name: [row["character"] for row in json.loads((tmp_path / name / "characters.json").read_text())]
        for name in ("plain", "both")
    }
    assert names == {"plain": ["new", "old"], "both": ["new"]}
    assert {row["tag"] for row in json.loads((tmp_path / "both" / "tags.json").read_text())} == {"x", "y", "z"}


RELATIONS = [{"antecedent_name": f"a{i}", "consequent_name": f"b{i}", "status": "active"} for i in range(300)]


def packed_relations(suffix):
    lines = "".join(json.dumps(relation) + "\n" for relation in RELATIONS).encode()
    packers = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
        "": bytes,
    }
    return packers[suffix](lines)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ""])
def test_damaged_files_of_relations_are_named(tmp_path, suffix):
    path = tmp_path / f"tag_aliases.json{suffix}"
    whole = packed_relations(suffix)
    path.write_bytes(whole)
    assert len(read_relations(UPath(tmp_path), "aliases")) == 300
    rng = random.Random(18)
    for _ in range(60):
        damaged = bytearray(whole[: rng.randrange(1, len(whole))] if rng.random() < 0.5 else whole)
        if len(damaged) == len(whole):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_relations(UPath(tmp_path), "aliases")
        except ValueError as error:
            assert "tag_aliases.json" in str(error)
        else:  # a bit that is in no sum, a cut between two lines, or one letter in plain text
            assert not suffix or len(found) == 300


def test_relations_may_stand_in_an_array(tmp_path):
    (tmp_path / "tag_aliases.json").write_text(json.dumps(RELATIONS, indent=1))
    assert len(read_relations(UPath(tmp_path), "aliases")) == 300

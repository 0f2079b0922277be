"""Builds from dumps with copies, variants and odd parents: reported, kept in one split, dropped; and what else a dump
knows: series, ratings, implied tags, fixed features."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from dump_factory import Post, image_path, write_dump
from planted_copies import COPIES, drawings, jpeg

from dataset_scripts.build_danmul import main

DRAWINGS = drawings(14)
KINDS = ("half the size", "JPEG of quality 25", "darker by 20 %", "mirrored", "a watermark")
ALL_TAGS = ("--tfidf_threshold", "0")  # else x goes, which every post has
MD5 = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    """Of alice fourteen drawings, one of them with five copies; of bob ten, two of them the same file by its MD5."""
    alice = [Post(100 + i, ["alice"], ["x", "y", "blue_eyes"], "g") for i in range(14)]
    copies = [Post(200 + i, ["alice"], ["x", "y"], "s") for i in range(5)]
    # 308 and 309 are children of a post that is not there, 307 is its own parent, 305 and 306 go in a circle.
    odd = {308: "999", 309: 999, 307: 307, 305: "306", 306: "305", 300: "none", 301: 0, 302: -5, 303: 2.5}
    bob = [Post(i, ["bob"], ["x", "z"], "q", more={"parent_id": odd.get(i)}) for i in range(300, 310)]
    for i in (300, 301):
        bob[i - 300].more["md5"] = MD5
    bob[2].more["md5"] = "no hash"
    dump = write_dump(tmp_path_factory.mktemp("copies"), [*alice, *copies, *bob])
    for i, (picture, _) in enumerate(DRAWINGS):
        image_path(dump, 100 + i).write_bytes(jpeg(picture))
    for i, kind in enumerate(KINDS):
        image_path(dump, 200 + i).write_bytes(COPIES[kind](DRAWINGS[3][0]))
    for i, (_, other) in enumerate(DRAWINGS[:10]):
        path = image_path(dump, 300 + i)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(other))
    return dump


def build(dump, folder, *flags) -> dict:
    assert main(["--source", str(dump), "--output", str(folder), "--workers", "1", *flags]) == 0
    return json.loads((folder / "build.json").read_text())


def rows_of(folder, *columns) -> dict[int, dict]:
    """By post id, with their split."""
    rows = {}
    for path in folder.glob("data/*.parquet"):
        for row in pq.read_table(path, columns=["post_id", *columns]).to_pylist():
            rows[row["post_id"]] = row | {"split": path.name.split("-")[0]}
    return rows


def test_copies_are_reported_and_the_split_is_the_papers(dump, tmp_path, capsys):
    record = build(dump, tmp_path / "danmul")
    found = record["duplicates"]
    assert found["posts_by_relation"] == {"parent": 4, "file": 2, "picture": 6}
    assert (found["groups"], found["largest_group"]) == (4, 6)
    printed = capsys.readouterr().out
    assert "12 posts in 4 groups (4 by parent, 2 by file, 6 by picture), the largest of 6" in printed
    rows = rows_of(tmp_path / "danmul", "group", "near_train", "picture_hash")
    groups = Counter(row["group"] for row in rows.values())
    assert {group: number for group, number in groups.items() if number > 1} == {103: 6, 300: 2, 305: 2, 308: 2}
    assert all(row["picture_hash"] for row in rows.values())
    in_train = {row["group"] for row in rows.values() if row["split"] == "train"}
    for row in rows.values():
        assert row["near_train"] == (row["split"] != "train" and row["group"] in in_train)
    num_near = sum(found["near_train"].values())
    assert num_near == sum(row["near_train"] for row in rows.values()) > 0
    assert f"same as {found['near_train']['test']} test" in (tmp_path / "danmul" / "README.md").read_text()
    assert record["counts"]["splits"] == {"train": 20, "validation": 3, "test": 6}


def test_groups_stay_in_one_split_at_the_same_counts(dump, tmp_path):
    record = build(dump, tmp_path / "danmul", "--duplicates", "group")
    assert record["counts"]["splits"] == {"train": 20, "validation": 3, "test": 6}
    assert record["duplicates"]["groups_across_splits"] == 0
    assert record["duplicates"]["near_train"] == {"validation": 0, "test": 0}
    splits = {}
    for row in rows_of(tmp_path / "danmul", "group").values():
        splits.setdefault(row["group"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_the_best_of_each_copy_is_kept(dump, tmp_path):
    record = build(dump, tmp_path / "danmul", "--duplicates", "drop", "--min_posts", "9")
    kept = set(rows_of(tmp_path / "danmul"))
    copies = {103, *range(200, 205)}
    assert len(kept & copies) == 1 and not kept & {200, 201}  # neither half the size nor half the bytes
    assert len(kept & {300, 301}) == 1  # the same file
    assert {*range(302, 310)} <= kept  # variants are no copies
    (rule,) = [rule for rule in record["rules"] if rule["rule"] == "near_duplicates"]
    assert rule["posts_dropped"] == 6
    names = [rule["rule"] for rule in record["rules"]]
    assert names.index("readable_image") < names.index("near_duplicates") < names.index("min_posts")


def test_a_further_evaluation_set_knows_what_lies_near_the_train_posts(dump, tmp_path, capsys):
    build(dump, tmp_path / "danmul")
    train = {i for i, row in rows_of(tmp_path / "danmul").items() if row["split"] == "train"}
    # The same drawings again under other ids, another child of 308's parent, and a new picture.
    posts = [Post(400 + i, ["alice"], ["x", "y"], "g") for i in range(14)]
    posts += [Post(420, ["bob"], ["x"], "g", more={"parent_id": "999"}), Post(421, ["bob"], ["x"], "g")]
    posts += [Post(i, ["bob"], ["x"], "g", more={"parent_id": "999"}) for i in (308, 309)]
    newer = write_dump(tmp_path / "newer", posts)
    for i, (picture, _) in enumerate(DRAWINGS):
        image_path(newer, 400 + i).write_bytes(jpeg(picture, 60))
    flags = ["--like", str(tmp_path / "danmul")]
    build(newer, tmp_path / "more", *flags)
    near = {i for i, row in rows_of(tmp_path / "more", "near_train").items() if row["near_train"]}
    drawn_in_train = {i for i in range(14) if 100 + i in train} | ({3} if train & {*range(200, 205)} else set())
    assert near == {400 + i for i in drawn_in_train} | ({420} if train & {308, 309} else set())
    build(newer, tmp_path / "dropped", *flags, "--duplicates", "drop")
    assert set(rows_of(tmp_path / "dropped")) == {400 + i for i in range(14) if i not in drawn_in_train} | {420, 421}
    for path in (tmp_path / "danmul" / "data").glob("*.parquet"):  # as older builds have written them
        table = pq.read_table(path).drop_columns(["picture_hash", "group", "near_train"])
        pq.write_table(table, path)
    build(newer, tmp_path / "old", *flags)
    assert "without picture hashes" in capsys.readouterr().out
    near = {i for i, row in rows_of(tmp_path / "old", "near_train").items() if row["near_train"]}
    assert near == ({420} if train & {308, 309} else set())


def test_a_published_split_is_not_divided_again(dump, tmp_path, capsys):
    flags = ["--split", "published", "--duplicates", "group"]
    assert main(["--source", str(dump), "--output", str(tmp_path / "danmul"), *flags]) == 2
    assert "--duplicates group makes a split of its own" in capsys.readouterr().err


def test_ratings_are_tags_when_asked_for(dump, tmp_path):
    build(dump, tmp_path / "danmul", "--rating_tags", *ALL_TAGS)
    tags = {entry["tag"]: entry for entry in json.loads((tmp_path / "danmul" / "tags.json").read_text())}
    assert {tag: entry["posts"] for tag, entry in tags.items() if ":" in tag} == {
        **{"rating:general": 14, "rating:sensitive": 5, "rating:questionable": 10}
    }
    assert all(np.isfinite(entry["score"]) for entry in tags.values())
    rows = rows_of(tmp_path / "danmul", "tags")
    assert rows[200]["tags"] == ["rating:sensitive", "x", "y"] and rows[300]["tags"] == [
        "rating:questionable",
        "x",
        "z",
    ]
    newer = write_dump(tmp_path / "newer", [Post(i, ["bob"], ["x", "new"], "e" if i % 2 else "g") for i in range(9)])
    for i in range(1, 9, 2):
        path = image_path(newer, i)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(DRAWINGS[i][0]))
    build(newer, tmp_path / "more", "--like", str(tmp_path / "danmul"))  # in its vocabulary there is no explicit
    assert {tuple(row["tags"]) for row in rows_of(tmp_path / "more", "tags").values()} == {
        ("rating:general", "x"),
        ("x",),
    }


def test_series_implications_and_features_are_stored(dump, tmp_path):
    lines = [json.loads(line) for line in next(dump.glob("metadata_2021/*")).read_text().splitlines()]
    for line in lines:
        if line["tag_string_character"] == "alice":
            line["tag_string_copyright"] = "wonderland" if int(line["id"]) != 100 else "original wonderland_2"
    copy = tmp_path / "dump"
    (copy / "metadata_2021").mkdir(parents=True)
    (copy / "512px").symlink_to(dump / "512px")
    (copy / "metadata_2021" / "posts.json").write_text("\n".join(map(json.dumps, lines)))
    implications = [("blue_eyes", "x"), ("x", "y"), ("unknown", "y"), ("y", "elsewhere"), ("z", "x")]
    relations = [{"antecedent_name": a, "consequent_name": b, "status": "active"} for a, b in implications]
    (copy / "metadata_2021" / "tag_implications.json").write_text("\n".join(map(json.dumps, relations)))
    build(copy, tmp_path / "danmul", *ALL_TAGS)
    read = lambda name: json.loads((tmp_path / "danmul" / f"{name}.json").read_text())  # noqa: E731
    alice, bob = read("characters")
    assert (alice["series"], alice["series_share"]) == ("wonderland", 0.947)
    assert bob["series"] is None and "series_share" not in bob
    assert read("implications") == [
        {"tag": "blue_eyes", "implies": ["x", "y"]},
        {"tag": "x", "implies": ["y"]},
        {"tag": "z", "implies": ["x", "y"]},
    ]
    train = [row for row in rows_of(copy.parent / "danmul", "tags", "character").values() if row["split"] == "train"]
    of_alice = [row["tags"] for row in train if row["character"] == 0]
    share = round(sum("blue_eyes" in tags for tags in of_alice) / len(of_alice), 3)
    assert read("character_tags") == [
        {"character": "alice", "tags": {"x": 1.0, "y": 1.0, "blue_eyes": share}},
        {"character": "bob", "tags": {"x": 1.0, "z": 1.0}},
    ]


def test_damaged_implications_do_not_stop_a_build_that_does_not_need_them(dump, tmp_path, capsys):
    copy = tmp_path / "dump"
    copy.mkdir()
    for part in ("512px", "metadata_2021"):
        (copy / part).symlink_to(dump / part)
    (copy / "tag_implications.json").write_text("{broken\n")
    build(copy, tmp_path / "danmul")
    assert "implications are not stored" in capsys.readouterr().err
    assert json.loads((tmp_path / "danmul" / "implications.json").read_text()) == []

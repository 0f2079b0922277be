"""The whole build: counts by hand, equality with a plain json loop, reruns, refusals, and `load_dataset("danmul")`."""

import filecmp
import io
import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from dump_factory import Post, dirty_posts, image_path, write_dump
from PIL import Image
from reference_build import reference

import dataset_scripts
from dataset_scripts.build_danmul import build_parser, main
from dataset_scripts.folder import shards
from dataset_scripts.rules.split_posts import SPLITS


def build(source, output, *options):
    return main(["--source", str(source), "--output", str(output), "--workers", "1", *options])


def read_rows(folder):
    """Every row of the data set, with its split, without the picture; sorted by id."""
    rows = []
    for path in sorted((folder / "data").iterdir()):
        table = pq.read_table(path)
        names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["character"]["names"]
        for row in table.to_pylist():
            split = path.name.split("-")[0]
            rows.append((row["post_id"], names[row["character"]], row["tags"], row["rating"], split))
    return sorted(rows)


def read_json(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def same_files(one, other):
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    others = sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
    return names == others and filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])


@pytest.fixture
def dirty_dump(tmp_path):
    """dirty_posts(), one malformed line, one cut and one empty image of alice: ten of her are left."""
    dump = write_dump(tmp_path / "dump", dirty_posts(), extra_lines=("{broken",))
    cut = image_path(dump, 1011)
    cut.write_bytes(cut.read_bytes()[:-5])
    image_path(dump, 1010).write_bytes(b"")
    image_path(dump, 3000).unlink()
    return dump


def test_every_rule_counts_as_by_hand(dirty_dump, tmp_path, capsys):
    assert build(dirty_dump, tmp_path / "danmul", "--max_bad_share", "0.1") == 0
    output = capsys.readouterr()
    assert output.out.startswith("metadata: flat")
    assert "metadata_2021/posts000000000000.json:21: " in output.err
    record = read_json(tmp_path / "danmul", "build")
    posts = {rule["rule"]: (rule["posts_before"], rule["posts_dropped"]) for rule in record["rules"]}
    assert posts == {
        "general_tags": (38, 0),  # 40 records, two without id
        "has_image": (38, 3),  # 4002 and 4003 by rating, 3000 missing
        "single_character": (35, 2),  # 4000 none, 4001 two
        "unique_id": (33, 3),
        "readable_image": (30, 2),
        "min_posts": (28, 8),  # carol
        "emoticon_tags": (20, 0),
        "min_tag_posts": (20, 0),
        "tf_idf_sum": (20, 0),
    }
    tags = {rule["rule"]: (rule["tags_dropped"], rule["tags_after"]) for rule in record["rules"]}
    assert tags["general_tags"] == (2, 15)  # some_artist, highres
    assert tags["readable_image"] == (1, 14)  # pair_5 stood on the two broken images
    assert tags["min_posts"] == (1, 13)  # carols_tag
    assert tags["emoticon_tags"] == (2, 11)  # >_< s.m.s.
    assert tags["min_tag_posts"] == (1, 10)  # once_only
    assert tags["tf_idf_sum"] == (0, 10)
    assert record["counts"]["tags"] == 10 and record["counts"]["tags_and_special_tokens"] == 15
    assert record["counts"]["splits"] == {"train": 14, "validation": 2, "test": 4}
    assert record["counts"]["posts_without_tags"] == 1
    assert record["duplicate_ids_that_differ"] == 2
    assert record["metadata"]["bad_lines"] == 1 and record["metadata"]["without_id"] == 2
    assert record["images"] == {
        "empty": {"count": 1, "post_ids": [1010]},
        "missing": {"count": 1, "post_ids": [3000]},
        "truncated": {"count": 1, "post_ids": [1011]},
    }
    (reject,) = [json.loads(line) for line in (tmp_path / "danmul" / "rejects.jsonl").open(encoding="utf-8")]
    assert (reject["file"], reject["line"], reject["text"]) == (
        "metadata_2021/posts000000000000.json",
        21,
        "{broken",
    )


def test_lists_and_card(dirty_dump, tmp_path):
    folder = tmp_path / "danmul"
    build(dirty_dump, folder, "--max_bad_share", "0.1")
    tags = read_json(folder, "tags")
    assert [(row["tag"], row["posts"]) for row in tags[:5]] == [
        ("1girl", 10),
        ("long_hair", 10),
        ("1boy", 9),
        ("v", 9),
        ("帽子", 9),
    ]
    assert tags[-1]["tag"] == "pair_4" and tags[-1]["score"] == pytest.approx(2 / 3 * math.log(20 / 2), abs=1e-6)
    assert read_json(folder, "characters") == [
        {"character": name, "posts": 10, "train": 7, "validation": 1, "test": 2, "series": None}
        for name in ("alice_(wonderland)", "bob")
    ]
    assert read_json(folder, "statistics")["train"]["images_per_class"] == {"min": 7, "max": 7, "mean": 7.0}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "share/" not in card and str(tmp_path) not in card
    assert "danmul.py" not in os.listdir(folder)


def random_posts(number=700):
    rng = random.Random(0)
    vocabulary = [f"tag_{i}" for i in range(60)] + [f"rare_{i}" for i in range(200)] + [">_<", ":d", "帽子", "v"]
    weights = [1000 // (i + 1) + 1 for i in range(len(vocabulary))]
    posts = []
    for _ in range(number):
        characters = rng.choices([[], ["a"], ["b"], [f"c{rng.randrange(40)}"], ["a", "b"]], [1, 3, 2, 6, 1])[0]
        general = sorted(set(rng.choices(vocabulary, weights, k=rng.randrange(12))))
        post_id = rng.randrange(1, 4 * number) if rng.random() > 0.02 else None
        posts.append(Post(post_id, characters, general, rng.choice("ssssgqe"), rng.random() < 0.1))
    return posts


@pytest.mark.parametrize("generation", ["flat", "nested"])
def test_build_equals_the_plain_loop(tmp_path, generation):
    dump = write_dump(tmp_path / "dump", random_posts(), generation, extra_lines=("{broken", "", "\x00"))
    assert build(dump, tmp_path / "danmul", "--tfidf_threshold", "3", "--format", generation) == 0
    (metadata,) = dump.glob("metadata*/*")
    image_ids = {int(path.stem) for path in dump.glob("512px/*/*.jpg")}
    expected = reference(metadata.read_text(encoding="utf-8").split("\n"), image_ids, threshold=3)
    assert len(expected) > 150
    assert len({tag for row in expected for tag in row[2]}) < 60  # the threshold did drop tags
    assert read_rows(tmp_path / "danmul") == expected


def test_order_generation_workers_and_a_rerun_change_no_byte(tmp_path):
    posts = random_posts()
    write_dump(tmp_path / "one" / "dump", posts)
    write_dump(tmp_path / "two" / "dump", posts)
    metadata = tmp_path / "two" / "dump" / "metadata_2021" / "posts000000000000.json"
    lines = metadata.read_text(encoding="utf-8").splitlines()
    random.Random(1).shuffle(lines)
    metadata.write_text("\n".join(lines), encoding="utf-8")
    home = os.getcwd()
    try:
        for name, workers in (("one", "1"), ("two", "2")):
            os.chdir(tmp_path / name)  # so that --source reads the same
            assert main(["--source", "dump", "--workers", workers]) == 0
    finally:
        os.chdir(home)
    assert same_files(tmp_path / "one" / "danmul", tmp_path / "two" / "danmul")
    write_dump(tmp_path / "three" / "dump", posts, "nested")
    assert build(tmp_path / "three" / "dump", tmp_path / "three" / "danmul") == 0
    for path in (tmp_path / "one" / "danmul" / "data").iterdir():
        assert path.read_bytes() == (tmp_path / "three" / "danmul" / "data" / path.name).read_bytes()


def test_no_post_is_in_two_splits_and_shards_are_of_the_size_asked_for(tmp_path, monkeypatch):
    dump = write_dump(tmp_path / "dump", random_posts())
    plan = shards.plan_shards
    monkeypatch.setattr("dataset_scripts.build_danmul.plan_shards", lambda *args: plan(*args[:5], 20_000, args[6]))
    assert build(dump, tmp_path / "danmul") == 0
    names = sorted(path.name for path in (tmp_path / "danmul" / "data").iterdir())
    assert len(names) > 5 and names[-1].startswith("validation-")
    total = next(int(name[-13:-8]) for name in names if name.startswith("train"))
    train = [name for name in names if name.startswith("train")]
    assert train == [f"train-{shard:05d}-of-{total:05d}.parquet" for shard in range(total)]
    ids = [row[0] for row in read_rows(tmp_path / "danmul")]
    assert len(ids) == len(set(ids)) == read_json(tmp_path / "danmul", "build")["counts"]["posts"]


LOAD = """
import json
from datasets import load_dataset
whole = load_dataset("danmul")
row = whole["train"][0]
streams = {name: list(stream) for name, stream in load_dataset("danmul", streaming=True).items()}
print(json.dumps({
    "sizes": {name: len(split) for name, split in whole.items()},
    "streamed": {name: len(rows) for name, rows in streams.items()},
    "same": all(whole[name]["post_id"][:] == [r["post_id"] for r in rows] for name, rows in streams.items()),
    "image": [type(row["image"]).__name__, row["image"].size, row["image"].mode],
    "streamed_image": streams["train"][0]["image"].size,
    "names": whole["train"].features["character"].names,
    "tags": row["tags"], "features": list(whole["train"].features),
}))
"""


def load_in_fresh_process(folder, tmp_path, program=LOAD):
    env = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_load_dataset_danmul(dirty_dump, tmp_path):
    assert build(dirty_dump, tmp_path / "home" / "danmul", "--max_bad_share", "0.1") == 0
    loaded = load_in_fresh_process(tmp_path / "home", tmp_path)
    assert loaded["sizes"] == loaded["streamed"] == {"train": 14, "validation": 2, "test": 4}
    assert loaded["same"]
    assert loaded["image"] == ["JpegImageFile", [8, 8], "RGB"] and loaded["streamed_image"] == [8, 8]
    assert loaded["names"] == ["alice_(wonderland)", "bob"]
    assert loaded["features"] == [
        *("post_id", "image", "character", "tags", "rating"),
        *("picture_hash", "group", "near_train"),
    ]


def test_a_rebuilt_data_set_is_not_taken_from_the_cache(tmp_path):
    dump, home = write_dump(tmp_path / "dump", random_posts()), tmp_path / "home"
    assert build(dump, home / "danmul") == 0
    first = load_in_fresh_process(home, tmp_path)
    assert build(dump, home / "danmul", "--overwrite", "--min_posts", "40") == 0
    second = load_in_fresh_process(home, tmp_path)
    assert first["names"] != second["names"]
    assert second["sizes"] == read_json(home / "danmul", "build")["counts"]["splits"]


def test_split_without_posts_is_left_out(tmp_path, capsys):
    posts = [Post(i, [f"character_{i}"], ["x"]) for i in range(1, 3)] + [Post(i, ["pair"], ["x", "y"]) for i in (3, 4)]
    dump = write_dump(tmp_path / "dump", posts)
    assert build(dump, tmp_path / "home" / "danmul", "--min_posts", "1", "--tfidf_threshold", "0") == 0
    counts = read_json(tmp_path / "home" / "danmul", "build")["counts"]
    assert counts["characters_without_posts"] == {"train": 2, "validation": 0, "test": 3}
    assert "3 characters are so small that they have no test post." in capsys.readouterr().out
    loaded = load_in_fresh_process(tmp_path / "home", tmp_path)
    assert loaded["sizes"] == loaded["streamed"] == {"train": 1, "validation": 3}


def fails(capsys, *argv):
    """The one-line error of a command that must fail."""
    assert main([*map(str, argv)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "Traceback" not in error
    return error


def test_too_many_malformed_lines_are_an_error_with_file_and_line(dirty_dump, tmp_path, capsys):
    error = fails(capsys, "--source", dirty_dump, "--output", tmp_path / "danmul")
    assert "1 of 41" in error and "metadata_2021/posts000000000000.json:21: " in error and "--max_bad_share" in error
    assert "danmul.rejects.jsonl" in error and "{broken" in (tmp_path / "danmul.rejects.jsonl").read_text()
    assert sorted(os.listdir(tmp_path)) == ["danmul.rejects.jsonl", "dump"]


def test_strict_refuses_missing_and_broken_images(dirty_dump, tmp_path, capsys):
    error = fails(
        capsys, "--source", dirty_dump, "--output", tmp_path / "danmul", "--strict", "--max_bad_share", "0.1"
    )
    assert "1 empty (post 1010), 1 missing (post 3000), 1 truncated (post 1011)" in error
    assert os.listdir(tmp_path) == ["dump"]


def test_existing_output_is_replaced_only_on_request_and_only_if_ours(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", random_posts())
    output = tmp_path / "danmul"
    output.mkdir()
    (output / "thesis.tex").touch()
    assert "was not written by this command" in fails(capsys, "--source", dump, "--output", output, "--overwrite")
    (output / "thesis.tex").unlink()
    assert build(dump, output) == 0  # an empty folder is as good as none
    before = (output / "build.json").read_bytes()
    assert "--overwrite" in fails(capsys, "--source", dump, "--output", output)
    assert build(dump, output, "--overwrite", "--seed", "7") == 0
    assert (output / "build.json").read_bytes() != before
    assert sorted(os.listdir(tmp_path)) == ["danmul", "dump"]


def test_train_ready_pictures_and_full_verification(tmp_path):
    dump = write_dump(tmp_path / "dump", [Post(i, ["a"], ["x", "y"]) for i in range(1, 21)])
    Image.new("RGBA", (300, 200), (255, 0, 0, 0)).save(image_path(dump, 3, ".png"))
    image_path(dump, 3).unlink()
    good = bytearray(photo(200, 220))
    image_path(dump, 4).write_bytes(bytes(good))
    good[len(good) // 2 : len(good) // 2 + 400] = bytes(400)  # a hole, which header and end do not show
    image_path(dump, 5).write_bytes(bytes(good))
    assert build(dump, tmp_path / "header") == 0
    assert read_json(tmp_path / "header", "build")["images"] == {}
    assert build(dump, tmp_path / "small", "--image_size", "100") == 0
    record = read_json(tmp_path / "small", "build")
    assert record["images"] == {"damaged": {"count": 1, "post_ids": [5]}} and record["options"]["image_size"] == 100
    images = {}
    for path in (tmp_path / "small" / "data").iterdir():
        for row in pq.read_table(path).to_pylist():
            images[row["image"]["path"]] = Image.open(io.BytesIO(row["image"]["bytes"]))
    assert images["3.jpg"].size == (150, 100) and images["3.jpg"].getpixel((0, 0)) == (255, 255, 255)
    assert images["4.jpg"].size == (100, 110) and images["1.jpg"].size == (8, 8)  # never made larger
    assert {image.format for image in images.values()} == {"JPEG"}


def photo(width, height):
    """A noisy JPEG."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def test_dry_run_opens_no_image_and_writes_nothing(dirty_dump, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dataset_scripts.build_danmul.check_images", None)
    assert build(dirty_dump, tmp_path / "danmul", "--dry_run", "--max_bad_share", "0.1") == 0
    output = capsys.readouterr().out
    assert "min_tag_posts" in output and "readable_image " not in output.split("Dry run")[0]
    assert "tags left by a threshold of Eq. 1" in output
    assert os.listdir(tmp_path) == ["dump"]


def test_rules_that_are_off_by_default(tmp_path):
    dump = write_dump(tmp_path / "dump", random_posts())
    assert build(dump, tmp_path / "all") == 0
    assert build(dump, tmp_path / "some", "--ratings", "s", "--drop_deleted") == 0
    some = {row[0]: row for row in read_rows(tmp_path / "some")}
    assert {row[3] for row in some.values()} == {"s"}
    assert len(some) < len(read_rows(tmp_path / "all"))
    applied = [rule["rule"] for rule in read_json(tmp_path / "some", "build")["rules"]]
    assert applied[1:4] == ["has_image", "ratings", "not_deleted"]


def test_names_that_training_refuses_are_dropped_by_a_rule_that_names_them(tmp_path, capsys):
    posts = [Post(i, ["alice"], ["hat", "[mask]", "Long Hair", "a\u2028b", "tab\there"]) for i in range(1, 21)]
    posts += [Post(i, ["bob\x1b[2J"], ["hat", "bow"]) for i in range(21, 41)]
    dump = write_dump(tmp_path / "dump", posts, "nested")
    assert build(dump, tmp_path / "danmul", "--tfidf_threshold", "0") == 0
    output = capsys.readouterr().out
    assert "'Long Hair', '[mask]', 'a\\u2028b', 'tab\\there'" in output and "'bob\\x1b[2J'" in output
    rules = {rule["rule"]: rule for rule in read_json(tmp_path / "danmul", "build")["rules"]}
    assert rules["tag_spelling"]["tags_dropped"] == 4 and rules["character_spelling"]["posts_dropped"] == 20
    assert [row["tag"] for row in read_json(tmp_path / "danmul", "tags")] == ["hat"]
    assert [row["character"] for row in read_json(tmp_path / "danmul", "characters")] == ["alice"]


def test_nothing_left_and_wrong_sources_are_explained(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", [Post(1, ["a"], ["x"])])
    output = ("--output", tmp_path / "danmul")
    assert "left no post" in fails(capsys, "--source", dump, *output)
    assert "is not a folder" in fails(capsys, "--source", tmp_path / "absent", *output)
    assert "--ratings asks for ['x']" in fails(capsys, "--source", dump, *output, "--ratings", "x")
    (tmp_path / "empty").mkdir()
    assert "metadata" in fails(capsys, "--source", tmp_path / "empty", *output)


def test_help_shows_a_command_that_parses(capsys):
    parser = build_parser()
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    commands = re.findall(r"^ +python -m dataset_scripts.build_danmul (.*?)(?: +#.*)?$", text, re.M)
    assert commands
    for command in commands:
        parser.parse_args(command.split())
    assert SPLITS == ("train", "validation", "test")


@pytest.mark.parametrize("argv", [["--min_posts", "0"], ["--max_bad_share", "2"], ["--emoticon_pattern", "("]])
def test_impossible_options_are_refused(argv, capsys):
    with pytest.raises(SystemExit):
        main(["--source", "x", *argv])
    assert "expected" in capsys.readouterr().err


def test_this_package_never_imports_the_model():
    for path in Path(dataset_scripts.__file__).parent.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) modeling_mfdn", path.read_text(encoding="utf-8"), re.M), path


def test_like_a_built_folder_means_its_characters_its_tags_and_none_of_its_posts(tmp_path, capsys):
    first = [Post(100 + i, ["alice"], ["hat", "smile"]) for i in range(12)]
    first += [Post(200 + i, ["bob"], ["hat", "sword"]) for i in range(10)] + [Post(300, ["carol"], ["hat"])]
    build(write_dump(tmp_path / "dump", first), tmp_path / "danmul")
    newer = [Post(1100 + i, ["alice"], ["smile", "new_tag"]) for i in range(7)] + [Post(1200, ["bob"], ["sword"])]
    newer += [Post(1300 + i, ["carol"], ["hat"]) for i in range(20)] + first[:5]
    dump = write_dump(tmp_path / "newer", newer)
    assert build(dump, tmp_path / "more", "--like", str(tmp_path / "danmul")) == 0
    expected = [(1100 + i, "alice", ["smile"], "s") for i in range(7)] + [(1200, "bob", ["sword"], "s")]
    rows = read_rows(tmp_path / "more")
    assert [row[:4] for row in rows] == expected
    assert sorted(row[4] for row in rows) == ["test"] * 6 + ["validation"] * 2
    rules = {rule["rule"]: rule for rule in read_json(tmp_path / "more", "build")["rules"]}
    dropped = {name: rules[name]["posts_dropped"] for name in ("new_post", "known_character")}
    assert dropped == {"new_post": 5, "known_character": 20} and rules["known_tag"]["tags_dropped"] == 1
    assert read_json(tmp_path / "more", "build")["options"]["like"] == "danmul"
    assert "none of that data set's own" in (tmp_path / "more" / "README.md").read_text()
    assert "like" not in read_json(tmp_path / "danmul", "build")["options"]


def test_like_refuses_rules_that_it_would_ignore_and_folders_without_anything_to_go_by(tmp_path, capsys):
    posts = [Post(100 + i, ["alice"], ["hat", "smile"]) for i in range(12)]
    dump = write_dump(tmp_path / "dump", posts)
    build(dump, tmp_path / "danmul")
    for options, message in (
        (["--like", str(tmp_path / "danmul"), "--min_posts", "3"], "--min_posts means nothing with --like"),
        (["--like", str(tmp_path / "danmul")], "the rules above left none"),
        (["--like", str(tmp_path / "dump")], "has no build.json"),
    ):
        assert build(dump, tmp_path / "more", *options) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "more").exists()

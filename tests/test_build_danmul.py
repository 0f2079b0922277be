"""The whole build: counts by hand, equality with a plain json loop, reruns, refusals, and `load_dataset("danmul")`."""

import filecmp
import io
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from dump_factory import Post, dirty_posts, image_path, picture, write_dump
from PIL import Image
from reference_build import reference
from upath import UPath

from dataset_scripts import write_parquet
from dataset_scripts.build_danmul import build_parser, main
from dataset_scripts.danmul_folder import work_folder
from dataset_scripts.split_posts import SPLITS


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
        "metadata_2021/posts000000000000.json", 21, "{broken",
    )  # fmt: skip


def test_lists_and_card(dirty_dump, tmp_path):
    folder = tmp_path / "danmul"
    build(dirty_dump, folder, "--max_bad_share", "0.1")
    tags = read_json(folder, "tags")
    assert [(row["tag"], row["posts"]) for row in tags[:5]] == [
        ("1girl", 10), ("long_hair", 10), ("1boy", 9), ("v", 9), ("帽子", 9),
    ]  # fmt: skip
    assert tags[-1]["tag"] == "pair_4" and tags[-1]["score"] == pytest.approx(2 / 3 * math.log(20 / 2), abs=1e-6)
    assert read_json(folder, "characters") == [
        {"character": name, "posts": 10, "train": 7, "validation": 1, "test": 2}
        for name in ("alice_(wonderland)", "bob")
    ]
    assert read_json(folder, "statistics")["train"]["images_per_class"] == {"min": 7, "max": 7, "mean": 7.0}
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "alice" not in card and "share/" not in card and str(tmp_path) not in card
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
    plan = write_parquet.plan_shards
    monkeypatch.setattr("dataset_scripts.build.plan_shards", lambda *args: plan(*args[:5], 20_000, args[6]))
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
        "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_CACHE": str(tmp_path / "cache"),
    }  # fmt: skip
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
    assert loaded["features"] == ["post_id", "image", "character", "tags", "rating"]


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
    assert "no data set of this command" in fails(capsys, "--source", dump, "--output", output, "--overwrite")
    (output / "thesis.tex").unlink()
    assert build(dump, output) == 0  # an empty folder is as good as none
    before = (output / "build.json").read_bytes()
    assert "--overwrite" in fails(capsys, "--source", dump, "--output", output)
    assert build(dump, output, "--overwrite", "--seed", "7") == 0
    assert (output / "build.json").read_bytes() != before
    assert sorted(os.listdir(tmp_path)) == ["danmul", "dump"]


def test_a_failed_build_leaves_the_old_data_set_and_no_rubbish(tmp_path, capsys, monkeypatch):
    dump = write_dump(tmp_path / "dump", random_posts())
    output = tmp_path / "danmul"
    assert build(dump, output) == 0
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    def disk_full(task):
        raise OSError(28, "No space left on device", task.path)

    monkeypatch.setattr("dataset_scripts.build.write_shard", disk_full)
    argv = ["--source", dump, "--output", output, "--overwrite", "--workers", "1"]
    assert "No space left on device" in fails(capsys, *argv)
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert sorted(os.listdir(tmp_path)) == ["danmul", "dump"]


def test_a_full_disk_keeps_finished_shards_and_a_rerun_goes_on(tmp_path, capsys, monkeypatch):
    dump = write_dump(tmp_path / "dump", random_posts())
    assert build(dump, tmp_path / "whole", "--shard_size_mb", "0.02") == 0
    argv = ["--source", dump, "--output", tmp_path / "danmul", "--workers", "1", "--shard_size_mb", "0.02"]
    written = []

    def disk_full_at_the_third(task):
        if len(written) == 2:
            raise OSError(28, "No space left on device", task.path)
        written.append(write_parquet.write_shard(task))
        return written[-1]

    monkeypatch.setattr("dataset_scripts.build.write_shard", disk_full_at_the_third)
    assert "No space left on device" in fails(capsys, *argv)
    monkeypatch.undo()
    rows = []
    write_rows = write_parquet.write_rows
    monkeypatch.setattr(write_parquet, "write_rows", lambda task, file: rows.append(task) or write_rows(task, file))
    assert main([*map(str, argv)]) == 0
    total = len(list((tmp_path / "whole" / "data").iterdir()))
    assert total > 5 and len(rows) == total - 2
    assert same_files(tmp_path / "danmul", tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["danmul", "dump", "whole"]


@pytest.mark.parametrize("damage", ["content", "plan", "image", "options"])
def test_a_finished_shard_is_written_again_when_anything_it_depends_on_changed(tmp_path, capsys, monkeypatch, damage):
    dump = write_dump(tmp_path / "dump", random_posts())
    monkeypatch.setattr("dataset_scripts.build.publish", lambda *args: (_ for _ in ()).throw(OSError("killed")))
    argv = ["--source", dump, "--output", tmp_path / "danmul", "--workers", "1", "--shard_size_mb", "0.02"]
    assert "killed" in fails(capsys, *argv)
    monkeypatch.undo()
    shard = sorted((tmp_path / "danmul.partial" / "data").iterdir())[0]
    if damage == "content":
        shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    elif damage == "plan":
        write_parquet.plan_path(UPath(shard)).write_text("{")
    elif damage == "image":
        for path in dump.glob("512px/*/*.jpg"):
            path.write_bytes(picture(int(path.stem) + 1))
    else:
        argv += ["--seed", "3"]
    assert main([*map(str, argv)]) == 0
    options = ["--shard_size_mb", "0.02", *(["--seed", "3"] if damage == "options" else [])]
    assert build(dump, tmp_path / "whole", *options) == 0
    assert same_files(tmp_path / "danmul", tmp_path / "whole")


def test_two_builds_into_one_folder_are_refused(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", random_posts())
    with work_folder(UPath(tmp_path / "danmul")):
        error = fails(capsys, "--source", dump, "--output", tmp_path / "danmul", "--workers", "1")
    assert "Another build writes to" in error


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", random_posts())
    assert build(dump, tmp_path / "danmul") == 0
    before = (tmp_path / "danmul" / "build.json").read_bytes()
    (tmp_path / "danmul").rename(tmp_path / "danmul.old")
    assert "holds a data set already" in fails(capsys, "--source", dump, "--output", tmp_path / "danmul")
    assert (tmp_path / "danmul" / "build.json").read_bytes() == before


def test_a_stranger_named_old_is_neither_taken_nor_removed(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", random_posts())
    (tmp_path / "danmul.old").mkdir()
    (tmp_path / "danmul.old" / "thesis.tex").touch()
    assert "move yours away" in fails(capsys, "--source", dump, "--output", tmp_path / "danmul")
    assert (tmp_path / "danmul.old" / "thesis.tex").exists()


def test_what_appears_at_the_output_during_the_build_costs_no_shard(tmp_path, capsys, monkeypatch):
    dump = write_dump(tmp_path / "dump", random_posts())
    write_shard = write_parquet.write_shard

    def someone_else_is_faster(task):
        (tmp_path / "danmul").mkdir(exist_ok=True)
        (tmp_path / "danmul" / "thesis.tex").touch()
        return write_shard(task)

    monkeypatch.setattr("dataset_scripts.build.write_shard", someone_else_is_faster)
    argv = ["--source", dump, "--output", tmp_path / "danmul", "--workers", "1"]
    assert "no data set of this command" in fails(capsys, *argv)
    assert len(list((tmp_path / "danmul.partial" / "plans").iterdir())) == 3


@pytest.mark.parametrize("what", ["metadata_2021", "512px", "output"])
def test_unreadable_folders_are_named(tmp_path, capsys, monkeypatch, what):
    dump = write_dump(tmp_path / "dump", random_posts())
    scandir, mkdir, listdir = os.scandir, os.mkdir, os.listdir

    def refusing(function, name):
        def call(path=".", *args, **kwargs):
            if name in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return call

    # Not chmod: the tests may run as root, who reads everything.
    if what == "output":
        monkeypatch.setattr(os, "mkdir", refusing(mkdir, "danmul.partial"))
    else:
        monkeypatch.setattr(os, "scandir", refusing(scandir, what))
        monkeypatch.setattr(os, "listdir", refusing(listdir, what))
    error = fails(capsys, "--source", dump, "--output", tmp_path / "danmul", "--workers", "1")
    assert "Permission denied" in error and what.replace("output", "danmul.partial") in error


def test_jobs_by_shard_number_give_the_same_folder(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", random_posts())
    assert build(dump, tmp_path / "whole", "--shard_size_mb", "0.02") == 0
    for job in ("2/3", "0/3", "1/3"):
        assert build(dump, tmp_path / "danmul", "--shard_size_mb", "0.02", "--shards", job) == 0
        assert not (tmp_path / "danmul").exists()
    assert "run without --shards to complete" in capsys.readouterr().out
    assert build(dump, tmp_path / "danmul", "--shard_size_mb", "0.02") == 0
    assert same_files(tmp_path / "danmul", tmp_path / "whole")


def test_output_on_another_file_system(tmp_path):
    dump = write_dump(tmp_path / "dump", random_posts())
    assert build(dump, tmp_path / "local", "--shard_size_mb", "0.02") == 0
    output = UPath("memory://output_on_another/danmul")
    assert build(dump, output, "--shard_size_mb", "0.02") == 0
    files = [path for path in (tmp_path / "local").rglob("*") if path.is_file()]
    names = sorted(str(path.relative_to(tmp_path / "local")) for path in files)
    assert sorted(str(path)[len(str(output)) + 1 :] for path in output.rglob("*") if path.is_file()) == names
    for name in names:
        assert (output / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert not UPath("memory://output_on_another/danmul.partial").exists()


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


@pytest.mark.slow
def test_killed_at_random_moments_and_started_again_it_gives_the_same_bytes(tmp_path):
    dump = write_dump(tmp_path / "dump", random_posts(3000))
    argv = ["--source", str(dump), "--workers", "2", "--shard_size_mb", "0.01"]
    command = [sys.executable, "-m", "dataset_scripts.build_danmul", *argv, "--output"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    num_shards = len(list((tmp_path / "whole" / "data").iterdir()))
    output, plans = tmp_path / "danmul", tmp_path / "danmul.partial" / "plans"
    rng, kills = random.Random(0), 0
    # When so many shards are finished, the run is killed: at once for -1, while it reads; near the end for the last.
    for target in [-1, *sorted(rng.randrange(num_shards) for _ in range(8)), num_shards - 1]:
        process = subprocess.Popen([*command, str(output)], stderr=subprocess.PIPE, start_new_session=True)
        while process.poll() is None and target >= 0 and len(list(plans.glob("*.json"))) < target:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03) if target >= 0 else 1.0)
        if process.poll() is None:
            assert not output.exists() or same_files(output, tmp_path / "whole")
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        _, error = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), error
        assert not output.exists() or same_files(output, tmp_path / "whole")
        if output.exists():
            break
    if not output.exists():
        subprocess.run([*command, str(output)], check=True, capture_output=True)
    print(f"{kills} kills, {num_shards} shards")
    assert kills >= 8 and same_files(output, tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["danmul", "dump", "whole"]


def test_dry_run_opens_no_image_and_writes_nothing(dirty_dump, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dataset_scripts.build.check_images", None)
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
    for path in Path(write_parquet.__file__).parent.glob("*.py"):
        assert not re.search(r"^\s*(from|import) modeling_mfdn", path.read_text(encoding="utf-8"), re.M), path

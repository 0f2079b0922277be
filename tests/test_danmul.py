"""The `datasets` builder: builds the folder, gives it whole and as a stream, resumes, and copes with its full size."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from datasets import load_dataset
from datasets.distributed import split_dataset_by_node
from dump_factory import Post, picture, write_dump
from test_build_danmul import build, random_posts
from test_find_dump import write_dafre

from dataset_scripts.build_danshare import main as build_danshare
from dataset_scripts.danmul import DanMul
from dataset_scripts.folder.shards import danmul_schema, parquet_writer


@pytest.fixture
def dump(tmp_path):
    return write_dump(tmp_path / "dump", random_posts())


def make(name, tmp_path, **options):
    return DanMul(config_name=name, cache_dir=str(tmp_path / "cache"), workers=1, **options)


def test_builder_builds_the_folder_and_gives_it(dump, tmp_path):
    builder = make("danmul", tmp_path, source=str(dump), output=str(tmp_path / "danmul"))
    builder.download_and_prepare()
    whole = builder.as_dataset()
    counts = json.loads((tmp_path / "danmul" / "build.json").read_text())["counts"]
    assert {name: len(split) for name, split in whole.items()} == counts["splits"]
    assert len(whole["train"].features["character"].names) == counts["characters"]
    stream = make("danmul", tmp_path, source=str(dump), output=str(tmp_path / "danmul")).as_streaming_dataset("train")
    rows = list(stream)
    assert [row["post_id"] for row in rows] == whole["train"]["post_id"][:]
    assert rows[0]["image"].size == (8, 8)


def test_the_same_names_in_another_project_and_after_a_rebuild_are_other_data(tmp_path, monkeypatch):
    found = []
    for project in ("one", "two"):
        write_dump(tmp_path / project / "dump", [Post(i, [project], ["x", "y"]) for i in range(1, 21)])
        monkeypatch.chdir(tmp_path / project)
        builder = make("danmul", tmp_path, source="dump", output="out[v1]")
        monkeypatch.chdir(tmp_path)  # the builder stays with the project that it was made in
        builder.download_and_prepare()
        found.append(builder.as_dataset("train").features["character"].names)
        assert len(list(builder.as_streaming_dataset("train"))) == len(builder.as_dataset("train"))
    assert found == [["one"], ["two"]]
    folder = tmp_path / "two" / "out[v1]"
    times = {path: path.stat().st_mtime_ns for path in (folder / "data").iterdir()}
    dump = write_dump(tmp_path / "three" / "dump", [Post(i, ["three"], ["x", "y"]) for i in range(1, 21)])
    assert build(dump, folder, "--overwrite") == 0
    for path, time_ns in times.items():
        os.utime(path, ns=(time_ns, time_ns))  # as an archive or rsync may leave them
    builder.download_and_prepare()
    assert builder.as_dataset("train").features["character"].names == ["three"]
    assert builder.info.features["character"].names == ["three"]


def test_two_processes_prepare_the_same(dump, tmp_path):
    options = {"source": str(dump), "output": str(tmp_path / "danmul"), "options": ("--shard_size_mb", "0.02")}
    make("danmul", tmp_path, **options).download_and_prepare(num_proc=2)
    one = make("danmul", tmp_path, **options).as_dataset("train")
    make("danmul", tmp_path / "other", **options).download_and_prepare()
    other = make("danmul", tmp_path / "other", **options).as_dataset("train")
    assert one["post_id"][:] == other["post_id"][:] and len(one) > 100


def test_configurations_are_the_rules_of_their_sets(dump, tmp_path):
    style = make("dafre_style", tmp_path, source=str(dump), output=str(tmp_path / "style")).build_folder()
    assert json.loads((style / "build.json").read_text())["options"]["min_posts"] == 20
    write_dafre(tmp_path / "dafre_dump", True)
    dafre = make("dafre", tmp_path, source=str(tmp_path / "dafre_dump"), output=str(tmp_path / "dafre"))
    dafre.download_and_prepare()
    assert {name: len(split) for name, split in dafre.as_dataset().items()} == {"train": 1, "validation": 1, "test": 1}


def test_danshare(tmp_path):
    for name, seed in (("danmul", "0"), ("dafre", "1")):
        dump = write_dump(tmp_path / f"{name}_dump", [Post(i, ["a"], ["x", "y"]) for i in range(1, 81)])
        assert build(dump, tmp_path / name, "--seed", seed) == 0
    builder = make("danshare", tmp_path, output=str(tmp_path / "danmul"))
    with pytest.raises(FileNotFoundError, match="build_danshare first"):
        builder.build_folder()
    assert build_danshare(["--danmul", str(tmp_path / "danmul"), "--dafre", str(tmp_path / "dafre")]) == 0
    builder.download_and_prepare()
    assert list(builder.as_dataset()) == ["test"]


def test_a_folder_of_other_options_is_not_taken(dump, tmp_path):
    make("danmul", tmp_path, source=str(dump), output=str(tmp_path / "danmul")).build_folder()
    again = make("danmul", tmp_path, source=str(dump), output=str(tmp_path / "danmul"))
    assert again.build_folder() == tmp_path / "danmul"
    with pytest.raises(ValueError, match="built with other seed"):
        options = {"source": str(dump), "output": str(tmp_path / "danmul"), "options": ("--seed", "3")}
        make("danmul", tmp_path, **options).build_folder()
    with pytest.raises(ValueError, match="source=DUMP"):
        make("danmul", tmp_path).build_folder()


@pytest.fixture
def stream(dump, tmp_path):
    assert build(dump, tmp_path / "danmul", "--shard_size_mb", "0.02") == 0
    folder = str(tmp_path / "danmul")
    stream = load_dataset(folder, split="train", streaming=True, cache_dir=str(tmp_path / "cache"))
    return stream.select_columns("post_id")


def test_two_nodes_share_a_stream(stream):
    everything = [row["post_id"] for row in stream]
    parts = [[row["post_id"] for row in split_dataset_by_node(stream, rank, 2)] for rank in (0, 1)]
    assert sorted(parts[0] + parts[1]) == sorted(everything) and all(parts)
    assert not set(parts[0]) & set(parts[1])


def test_a_stream_resumes_exactly(stream):
    everything = [row["post_id"] for row in stream]
    seen = []
    for row in stream:
        seen.append(row["post_id"])
        if len(seen) == 137:
            state = stream.state_dict()
            break
    stream.load_state_dict(json.loads(json.dumps(state)))
    assert seen + [row["post_id"] for row in stream] == everything


LOAD_FULL_SIZE = """
import json, time
start = time.perf_counter()
from datasets import load_dataset
imported = time.perf_counter()
whole = load_dataset("danmul")
loaded = time.perf_counter()
names = whole["train"].features["character"].names
stream = next(iter(load_dataset("danmul", split="train", streaming=True)))
print(json.dumps([len(names), names[:3], names[-1], loaded - imported, stream["character"], stream["tags"][:2]]))
"""


@pytest.mark.long
def test_14413_class_names_and_25404_tags(tmp_path):
    rng = np.random.default_rng(0)
    names = sorted({f"character_{i:05d}_({'帽子' if i % 7 == 0 else 'series'}_{i % 300})" for i in range(14_412)})
    names.append('zz_"quoted"_:\'d_\\m/')
    tags = [f"tag_{i:05d}" for i in range(25_404)]
    folder = tmp_path / "home" / "danmul"
    (folder / "data").mkdir(parents=True)
    schema = danmul_schema(names)
    for split, number in (("train", 3_000), ("validation", 100), ("test", 500)):
        columns = [
            pa.array(np.arange(number), pa.int64()),
            pa.array([{"bytes": picture(i), "path": f"{i}.jpg"} for i in range(number)], schema.field("image").type),
            pa.array(rng.integers(0, len(names), number), pa.int64()),
            pa.array([rng.choice(tags, 24, replace=False).tolist() for _ in range(number)], pa.list_(pa.string())),
            pa.array(["s"] * number),
            pa.array([f"{value:064x}" for value in rng.integers(0, 2**63, number).tolist()]),
            pa.array(np.arange(number), pa.int64()),
            pa.array([False] * number),
        ]
        with (folder / "data" / f"{split}-00000-of-00001.parquet").open("wb") as file:
            with parquet_writer(file, schema) as writer:
                writer.write_table(pa.table(columns, schema=schema), row_group_size=100)
    from dataset_scripts.folder.card import dataset_card
    from dataset_scripts.folder.statistics import table_1

    record = {
        "source": "dump",
        "metadata": {"format": "flat", "bad_lines": 0, "without_id": 0},
        "images": {},
        "rules": [],
        "options": {"seed": 0},
        "shards": [
            {"sha256": "0", "file": f"{split}-00000-of-00001.parquet", "rows": rows, "bytes": 1}
            for split, rows in (("train", 3_000), ("validation", 100), ("test", 500))
        ],
        "counts": {
            "posts": 3_600,
            "characters": len(names),
            "tags": len(tags),
            "tags_and_special_tokens": 25_409,
            "splits": {"train": 3_000, "validation": 100, "test": 500},
            "ratings": {"s": 3_600},
        },
    }
    numbers = np.zeros(3_600, np.int8)
    card = dataset_card(record, table_1(numbers, numbers, numbers, len(names)), names, has_share=False)
    (folder / "README.md").write_text(card, encoding="utf-8")
    assert len(card.encode()) < 10_000  # the Hub refuses a README with all names (huggingface/datasets#7392)
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    env |= {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", LOAD_FULL_SIZE], cwd=tmp_path / "home", env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    number, first, last, seconds, character, two_tags = json.loads(done.stdout.splitlines()[-1])
    assert (number, first, last) == (14_413, names[:3], names[-1])
    assert isinstance(character, int) and set(two_tags) <= set(tags)
    print(f"load_dataset with 14,413 names: {seconds:.1f} s, the process {time.perf_counter() - start:.1f} s")

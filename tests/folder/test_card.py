"""The data set card: small, complete, and true to the folder it stands in."""

import json
import re
import shutil

import pytest
from datasets import load_dataset_builder
from dump_factory import Post, write_dump
from huggingface_hub import DatasetCard

from dataset_scripts.build_danmul import main
from dataset_scripts.folder.card import dataset_card, fingerprint, size_category
from dataset_scripts.mini_booru.__main__ import write_dump as write_mini_booru


@pytest.fixture
def folder(tmp_path):
    posts = [Post(i, ["alice"], ["x", "y"]) for i in range(1, 21)]
    dump = write_dump(tmp_path / "dump", posts)
    assert main(["--source", str(dump), "--output", str(tmp_path / "danmul"), "--workers", "1"]) == 0
    return tmp_path / "danmul"


def test_the_hub_reads_its_yaml(folder):
    data = DatasetCard.load(folder / "README.md").data.to_dict()
    assert data["license"] == "other" and data["size_categories"] == ["n<1K"]
    (config,) = data["configs"]
    assert config["default"] and [entry["split"] for entry in config["data_files"]] == ["train", "validation", "test"]


def test_every_file_it_names_is_there(folder):
    text = (folder / "README.md").read_text()
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (folder / target).is_file(), target
    for name in re.findall(r"`(\w+\.json)`", text):
        assert (folder / name).is_file(), name


def test_rows_bytes_and_features_are_known_before_anything_is_read(folder):
    info = load_dataset_builder(str(folder)).info
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        **{"train": 14, "validation": 1, "test": 5}
    }
    size = sum(path.stat().st_size for path in (folder / "data").glob("*.parquet"))
    assert info.download_size == sum(split.num_bytes for split in info.splits.values()) == size
    assert info.features["character"].names == ["alice"] and list(info.features)[-1] == "near_train"
    record, statistics = (json.loads((folder / f"{name}.json").read_text()) for name in ("build", "statistics"))
    many = dataset_card(record, statistics, [f"name_{number}" for number in range(14_413)], has_share=False)
    assert len(many) < 10_000 and "num_examples: 14" in many and "name_1" not in many


def test_share_is_named_only_where_it_is(folder):
    record, statistics = (json.loads((folder / f"{name}.json").read_text()) for name in ("build", "statistics"))
    without, with_share = (dataset_card(record, statistics, ["alice"], has_share=share) for share in (False, True))
    assert "share" not in without.split("---")[1]
    assert 'path: "share/test-*.parquet"' in with_share and 'load_dataset("danmul", "share"' in with_share


def test_nothing_of_a_dump_breaks_out_of_the_card(folder):
    record, statistics = (json.loads((folder / f"{name}.json").read_text()) for name in ("build", "statistics"))
    evil = "s`</p>\n# Free GPUs <script>{{ 7 * 7 }}</script>|\x1b[2J"
    record["counts"]["ratings"] = {evil: 3, "x" * 10_000: 1} | {f"r{i}": 1 for i in range(1000)}
    record["source"], record["options"]["like"], record["rules"][0]["rule"] = evil, evil, evil
    text = dataset_card(record, statistics, [evil], has_share=False)
    assert "<script>" not in text.split("\n---\n")[1] and len(text.split("\n---\n")) == 2
    text = dataset_card(record, statistics, ["alice"], has_share=False)
    assert "<script>" not in text and "\n# Free" not in text and "\x1b" not in text and len(text) < 10_000
    assert DatasetCard(text).data.to_dict()["license"] == "other"


def test_only_pictures_that_were_drawn_here_are_free(tmp_path):
    """By what the metadata are, not by what a folder is called."""
    drawn, renamed, others = tmp_path / "drawn", tmp_path / "my_dump", tmp_path / "mini_booru"
    write_mini_booru(drawn, 100, 0, 1)
    shutil.copytree(drawn, renamed)
    write_dump(others, [Post(i, ["alice"], ["x", "y"]) for i in range(1, 21)])
    shutil.copy(drawn / "mini_booru.json", others)
    licences = {}
    for dump in (renamed, others):
        flags = ["--source", str(dump), "--output", str(tmp_path / "danmul"), "--workers", "1", "--overwrite"]
        assert main([*flags, "--min_posts", "3"]) == 0
        licences[dump.name] = DatasetCard.load(tmp_path / "danmul" / "README.md").data.license
        assert json.loads((tmp_path / "danmul" / "build.json").read_text())["drawn"] is (dump == renamed)
    assert licences == {"my_dump": "apache-2.0", "mini_booru": "other"}


def test_fingerprint_tells_data_sets_apart():
    assert fingerprint({"shards": [{"sha256": "a"}]}) != fingerprint({"shards": [{"sha256": "b"}]})


@pytest.mark.parametrize("number, name", [(999, "n<1K"), (1_000, "1K<n<10K"), (1_616_238, "1M<n<10M")])
def test_size_category(number, name):
    assert size_category(number) == name

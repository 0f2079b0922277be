"""The data set card: small, complete, and true to the folder it stands in."""

import json
import re

import pytest
from dump_factory import Post, write_dump
from huggingface_hub import DatasetCard

from dataset_scripts.build_danmul import main
from dataset_scripts.card import dataset_card, fingerprint, size_category


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


def test_share_is_named_only_where_it_is(folder):
    record, statistics = (json.loads((folder / f"{name}.json").read_text()) for name in ("build", "statistics"))
    without, with_share = (dataset_card(record, statistics, has_share=share) for share in (False, True))
    assert "share" not in without.split("---")[1]
    assert 'path: "share/test-*.parquet"' in with_share and 'load_dataset("danmul", "share"' in with_share


def test_fingerprint_tells_data_sets_apart():
    assert fingerprint({"shards": [{"sha256": "a"}]}) != fingerprint({"shards": [{"sha256": "b"}]})


@pytest.mark.parametrize("number, name", [(999, "n<1K"), (1_000, "1K<n<10K"), (1_616_238, "1M<n<10M")])
def test_size_category(number, name):
    assert size_category(number) == name

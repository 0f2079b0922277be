"""Tables I to III and Fig. 2, from arrays as the builder has them and from a folder as it lies there."""

import json

import numpy as np
import pytest
from dump_factory import Post, write_dump
from PIL import Image

from dataset_scripts import build_danmul
from dataset_scripts.describe import main, read_columns
from dataset_scripts.folder.statistics import PAPER_TABLE_1, table_1, table_1_markdown, table_3_markdown


@pytest.fixture
def folder(tmp_path):
    posts = [Post(i, ["a" if i < 40 else "b"], [f"tag_{j}" for j in range(i % 5)]) for i in range(1, 61)]
    dump = write_dump(tmp_path / "dump", posts)
    argv = ["--source", str(dump), "--output", str(tmp_path / "danmul"), "--workers", "1", "--tfidf_threshold", "0"]
    assert build_danmul.main(argv) == 0
    return tmp_path / "danmul"


def test_table_1_by_hand():
    splits, characters = np.array([0, 0, 0, 2, 1], np.int8), np.array([0, 0, 1, 0, 0])
    table = table_1(splits, characters, np.array([3, 0, 4, 5, 7]), num_characters=2)
    assert table["train"] == {
        "num_images": 3,
        "num_classes": 2,
        "images_per_class": {"min": 1, "max": 2, "mean": 1.5},
        "tags_per_image": {"min": 0, "max": 4, "mean": 2.333},
    }
    assert table["test"]["images_per_class"] == {"min": 0, "max": 1, "mean": 0.5}
    lines = table_1_markdown(table).splitlines()
    assert lines[2] == "| No.Image | 3 | 1 | 1 | 1,125,100 | 398,412 | 92,726 |"
    assert lines[-1] == "| Avg No. Tags / Image | 2.333 | 5.0 | 7.0 | 24.067 | 24.074 | 23.904 |"


def test_the_papers_numbers_add_up():
    assert sum(row[0] for row in PAPER_TABLE_1.values()) == 1_616_238


def test_the_folder_tells_what_the_builder_knew(folder, capsys):
    before = json.loads((folder / "statistics.json").read_text())
    figures = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    assert set(figures) == {"images_per_character.png", "tags_per_image.png"}
    (folder / "statistics.json").unlink()
    assert main(["--dataset", str(folder), "--dafre", str(folder)]) == 0
    assert json.loads((folder / "statistics.json").read_text()) == before
    assert figures == {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    output = capsys.readouterr().out
    assert "| DAF:re (paper) | 463,437 |" in output and "| danmul | 60 |" in output and "Table III" not in output
    splits, characters, tag_counts = read_columns(folder)
    assert len(splits) == len(characters) == len(tag_counts) == 60 and tag_counts.max() == 4


def test_figures_can_be_opened_and_are_not_empty(folder):
    for path in (folder / "figures").iterdir():
        with Image.open(path) as image:
            assert image.width > 600 and len(image.convert("RGB").getcolors(10**6)) > 20


def test_table_3():
    table = table_3_markdown({"share": {"images": 7, "classes": 3}}).splitlines()
    assert table[2:] == ["| Dan:share | 7 | 3 |", "| Dan:share (paper) | 22,629 | 2,623 |"]


def test_what_is_no_built_folder_is_refused(folder, tmp_path, capsys):
    assert main(["--dataset", str(tmp_path)]) == 2
    assert "has no build.json" in capsys.readouterr().err
    next((folder / "data").iterdir()).write_bytes(b"PAR1")
    assert main(["--dataset", str(folder)]) == 2
    assert "is no shard of a built data set" in capsys.readouterr().err

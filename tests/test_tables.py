"""The README's figures: from files, over seeds, and silent where nothing was measured."""

import json

import pytest

from modeling_mfdn.evaluation import tables


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    return tmp_path


def run(top1, error=0.25):
    scores = {"hamming_error": error, "miss_rate": 0.3, "mean_average_precision": 0.6}
    tags = {
        "num_tags": 25, **scores, "predict_nothing": {"hamming_error": 0.36},
        "most_frequent": {"miss_rate": 0.42, "mean_average_precision": 0.36},
    }  # fmt: skip
    image = {"top1_accuracy": top1, "top5_accuracy": 0.9, "tags": {"top25": tags, "top200": tags, "all": tags}}
    return {"image": image, "training": {"seconds": {"training": 90.0}}}


def test_seeds_are_averaged_and_counted(results):
    for name, top1 in (("embedded-vit", 0.8), ("embedded-vit-1", 0.9), ("emoji-mfdn", 0.25)):
        (results / f"{name}.json").write_text(json.dumps(run(top1)))
    rows = tables.accuracy().splitlines()[2:]
    assert rows == [
        "| embedded set | unimodal ViT | 2 | 85.0% ± 7.1 | 90.0% ± 0.0 | – | – |",
        "| emoji | **MFDN** | 1 | 25.0% | 90.0% | – | – |",
    ]


def test_table_6_shows_only_groups_that_a_system_knows(results):
    for name in ("embedded-mfdn", "embedded-label2label_25"):
        (results / f"{name}.json").write_text(json.dumps(run(0.8)))
    rows = tables.table_6().splitlines()
    assert rows[2] == "| Label2Label | 25 | 25.0% | 30.0% | 0.600 | – | – | – | 1.5 min |"
    assert rows[-2].startswith("| predicting nothing | – | 36.0% |")


def test_what_was_not_measured_says_so_and_unknown_blocks_are_refused(results):
    text = "a <!-- begin: stages -->old<!-- end: stages --> b"
    assert tables.render(text) == "a <!-- begin: stages -->\n*Not measured yet.*\n<!-- end: stages --> b"
    with pytest.raises(ValueError, match="'nonsense' is unknown"):
        tables.render("<!-- begin: nonsense --><!-- end: nonsense -->")

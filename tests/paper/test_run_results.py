"""Results of runs as two tables, and what a difference between two systems is worth."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_mfdn.paper.run_results import (
    collect,
    paired_difference,
    predictions_file,
    read_run_results,
    results_file,
    write_run_results,
)


def write_run(folder, run, split="test", post_ids=(1, 2, 5), image=("ann", "bob", "bob"), **results):
    """One run scored on pictures of ann, bob and eve."""
    (folder / run).mkdir(exist_ok=True)
    (folder / run / "results.json").write_text(json.dumps({"num_images": 2, "training": {"flags": ["--x"]}}))
    results |= {"num_images": len(post_ids), "split": split}
    (folder / run / results_file(split)).write_text(json.dumps(results))
    table = {"post_id": list(post_ids), "character": ["ann", "bob", "eve"], "image": list(image)}
    pq.write_table(pa.table(table), folder / run / predictions_file(split))


def test_both_tables_say_after_reading_what_they_said_when_written(tmp_path):
    write_run(tmp_path, "mfdn-0", loss=0.1234567891)
    write_run(tmp_path, "mfdn-1", image=("ann", "bob", "eve"))
    write_run(tmp_path, "mfdn-1", split="validation", post_ids=(7, 8, 9), image=("eve", "eve", "eve"))
    write_run(tmp_path, "mfdn_long-0")
    (tmp_path / "vit-0").mkdir()  # killed before it wrote anything
    write_run_results(collect(tmp_path), tmp_path)
    results = read_run_results(tmp_path)
    assert [(row["name"], row["seed"]) for row in results.rows] == [("mfdn", 0), ("mfdn", 1), ("mfdn_long", 0)]
    assert results.hits_of("mfdn", "image").tolist() == [[True, True, False], [True, True, True]]
    assert results.hits_of("mfdn", "image", "validation").tolist() == [[False, False, True]]
    assert results.hits_of("vit", "image") is None and results.hits_of("mfdn", "image+tags") is None
    first, second = results.runs("mfdn")
    assert (first["loss"], first["training"]) == (0.123457, {"flags": ["--x"]}) and "loss" not in second
    assert results.runs("mfdn", "share") == [] and read_run_results(tmp_path / "none").rows == []


def test_runs_on_other_pictures_are_never_compared(tmp_path):
    write_run(tmp_path, "mfdn-0")
    write_run(tmp_path, "vit-0", post_ids=(1, 2, 6))
    with pytest.raises(ValueError, match="vit-0 was scored on 3 pictures that are not the 3 of the other runs"):
        collect(tmp_path)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    """A hundred pairs of systems whose true difference is known."""
    rng = np.random.default_rng(3)
    pictures, covered = 400, 0
    for _ in range(100):
        easy = rng.random(pictures) < 0.7  # pictures that both see: pairing takes their noise away
        first, second = (easy | (rng.random(pictures) < share) for share in (0.5, 0.3))
        found = paired_difference(first[None], second[None])
        covered += found["low"] <= 0.3 * (0.5 - 0.3) <= found["high"]
    assert 88 <= covered <= 99


def test_pairing_narrows_and_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    easy = rng.random(2000) < 0.8
    first, second = np.stack([easy] * 3), np.stack([easy] * 3)
    first[:, :40] = True
    same = paired_difference(first, second)
    assert 0 < same["low"] <= same["difference"] <= same["high"] < 0.01
    unsteady = first.copy()
    unsteady[0, :100], unsteady[1, -100:] = True, False
    wide = paired_difference(unsteady, second)
    assert wide["high"] - wide["low"] > 3 * (same["high"] - same["low"])
    assert wide["by_seed"] == pytest.approx([hits.mean() - easy.mean() for hits in unsteady])
    assert paired_difference(second, first)["difference"] == -same["difference"]
    one = paired_difference(first[:1], second[:1])
    assert one["seeds"] == [1, 1] and one["low"] > 0
    with pytest.raises(ValueError, match="the same pictures, got 2000 and 7"):
        paired_difference(first, second[:, :7])

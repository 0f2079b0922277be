"""Tables IV to VI and the comparisons: from results of runs over seeds, with the paper's figures apart."""

import numpy as np
import pytest

from modeling_mfdn.paper.run_results import RunResults
from modeling_mfdn.paper.tables import ablations, cell_text, comparisons, markdown_table, table_4, table_5, table_6


def scores(top1, error=0.25, num_tags=300, precision=0.6):
    """What evaluate_mfdn.py writes of a modality."""
    measures = {"hamming_error": error, "miss_rate": 0.3, "mean_average_precision": precision}
    trivial = {
        "predict_nothing": {"hamming_error": 0.36},
        "most_frequent": {"miss_rate": 0.42, "mean_average_precision": 0.36},
    }
    sizes = {"top25": min(25, num_tags), "top200": min(200, num_tags), "all": num_tags}  # as TagMetrics writes them
    tags = {group: {"num_tags": size, **measures, **trivial} for group, size in sizes.items()}
    return {"top1_accuracy": top1, "top5_accuracy": 0.9, "macro_top1_accuracy": 0.8, "tags": tags}


def results_of(*runs, hits=None):
    """(run, top1, split, further arguments of `scores`) of one modality, "image"."""
    rows = {}
    for run, top1, split, further in runs:
        name, _, seed = run.rpartition("-")
        row = rows.setdefault(run, {"name": name, "seed": int(seed), "training": {}})
        row[split] = {"image": scores(top1, **further)}
    return RunResults(list(rows.values()), hits or {})


def test_seeds_are_averaged_counted_and_never_mixed_with_other_rows():
    runs = [("vit-0", 0.8), ("vit-2", 0.9), ("vit_dafre-0", 0.1), ("mfdn-10", 0.25)]
    rows = table_5(results_of(*((run, top1, "test", {}) for run, top1 in runs)))
    assert [row["system"] for row in rows] == ["unimodal ViT", "**MFDN**"]
    assert rows[0]["seeds"] == 2 and rows[0]["image: top-1"]["mean"] == pytest.approx(0.85)
    assert "| unimodal ViT | 2 | 85.0% ± 7.1 | 90.0% ± 0.0 |" in markdown_table(rows)
    assert rows[1]["with tags: top-1"] is None and rows[1]["paper: with tags"] == "89.87 %"


def test_the_share_is_another_table_with_other_figures_of_the_paper():
    results = results_of(("mfdn-0", 0.5, "share", {}))
    assert table_5(results) == []
    assert table_5(results, "share")[0]["paper: image"] == "85.21 %"


def test_table_4_compares_the_two_training_sets_on_the_share():
    rows = table_4(results_of(("vit_dafre-0", 0.5, "share", {}), ("vit-0", 0.75, "share", {})))
    assert [row["trained on"] for row in rows] == ["DAF:re-style", "Dan:mul"]
    assert [row["paper: top-1"] for row in rows] == ["82.68 %", "84.16 %"]


def test_table_6_takes_the_taggers_loss_weight_from_validation_and_not_from_test():
    runs = []
    for end, validation, test in (("", 0.5, 0.9), ("_03", 0.7, 0.1), ("_1", 0.6, 0.2)):
        runs.append((f"multi_label_bce{end}-0", 0.8, "test", {"error": test}))
        runs.append((f"multi_label_bce{end}-0", 0.8, "validation", {"precision": validation}))
    row, *_ = table_6(results_of(*runs))
    assert row["Hamming error"]["mean"] == 0.1 and row["system"].endswith("λ = 0.3")


def test_table_6_shows_a_system_where_it_knows_the_tags():
    runs = [("mfdn-0", 0.8, "test", {"error": 0.125}), ("label2label_25-0", 0.8, "test", {"num_tags": 25})]
    rows = {(row["tags scored"], row["system"]): row for row in table_6(results_of(*runs))}
    few, more, everything = "the 25 most frequent", "the 200 most frequent", "all"
    assert (few, "Label2Label") in rows and (more, "Label2Label") not in rows
    ours = [rows[group, "**MFDN**"] for group in (few, more, everything)]
    assert all(row["Hamming error"]["mean"] == 0.125 for row in ours)
    assert [row["paper: error"] for row in ours] == ["26.42 %", "28.73 %", None]
    nothing = rows[everything, "*nothing*"]
    assert nothing["Hamming error"]["mean"] == 0.36 and nothing["mAP"] is None and nothing["micro F1"] is None


def test_ingredients_are_called_as_they_are_asked_and_left_out_where_they_were_not_run():
    results = results_of(("linear-0", 0.5, "test", {}), ("mfdn-0", 0.25, "test", {}))
    rows = ablations(results, {"linear": "`--x`", "never_run": "`--y`", "mfdn": "(as it is)"})
    assert [(row["flags"], row["image: top-1"]["mean"]) for row in rows] == [("`--x`", 0.5), ("(as it is)", 0.25)]
    assert rows[0]["tag mAP"] == 0.6 and rows[0]["validation: image"] is None


def test_a_difference_whose_interval_holds_0_is_called_none():
    vit = np.arange(1000) % 10 < 8  # 80 %
    better, level = vit.copy(), vit.copy()
    better[:100], level[:3], level[-4:] = True, False, True
    hits = {"vit-0 image": vit, "mfdn-0 image": level, "both_ends-0 image": better}
    validation = {"mfdn-0 image": vit, "hold_30-0 image": ~vit}
    tags = {"label2label_25-0 found_top25": level - 0.25 * vit, "mfdn-0 found_top25": level * 1.0}
    runs = [(name, 0.5, "test", {}) for name in ("vit-0", "mfdn-0", "both_ends-0", "label2label_25-0")]
    runs.append(("hold_30-0", 0.5, "test", {}))
    titles = {"label2label_25": "Label2Label", "hold_30": "`--mask_hold_from 0.3`"}
    results = results_of(*runs, hits={"test": hits | tags, "validation": validation})
    rows = {(row["question"], row["first"]): row for row in comparisons(results, titles)}
    assert len(rows) == 5, "pairs that were not run are left out"
    assert (rows["a", "**MFDN**"]["so"], rows["a", "**MFDN**"]["difference"]) == ("none", "−0.1")
    ahead = rows["a", "MFDN, `--recipe both_ends`"]
    assert (ahead["so"], ahead["difference"], ahead["pictures"], ahead["seeds"]) == ("first ahead", "+2.0", 1000, "1")
    fewer = rows["VI", "Label2Label"]
    assert (fewer["difference"], fewer["measured"], fewer["so"]) == ("−20.0", "25 tags, image", "second ahead")
    behind = rows["c", "`--mask_hold_from 0.3`"]
    assert (behind["so"], behind["by seed"], behind["split"]) == ("second ahead", "−60.0", "validation")


def test_cells_say_percent_deviation_or_nothing():
    assert cell_text("x", {"mean": 0.5, "std": None}) == "50.0%"
    assert cell_text("x", {"mean": 0.5, "std": 0.0123}) == "50.0% ± 1.2"
    assert (cell_text("tag mAP", 0.1234), cell_text("minutes", 4.56), cell_text("x", None)) == ("0.123", "4.6", "–")
    with pytest.raises(FileNotFoundError):
        markdown_table([])

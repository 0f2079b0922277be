"""Tables IV to VI: from results files over seeds, with the paper's figures apart."""

import json

import pytest

from modeling_mfdn.evaluation.paper_tables import (
    CALIBRATED,
    SHARE,
    TEST,
    VALIDATION,
    ablations,
    cell_text,
    markdown,
    read_runs,
    table_4,
    table_5,
    table_6,
)


def write_run(folder, name, top1, file=TEST, error=0.25, num_tags=300, modality="image"):
    scores = {"hamming_error": error, "miss_rate": 0.3, "mean_average_precision": 0.6}
    trivial = {
        "predict_nothing": {"hamming_error": 0.36},
        "most_frequent": {"miss_rate": 0.42, "mean_average_precision": 0.36},
    }
    sizes = {"top25": min(25, num_tags), "top200": min(200, num_tags), "all": num_tags}  # as TagMetrics writes them
    tags = {group: {"num_tags": size, **scores, **trivial} for group, size in sizes.items()}
    accuracy = {"top1_accuracy": top1, "top5_accuracy": 0.9, "macro_top1_accuracy": 0.8}
    (folder / name).mkdir(exist_ok=True)
    run = {modality: accuracy | {"tags": tags}, "training": {"seconds": {"training": 90.0}}}
    (folder / name / file).write_text(json.dumps(run))


def test_seeds_are_averaged_counted_and_never_mixed_with_other_rows(tmp_path):
    for name, top1 in (("vit-0", 0.8), ("vit-2", 0.9), ("vit_dafre-0", 0.1), ("mfdn-10", 0.25)):
        write_run(tmp_path, name, top1)
    rows = table_5(tmp_path)
    assert [row["system"] for row in rows] == ["unimodal ViT", "**MFDN**"]
    assert rows[0]["seeds"] == 2 and rows[0]["image: top-1"]["mean"] == pytest.approx(0.85)
    assert "| unimodal ViT | 2 | 85.0% ± 7.1 | 90.0% ± 0.0 |" in markdown(rows)
    assert rows[1]["with tags: top-1"] is None and rows[1]["paper: with tags"] == "89.87 %"
    assert len(read_runs(tmp_path, "vit")) == 2


def test_the_share_is_another_table_with_other_figures_of_the_paper(tmp_path):
    write_run(tmp_path, "mfdn-0", 0.5, file=SHARE)
    assert table_5(tmp_path) == []
    assert table_5(tmp_path, SHARE)[0]["paper: image"] == "85.21 %"


def test_table_4_compares_the_two_training_sets_on_the_share(tmp_path):
    write_run(tmp_path, "vit_dafre-0", 0.5, file=SHARE)
    write_run(tmp_path, "vit-0", 0.75, file=SHARE)
    rows = table_4(tmp_path)
    assert [row["trained on"] for row in rows] == ["DAF:re-style", "Dan:mul"]
    assert [row["paper: top-1"] for row in rows] == ["82.68 %", "84.16 %"]


def test_table_6_takes_the_taggers_loss_weight_from_validation_and_not_from_test(tmp_path):
    for name, validation, test in (("bce", 0.5, 0.9), ("bce_03", 0.7, 0.1), ("bce_1", 0.6, 0.2)):
        write_run(tmp_path, f"multi_label_{name}-0", 0.8, error=test, file=CALIBRATED)
        write_run(tmp_path, f"multi_label_{name}-0", 0.8, file=VALIDATION)
        path = tmp_path / f"multi_label_{name}-0" / VALIDATION
        path.write_text(path.read_text().replace('precision": 0.6', f'precision": {validation}'))
    row, *_ = table_6(tmp_path)
    assert row["Hamming error"]["mean"] == 0.1 and row["system"].endswith("λ = 0.3")


def test_table_6_shows_a_system_where_it_knows_the_tags_and_prefers_fitted_thresholds(tmp_path):
    write_run(tmp_path, "mfdn-0", 0.8)
    write_run(tmp_path, "mfdn-0", 0.8, file=CALIBRATED, error=0.125)
    write_run(tmp_path, "label2label_25-0", 0.8, num_tags=25)
    rows = {(row["tags scored"], row["system"]): row for row in table_6(tmp_path)}
    few, more, everything = "the 25 most frequent", "the 200 most frequent", "all"
    assert (few, "Label2Label") in rows and (more, "Label2Label") not in rows
    ours = [rows[group, "**MFDN**"] for group in (few, more, everything)]
    assert all(row["Hamming error"]["mean"] == 0.125 for row in ours)
    assert [row["paper: error"] for row in ours] == ["26.42 %", "28.73 %", None]
    nothing = rows[everything, "*nothing*"]
    assert nothing["Hamming error"]["mean"] == 0.36 and nothing["mAP"] is None and nothing["micro F1"] is None


def test_ingredients_are_named_by_the_flags_of_their_runs(tmp_path):
    write_run(tmp_path, "linear-0", 0.5)
    write_run(tmp_path, "mfdn-0", 0.5)
    for name, flags in (("linear", "--mask_schedule linear_hold --crop_share 0.5 1"), ("mfdn", "")):
        path = tmp_path / f"{name}-0" / TEST
        run = json.loads(path.read_text())
        common = "--dataset danmul --recipe quick --seed 0 --evaluate_test --output_dir runs/x"
        run["training"]["flags"] = f"{common} {flags}".split()
        path.write_text(json.dumps(run))
    rows = ablations(tmp_path, ["linear", "mfdn", "never_run"])
    assert [row["flags"] for row in rows] == ["`--mask_schedule linear_hold --crop_share 0.5 1`", "(as it is)"]
    assert rows[0]["tag mAP"] == 0.6


def test_cells_say_percent_deviation_or_nothing():
    assert cell_text("x", {"mean": 0.5, "std": None}) == "50.0%"
    assert cell_text("x", {"mean": 0.5, "std": 0.0123}) == "50.0% ± 1.2"
    assert (cell_text("tag mAP", 0.1234), cell_text("minutes", 4.56), cell_text("x", None)) == ("0.123", "4.6", "–")
    with pytest.raises(FileNotFoundError):
        markdown([])

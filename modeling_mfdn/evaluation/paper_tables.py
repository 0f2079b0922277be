"""Tables IV, V and VI of the paper, and what the ingredients give, from the results files of runs and nothing else.

A folder of runs holds `NAME-SEED/results.json` (test split), maybe `results_share.json` (Dan:share) and
`results_calibrated.json` (test split again, thresholds fitted on validation), as
`python -m modeling_mfdn.evaluation.experiments` leaves them. Rows are dictionaries, column → cell; a cell is text, a
number, None, or a share in [0, 1] as `{"mean", "std" (None for one seed)}`. The paper's own figures stand in columns
that begin with "paper".
"""

import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path

SYSTEMS = {
    "vit": "unimodal ViT",
    "no_mlm": "MFDN without MLM",
    "mfdn": "**MFDN**",
    "both_ends": "MFDN, `--recipe both_ends`",
}
TAG_SYSTEMS = {
    "label2label_25": "Label2Label",
    "label2label_200": "Label2Label",
    "multi_label_bce": "multi-label classifier, BCE",
    "multi_label_asl": "multi-label classifier, asymmetric loss",
    "mfdn": "**MFDN**",
}
WEIGHTS = {"": 0.1, "_03": 0.3, "_1": 1, "_3": 3, "_10": 10}  # of the tag loss, by the end of a row's name
# Top-1 of Table V in percent: Dan:mul image, with tags, Dan:share image, with tags. ViT-L reads no tags.
PAPER_V = {
    "vit": (77.16, None, 84.16, None),
    "no_mlm": (41.22, 87.86, 50.11, 90.89),
    "mfdn": (78.33, 89.87, 85.21, 92.67),
}
# Table IV: top-1 and top-5 on Dan:share.
PAPER_IV = {
    ("vit_dafre", "image"): (82.68, 91.93), ("vit", "image"): (84.16, 92.13),
    ("no_mlm_dafre", "image+tags"): (87.93, 95.09), ("no_mlm", "image+tags"): (90.89, 96.31),
}  # fmt: skip
PAPER_VI = {  # "Error", in percent
    ("label2label_25", "top25"): 24.64, ("label2label_200", "top200"): 24.94,
    ("mfdn", "top25"): 26.42, ("mfdn", "top200"): 28.73,
}  # fmt: skip
TAG_GROUPS = {"top25": "the 25 most frequent", "top200": "the 200 most frequent", "all": "all"}
TAG_METRICS = {
    "Hamming error": "hamming_error",
    "miss rate": "miss_rate",
    "micro F1": "micro_f1",
    "macro F1": "macro_f1",
    "mAP": "mean_average_precision",
}
TEST, SHARE, CALIBRATED = "results.json", "results_share.json", "results_calibrated.json"
VALIDATION = "results_validation.json"


def read_runs(folder: Path, name: str, file: str = TEST) -> list[dict]:
    """The results of every seed of a row, in their order; [] if there is none."""
    found = {}
    for path in folder.glob(f"{name}-*/{file}"):
        seed = path.parent.name.removeprefix(f"{name}-")
        if seed.isdigit():
            found[int(seed)] = json.loads(path.read_text(encoding="utf-8"))
    return [found[seed] for seed in sorted(found)]


def spread(values: Iterable[float]) -> dict | None:
    """Mean and standard deviation of shares; None for none."""
    values = list(values)
    if not values:
        return None
    return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def of_runs(runs: list[dict], modality: str, metric: str) -> dict | None:
    """[`spread`] of a metric over the runs that have this modality."""
    return spread(run[modality][metric] for run in runs if modality in run)


def table_4(folder: Path) -> list[dict]:
    """Table IV: models trained on two data sets, scored on the posts that both test splits have."""
    rows = []
    for (name, modality), paper in PAPER_IV.items():
        runs = read_runs(folder, name, SHARE)
        if runs:
            rows.append({
                "modality": modality,
                "trained on": "DAF:re-style" if name.endswith("_dafre") else "Dan:mul",
                "seeds": len(runs),
                "top-1": of_runs(runs, modality, "top1_accuracy"),
                "top-5": of_runs(runs, modality, "top5_accuracy"),
                "paper: top-1": f"{paper[0]} %",
                "paper: top-5": f"{paper[1]} %",
            })  # fmt: skip
    return rows


def table_5(folder: Path, file: str = TEST) -> list[dict]:
    """Table V, its Dan:mul half; with `SHARE` its Dan:share half. Micro and macro (mean over characters) accuracy."""
    rows = []
    for name, title in SYSTEMS.items():
        runs = read_runs(folder, name, file)
        paper = PAPER_V.get(name, (None,) * 4)[2 if file == SHARE else 0 :]
        if runs:
            rows.append({
                "system": title,
                "seeds": len(runs),
                "image: top-1": of_runs(runs, "image", "top1_accuracy"),
                "top-5": of_runs(runs, "image", "top5_accuracy"),
                "macro": of_runs(runs, "image", "macro_top1_accuracy"),
                "with tags: top-1": of_runs(runs, "image+tags", "top1_accuracy"),
                "top-5 ": of_runs(runs, "image+tags", "top5_accuracy"),
                "macro ": of_runs(runs, "image+tags", "macro_top1_accuracy"),
                "paper: image": paper[0] and f"{paper[0]} %",
                "paper: with tags": paper[1] and f"{paper[1]} %",
            })  # fmt: skip
    return rows


def table_6(folder: Path) -> list[dict]:
    """Table VI, from the image alone: errors on the 25, 200 and all most frequent tags beside trivial predictors.

    Its epoch times are not here: wall times of runs side by side say little, tests/benchmarks/bench_tag_scaling.py
    measures a step of each system in one run. A system stands only where it was trained for all the tags of a group.
    """
    systems = {}
    for name, title in TAG_SYSTEMS.items():
        weight = best_on_validation(folder, name)
        if weight is not None:
            name, title = name + weight, f"{title}, λ = {WEIGHTS[weight]}"
        fitted = read_runs(folder, name, CALIBRATED)  # else Hamming error and F1 are those of threshold 0.35
        for run in (fitted or read_runs(folder, name))[:1]:
            if "tags" in run["image"]:
                systems[name] = (title, run["image"]["tags"])
    rows = []
    for group, tags_scored in TAG_GROUPS.items():
        size = max((tags[group]["num_tags"] for _, tags in systems.values()), default=0)
        known = {name: found for name, found in systems.items() if found[1][group]["num_tags"] == size}
        for name, (title, tags) in known.items():
            error = PAPER_VI.get((name, group))
            row = {"tags scored": tags_scored, "system": title, "trained for": tags["all"]["num_tags"]}
            rows.append(row | tag_cells(tags[group]) | {"paper: error": error and f"{error} %"})
        for _, tags in list(known.values())[:1]:
            for name, title in (("predict_nothing", "*nothing*"), ("most_frequent", "*the most frequent*")):
                row = {"tags scored": tags_scored, "system": title, "trained for": None}
                rows.append(row | tag_cells(tags[group][name]) | {"paper: error": None})
    return rows


def best_on_validation(folder: Path, name: str) -> str | None:
    """Of several tag-loss weights that were tried, the one whose row has the best mAP of 200 tags on validation."""
    scores = {
        weight: run["image"]["tags"]["top200"]["mean_average_precision"]
        for weight in WEIGHTS
        for run in read_runs(folder, name + weight, VALIDATION)[:1]
        if "tags" in run["image"]
    }
    return max(scores, key=scores.get) if len(scores) > 1 else None


def tag_cells(scores: dict) -> dict:
    """The metrics of one group of tags; None where a trivial predictor has none."""
    cells = {title: scores.get(metric) for title, metric in TAG_METRICS.items()}
    return {title: value if title == "mAP" or value is None else spread([value]) for title, value in cells.items()}


def ablations(folder: Path, names: Iterable[str]) -> list[dict]:
    """What the ingredients give: accuracy in both modalities, and tag mAP from the image alone; a row a name."""
    rows = []
    for name in names:
        runs = read_runs(folder, name)
        maps = [run["image"]["tags"]["all"]["mean_average_precision"] for run in runs if "tags" in run["image"]]
        if runs:
            rows.append({
                "flags": own_flags(runs[0]),
                "seeds": len(runs),
                "image: top-1": of_runs(runs, "image", "top1_accuracy"),
                "with tags: top-1": of_runs(runs, "image+tags", "top1_accuracy"),
                "tag mAP": statistics.mean(maps) if maps else None,
            })  # fmt: skip
    return rows


def own_flags(run: dict) -> str:
    """The flags of a run's training but for those that every run has: data, folder, recipe, seed."""
    common = ("dataset ", "output_dir ", "seed ", "evaluate_test ", "disable_tqdm ", "recipe quick ", "resume_from")
    common += ("bf16 ", "use_cpu ", "attn_implementation ")  # how, not what
    flags = re.sub(r"recipe quick (?=\w)", "recipe ", " ".join(run.get("training", {}).get("flags", [])))
    found = [f"--{part.strip()}" for part in flags.split("--")[1:] if not f"{part.strip()} ".startswith(common)]
    return f"`{' '.join(found)}`" if found else "(as it is)"


def cell_text(column: str, value) -> str:
    """A cell as Markdown: shares in percent with their deviation, – for nothing."""
    if value is None:
        return "–"
    if isinstance(value, dict):
        deviation = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
        return f"{value['mean']:.1%}{deviation}"
    if isinstance(value, float):
        return f"{value:.3f}" if "mAP" in column else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def markdown(rows: list[dict]) -> str:
    """A table; text to the left, numbers to the right.

    Raises:
        FileNotFoundError: there are no rows, that is no runs.
    """
    if not rows:
        raise FileNotFoundError("no run of this table")
    columns = list(rows[0])
    ruler = "|".join("---:" if re.match(r"[\d–]", cell_text(c, rows[0][c])) else "---" for c in columns)
    lines = [f"| {' | '.join(column.strip() for column in columns)} |", f"|{ruler}|"]
    lines += [f"| {' | '.join(cell_text(column, row[column]) for column in columns)} |" for row in rows]
    return "\n".join(lines)

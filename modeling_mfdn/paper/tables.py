"""Tables IV, V and VI of the paper, what the ingredients give, and paired comparisons, from results of runs alone.

`python -m modeling_mfdn.paper.runs` makes those results. Rows of a table are dictionaries, column → cell;
a cell is text, a number, None, or a share in [0, 1] as `{"mean", "std" (None for one seed)}`. The paper's own figures
stand in columns that begin with "paper".
"""

import re
import statistics
from collections.abc import Iterable, Mapping

from ..evaluation.metrics import TAG_GROUPS
from .run_results import RunResults, paired_difference

TITLES = {
    "vit": "unimodal ViT",
    "vit_equal": "unimodal ViT, the compute of MFDN",
    "vit_equal_both": "unimodal ViT, the compute of `both_ends`",
    "no_mlm": "MFDN without MLM",
    "mfdn": "**MFDN**",
    "both_ends": "MFDN, `--recipe both_ends`",
}
TAG_TITLES = {
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
    ("vit_dafre", "image"): (82.68, 91.93),
    ("vit", "image"): (84.16, 92.13),
    ("no_mlm_dafre", "image+tags"): (87.93, 95.09),
    ("no_mlm", "image+tags"): (90.89, 96.31),
}
PAPER_VI = {  # "Error", in percent
    ("label2label_25", "top25"): 24.64,
    ("label2label_200", "top200"): 24.94,
    ("mfdn", "top25"): 26.42,
    ("mfdn", "top200"): 28.73,
}
MEASURES = {
    "image": "character, image",
    "image+tags": "character, image+tags",
    "found_top25": "25 tags, image",
    "found_top200": "200 tags, image",
    "found_all": "all tags, image",
}
TAG_METRICS = {
    "Hamming error": "hamming_error",
    "miss rate": "miss_rate",
    "micro F1": "micro_f1",
    "macro F1": "macro_f1",
    "mAP": "mean_average_precision",
}
# (question, first system, second, what is measured, split): how much more often the first is right than the second,
# or how many more of a picture's tags it finds.
COMPARISONS = (
    ("IV", "vit", "vit_dafre", "image", "share"),
    ("IV", "no_mlm", "no_mlm_dafre", "image+tags", "share"),
    ("VI", "label2label_25", "mfdn", "found_top25", "test"),
    ("VI", "label2label_200", "mfdn", "found_top200", "test"),
    ("VI", "multi_label_bce", "mfdn", "found_all", "test"),
    ("VI", "multi_label_asl", "mfdn", "found_all", "test"),
    ("a", "mfdn", "vit", "image", "test"),
    ("a", "mfdn", "vit_equal", "image", "test"),
    ("a", "both_ends", "vit", "image", "test"),
    ("a", "both_ends", "vit_equal_both", "image", "test"),
    ("b", "mfdn", "no_mlm", "image+tags", "test"),
    ("b", "both_ends", "no_mlm", "image+tags", "test"),
    *(
        ("c", name, "mfdn", measure, "validation")
        for name in ("always_hidden", "hold_30", "hold_50", "weight_1", "frequency", "alphabetical")
        for measure in ("image", "image+tags", "found_all")
    ),
    *(
        ("d", name, "mfdn", measure, "test")
        for name in ("both_ends", "per_post_75", "two_passes", "constant_15", "linear", "peak_90", "decoder_3")
        for measure in ("image", "image+tags", "found_all")
    ),
    ("e", "finetune", "tuned_quick", "image", "test"),
    ("e", "finetune", "tuned_quick", "image+tags", "test"),
    ("e", "finetune_vit", "tuned_quick_vit", "image", "test"),
    ("e", "finetune", "finetune_vit", "image", "test"),
    *(
        ("f", f"tuned_{name}", "tuned_quick", measure, "validation")
        for name in ("rate", "fast", "cosine", "layers", "average", "rest", "frozen", "smooth")
        for measure in ("image", "image+tags")
    ),
    *(
        ("f", f"tuned_{name}", "finetune", measure, "validation")
        for name in ("small_crops", "large_crops", "whole", "cosine_average")
        for measure in ("image", "image+tags")
    ),
)


def spread(values: Iterable[float]) -> dict | None:
    """Mean and standard deviation of shares; None for none."""
    values = list(values)
    if not values:
        return None
    return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def of_runs(runs: list[dict], modality: str, metric: str) -> dict | None:
    """[`spread`] of a metric over the runs that have this modality."""
    return spread(run[modality][metric] for run in runs if modality in run)


def table_4(results: RunResults) -> list[dict]:
    """Table IV: models trained on two data sets, scored on the posts that both test splits have."""
    rows = []
    for (name, modality), paper in PAPER_IV.items():
        runs = results.runs(name, "share")
        if runs:
            rows.append(
                {
                    "modality": modality,
                    "trained on": "DAF:re-style" if name.endswith("_dafre") else "Dan:mul",
                    "seeds": len(runs),
                    "top-1": of_runs(runs, modality, "top1_accuracy"),
                    "top-5": of_runs(runs, modality, "top5_accuracy"),
                    "paper: top-1": f"{paper[0]} %",
                    "paper: top-5": f"{paper[1]} %",
                }
            )
    return rows


def table_5(results: RunResults, split: str = "test") -> list[dict]:
    """Table V, its Dan:mul half; on the split "share" its Dan:share half. Micro and macro accuracy (mean over
    characters)."""
    rows = []
    for name, title in TITLES.items():
        runs = results.runs(name, split)
        paper = PAPER_V.get(name, (None,) * 4)[2 if split == "share" else 0 :]
        if runs:
            rows.append(
                {
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
                }
            )
    return rows


def headline(results: RunResults, unseen: RunResults) -> list[dict]:
    """The systems of Table V: top-1 accuracy, from the image alone and with all tags; and how they meet characters
    that nobody trained."""
    rows = []
    for name, title in TITLES.items():
        runs, strangers = results.runs(name), unseen.runs(name)
        if runs:
            rows.append(
                {
                    "system": title,
                    "seeds": len(runs),
                    "image: top-1": of_runs(runs, "image", "top1_accuracy"),
                    "with tags: top-1": of_runs(runs, "image+tags", "top1_accuracy"),
                    "taught from 5": spread(run["few_shot"]["5"]["new"] for run in strangers),
                    "beside the trained": spread(run["few_shot"]["5"]["harmonic"] for run in strangers),
                }
            )
    return rows


def unseen_table(results: RunResults, titles: dict[str, str]) -> list[dict]:
    """Characters that nobody trained: refused, grouped, and learnt from 1, 5 and 10 pictures."""
    rows = []
    for name, title in titles.items():
        runs = [run for run in results.runs(name) if "open_set" in run]
        if not runs:
            continue
        row = {"system": title, "seeds": len(runs), "trained: top-1": of_runs(runs, "image", "top1_accuracy")}
        for key, column in (("auroc", "AUROC"), ("fpr95", "FPR95"), ("oscr", "OSCR"), ("adjusted_rand_index", "ARI")):
            row[column] = f"{statistics.mean(run['open_set'][key] for run in runs):.3f}"
        row |= {f"new: {k}": spread(run["few_shot"][k]["new"] for run in runs) for k in ("1", "5", "10")}
        for key, column in (("known_joint", "trained"), ("new_joint", "new"), ("harmonic", "harmonic")):
            row[f"5, {column}"] = spread(run["few_shot"]["5"][key] for run in runs)
        with_hints = [run["few_shot"]["5"]["hints"].get("4") for run in runs]
        row["with 4 tags"] = spread(found["harmonic"] for found in with_hints if found)
        rows.append(row)
    return rows


def table_6(results: RunResults) -> list[dict]:
    """Table VI, from the image alone: errors on the 25, 200 and all most frequent tags beside trivial predictors.

    Its epoch times are not here: wall times of runs side by side say little, tests/benchmarks/bench_tag_scaling.py
    measures a step of each system in one run. A system stands only where it was trained for all the tags of a group.
    """
    systems = {}
    for name, title in TAG_TITLES.items():
        weight = best_on_validation(results, name)
        if weight is not None:
            name, title = name + weight, f"{title}, λ = {WEIGHTS[weight]}"
        for run in results.runs(name)[:1]:
            if "tags" in run["image"]:
                systems[name] = (title, run["image"]["tags"])
    rows = []
    for group, number in TAG_GROUPS.items():
        tags_scored = f"the {number} most frequent" if number else "all"
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


def best_on_validation(results: RunResults, name: str) -> str | None:
    """Of several tag-loss weights that were tried, the one whose row has the best mAP of 200 tags on validation."""
    scores = {
        weight: run["image"]["tags"]["top200"]["mean_average_precision"]
        for weight in WEIGHTS
        for run in results.runs(name + weight, "validation")[:1]
        if "tags" in run["image"]
    }
    return max(scores, key=scores.get) if len(scores) > 1 else None


def tag_cells(scores: dict) -> dict:
    """The metrics of one group of tags; None where a trivial predictor has none."""
    cells = {title: scores.get(metric) for title, metric in TAG_METRICS.items()}
    return {title: value if title == "mAP" or value is None else spread([value]) for title, value in cells.items()}


def ablations(results: RunResults, titles: Mapping[str, str]) -> list[dict]:
    """What the ingredients give: accuracy in both modalities on test and validation, and tag mAP from the image
    alone; a row a name of `titles`."""
    rows = []
    for name, title in titles.items():
        runs, chosen = results.runs(name), results.runs(name, "validation")
        maps = [run["image"]["tags"]["all"]["mean_average_precision"] for run in runs if "tags" in run["image"]]
        if runs:
            rows.append(
                {
                    "flags": title,
                    "seeds": len(runs),
                    "image: top-1": of_runs(runs, "image", "top1_accuracy"),
                    "with tags: top-1": of_runs(runs, "image+tags", "top1_accuracy"),
                    "tag mAP": statistics.mean(maps) if maps else None,
                    "validation: image": of_runs(chosen, "image", "top1_accuracy"),
                    "with tags": of_runs(chosen, "image+tags", "top1_accuracy"),
                }
            )
    return rows


def comparisons(results: RunResults, titles: Mapping[str, str]) -> list[dict]:
    """Two systems on the same pictures, a row each: the difference in points, its 95 % interval over pictures and
    seeds, and 'none' where that holds 0. A row is called as in Table V, or else by `titles`."""
    titles = dict(titles) | TITLES
    rows = []
    for question, first, second, measure, split in COMPARISONS:
        first += best_on_validation(results, first) or ""
        pair = [results.hits_of(name, measure, split) for name in (first, second)]
        if any(hits is None for hits in pair):
            continue
        found = paired_difference(*pair)
        low, high = found["low"], found["high"]
        rows.append(
            {
                "question": question,
                "first": titles[first],
                "second": titles[second],
                "measured": MEASURES[measure],
                "split": split,
                "pictures": pair[0].shape[1],
                "seeds": " and ".join(map(str, dict.fromkeys(found["seeds"]))),
                "difference": points(found["difference"]),
                "95 % interval": f"{points(low)} to {points(high)}",
                "by seed": " ".join(map(points, found["by_seed"])),
                "so": "none" if low <= 0 <= high else f"{'first' if low > 0 else 'second'} ahead",
            }
        )
    return rows


def points(share: float) -> str:
    """A difference in points of accuracy, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


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


def markdown_table(rows: list[dict]) -> str:
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

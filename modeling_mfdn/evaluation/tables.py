"""Renders the README's figures from files that commands wrote. Nobody types a number.

    python -m modeling_mfdn.evaluation.tables README.md

fills the blocks between `<!-- begin: NAME -->` and `<!-- end: NAME -->`: `parameters` from the configuration, the
others from the results in `model_cards/results/`, which are `results.json` files of train_mfdn.py and evaluate_mfdn.py
and the JSON of tests/benchmarks, copied there under the names below.
"""

import json
import re
import statistics
import sys
from pathlib import Path

import torch

from ..configuration_mfdn import MFDNConfig
from ..modeling_mfdn import MFDNModel
from .figures import hints_curve

FIGURES = Path(__file__).parents[2] / "model_cards" / "figures"
RESULTS = Path(__file__).parents[2] / "model_cards" / "results"
SYSTEMS = {"vit": "unimodal ViT", "no_mlm": "MFDN without MLM", "mfdn": "**MFDN**"}
TAG_SYSTEMS = {
    "label2label_25": "Label2Label",
    "label2label_200": "Label2Label",
    "multi_label_bce": "multi-label classifier, BCE",
    "multi_label_asl": "multi-label classifier, asymmetric loss",
    "mfdn": "**MFDN**",
}
DATASETS = {"embedded": "embedded set", "emoji": "emoji"}


def parameters() -> str:
    """Parts of the paper's model and their parameters, counted on the meta device."""
    with torch.device("meta"):
        model = MFDNModel(MFDNConfig())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    rows = [f"| `{name}` | {count / 1e6:.1f} M |" for name, count in counts.items()]
    return "\n".join(["| part | parameters |", "|---|---:|", *rows, f"| all | {model.num_parameters() / 1e6:.1f} M |"])


def accuracy() -> str:
    """Table V: top-1 and top-5 of every system in both modalities, mean and standard deviation over the seeds."""
    rows = [
        "| data set | system | seeds | image: top-1 | top-5 | with tags: top-1 | top-5 |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for dataset, dataset_name in DATASETS.items():
        for system, system_name in SYSTEMS.items():
            runs = read_seeds(f"{dataset}-{system}")
            cells = [
                spread([run[modality][f"top{k}_accuracy"] for run in runs if modality in run])
                for modality in ("image", "image+tags")
                for k in (1, 5)
            ]
            if runs:  # else nobody has run it yet
                rows.append(f"| {dataset_name} | {system_name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def spread(values: list[float]) -> str:
    """Shares as percent, with their standard deviation where there are several; – for none."""
    if not values:
        return "–"
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1%}{deviation}"


def hints() -> str:
    """Top-1 accuracy on the embedded set by how many true tags are given: `evaluate_mfdn.py --hints`."""
    curves = read_hints()
    if not curves:
        raise FileNotFoundError("no run with --hints")
    numbers = list(next(iter(curves.values())))
    rows = [f"| true tags given | {' | '.join(numbers)} |", "|---|" + "---:|" * len(numbers)]
    rows += [f"| {name} | {' | '.join(f'{values[n]:.1%}' for n in numbers)} |" for name, values in curves.items()]
    return "\n".join(rows)


def read_hints() -> dict[str, dict[str, float]]:
    """The curves of the systems that have one."""
    files = {name: f"embedded-{system}-hints.json" for system, name in SYSTEMS.items()}
    return {name: read(file)["hints"] for name, file in files.items() if (RESULTS / file).exists()}


def table_6() -> str:
    """Table VI on the embedded set, from the image alone: errors on the 25 and 200 most frequent tags, and cost."""
    rows = [
        "| system | tags | top 25: Hamming error | miss rate | mAP | top 200: Hamming error | miss rate | mAP |"
        " training |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for system, name in TAG_SYSTEMS.items():
        for run in read_seeds(f"embedded-{system}")[:1]:
            tags, cells = run["image"]["tags"], []
            for group in ("top25", "top200"):
                scores = tags[group] if tags["all"]["num_tags"] >= int(group[3:]) else None
                cells += tag_cells(scores) if scores else ["–"] * 3
            minutes = run["training"]["seconds"]["training"] / 60
            rows.append(f"| {name} | {tags['all']['num_tags']} | {' | '.join(cells)} | {minutes:.1f} min |")
    if len(rows) == 2:
        raise FileNotFoundError("no run of Table VI")
    tags = read("embedded-mfdn.json")["image"]["tags"]
    trivial = [f"{tags[group]['predict_nothing']['hamming_error']:.1%}" for group in ("top25", "top200")]
    rows.append(f"| predicting nothing | – | {trivial[0]} | 100.0% | – | {trivial[1]} | 100.0% | – | – |")
    frequent = [tags[group]["most_frequent"] for group in ("top25", "top200")]
    cells = [f"– | {scores['miss_rate']:.1%} | {scores['mean_average_precision']:.3f}" for scores in frequent]
    rows.append(f"| predicting the most frequent | – | {' | '.join(cells)} | – |")
    return "\n".join(rows)


def tag_cells(scores: dict) -> list[str]:
    """Hamming error, miss rate and mean average precision."""
    rates = [f"{scores[name]:.1%}" for name in ("hamming_error", "miss_rate")]
    return [*rates, f"{scores['mean_average_precision']:.3f}"]


def metadata_cost() -> str:
    """The builder's metadata stage against the plain loop: bench_metadata.py."""
    rows = ["| posts | builder | peak memory | plain loop | ratio |", "|---:|---:|---:|---:|---:|"]
    for size in read("bench_metadata.json")["sizes"]:
        ours, plain = size["builder"], size.get("reference")
        cells = [f"{size['posts']:,}", f"{ours['seconds']:.1f} s", f"{ours['peak_mb']:,} MB"]
        cells += [f"{plain['seconds']:.1f} s", f"{size['ratio']:.1f}"] if plain else ["–", "–"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def shard_cost() -> str:
    """Writing shards against copying files, and what train-ready pictures gain: bench_shards.py."""
    figures = read("bench_shards.json")
    rows = ["| | ratio | |", "|---|---:|---:|"]
    for name, values in figures["writing"].items():
        what = f"{figures['pictures']:,} pictures, {name}"
        rows.append(f"| {what} | {values['ratio']:.2f} | {values['seconds']:.2f} s |")
    for name, values in figures["loading"].items():
        rows.append(f"| training batch, {name} | {values['ratio']:.2f} | {values['images_per_second']:,} images/s |")
    sizes = figures["bytes_of_a_picture"]
    rows.append(f"| bytes of a picture, train-ready | {sizes['train-ready'] / sizes['512 px']:.2f} | "
                f"{sizes['train-ready'] / 1000:.0f} kB |")  # fmt: skip
    return "\n".join(rows)


def stages() -> str:
    """Wall time of the one command."""
    seconds = read("embedded-mfdn.json")["training"]["seconds"]
    rows = [f"| {stage} | {value:.0f} s |" for stage, value in seconds.items()]
    total = sum(seconds.values())
    return "\n".join(["| stage | wall time |", "|---|---:|", *rows, f"| together | {total / 60:.1f} min |"])


def step_cost() -> str:
    """What hidden tags cost: bench_step.py's ratios."""
    figures = read("bench_step.json")
    rows = ["| | time / hiding nothing | ms an image |", "|---|---:|---:|"]
    for stage in ("training_step", "inference"):
        for name, value in figures[stage].items():
            milliseconds = 1000 * value["seconds"] / figures["batch_size"]
            rows.append(f"| {stage.replace('_', ' ')}, {name} | {value['ratio']:.2f} | {milliseconds:.1f} |")
    return "\n".join(rows)


def tag_slots() -> str:
    """Mean average precision of tags on validation, per slot order and aggregation (DESIGN decision 8)."""
    figures = read("tag_slots.json")
    aggregations = list(next(iter(figures.values())))
    rows = ["| tags fill the slots | " + " | ".join(aggregations) + " |", "|---|" + "---:|" * len(aggregations)]
    for order, values in figures.items():
        rows.append(f"| {order} | " + " | ".join(f"{values[name]:.3f}" for name in aggregations) + " |")
    return "\n".join(rows)


BLOCKS = {
    "parameters": parameters,
    "accuracy": accuracy,
    "hints": hints,
    "table_6": table_6,
    "metadata_cost": metadata_cost,
    "shard_cost": shard_cost,
    "stages": stages,
    "step_cost": step_cost,
    "tag_slots": tag_slots,
}


def read_seeds(name: str) -> list[dict]:
    """`NAME.json` (seed 0), `NAME-1.json`, …, as far as they are there."""
    found = []
    while (RESULTS / (file := f"{name}-{len(found)}.json" if found else f"{name}.json")).exists():
        found.append(read(file))
    return found


def read(name: str) -> dict:
    """One results file.

    Raises:
        FileNotFoundError: it says which command's output is missing.
    """
    path = RESULTS / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: copy the JSON of the run or benchmark there under this name.")
    return json.loads(path.read_text(encoding="utf-8"))


def render(text: str) -> str:
    """`text` with every known block filled anew; without its file a block says so; an unknown name is a ValueError."""

    def fill(match: re.Match) -> str:
        if match["name"] not in BLOCKS:
            raise ValueError(f"The block {match['name']!r} is unknown; known are {', '.join(BLOCKS)}.")
        try:
            block = BLOCKS[match["name"]]()
        except FileNotFoundError:
            block = "*Not measured yet.*"
        return f"<!-- begin: {match['name']} -->\n{block}\n<!-- end: {match['name']} -->"

    return re.sub(r"<!-- begin: (?P<name>\w+) -->.*?<!-- end: (?P=name) -->", fill, text, flags=re.DOTALL)


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    readme.write_text(render(readme.read_text(encoding="utf-8")), encoding="utf-8")
    if curves := read_hints():
        hints_curve({name.strip("*"): values for name, values in curves.items()}, FIGURES / "hints.png")

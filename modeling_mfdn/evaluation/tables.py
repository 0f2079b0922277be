"""Renders the README's figures from files that commands wrote. Nobody types a number.

    python -m modeling_mfdn.evaluation.tables README.md

fills the blocks between `<!-- begin: NAME -->` and `<!-- end: NAME -->`: `parameters` from the configuration, the
others from the results in `model_cards/results/`, which are `results.json` files of train_mfdn.py and evaluate_mfdn.py
and the JSON of tests/benchmarks, copied there under the names below.
"""

import json
import re
import sys
from pathlib import Path

import torch

from ..configuration_mfdn import MFDNConfig
from ..modeling_mfdn import MFDNModel

RESULTS = Path(__file__).parents[2] / "model_cards" / "results"
SYSTEMS = {"vit": "unimodal ViT", "no_mlm": "MFDN without MLM", "mfdn": "**MFDN**"}
DATASETS = {"embedded": "embedded set", "emoji": "emoji"}


def parameters() -> str:
    """Parts of the paper's model and their parameters, counted on the meta device."""
    with torch.device("meta"):
        model = MFDNModel(MFDNConfig())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    rows = [f"| `{name}` | {count / 1e6:.1f} M |" for name, count in counts.items()]
    return "\n".join(["| part | parameters |", "|---|---:|", *rows, f"| all | {model.num_parameters() / 1e6:.1f} M |"])


def accuracy() -> str:
    """Top-1 and top-5 of every system in both modalities, as Table V has them."""
    rows = ["| data set | system | image: top-1 | top-5 | with tags: top-1 | top-5 |", "|---|---|---:|---:|---:|---:|"]
    for dataset, dataset_name in DATASETS.items():
        for system, system_name in SYSTEMS.items():
            try:
                results = read(f"{dataset}-{system}.json")
            except FileNotFoundError:  # a row that nobody has run yet
                continue
            cells = [
                f"{results[modality][f'top{k}_accuracy']:.1%}" if modality in results else "–"
                for modality in ("image", "image+tags")
                for k in (1, 5)
            ]
            rows.append(f"| {dataset_name} | {system_name} | {' | '.join(cells)} |")
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
    "stages": stages,
    "step_cost": step_cost,
    "tag_slots": tag_slots,
}


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

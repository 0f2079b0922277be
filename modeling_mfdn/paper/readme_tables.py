"""Renders the figures of the README and of the results page from files that commands wrote. Nobody types a number.

    python -m modeling_mfdn.paper.readme_tables README.md model_cards/results/README.md

fills the blocks between `<!-- begin: NAME -->` and `<!-- end: NAME -->`: `parameters` from the configuration, the
others from the files in `model_cards/results/`: for each data set a folder with what the runner of the experiments
wrote (runs.jsonl, hits.parquet, comparisons.json), and the JSON of tests/benchmarks, copied there.
"""

import json
import re
import statistics
import sys
from pathlib import Path

import torch

from ..configuration_mfdn import MFDNConfig
from ..evaluation.figures import hints_curves
from ..modeling_mfdn import MFDNModel
from .cost_tables import COSTS, RESULTS
from .run_results import COMPARED, RunResults, read_run_results
from .runs import EXPERIMENTS, ablation_titles
from .tables import TITLES, ablations, headline, markdown_table, spread, table_4, table_5, table_6, unseen_table

FIGURES = Path(__file__).parents[2] / "model_cards" / "figures"
DATASETS = {"embedded": "embedded set", "emoji": "emoji"}


def results_of(name: str) -> RunResults:
    """The runs on one data set."""
    return read_run_results(RESULTS / name)


def of_datasets(table, *arguments) -> list[dict]:
    """A table of every data set, one below the other."""
    found = [(title, table(results_of(name), *arguments)) for name, title in DATASETS.items()]
    return [{"data set": title} | row for title, rows in found for row in rows]


def parameters() -> str:
    """Parts of the paper's model and their parameters, counted on the meta device."""
    with torch.device("meta"):
        model = MFDNModel(MFDNConfig())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    rows = [f"| `{name}` | {count / 1e6:.1f} M |" for name, count in counts.items() if count]
    return "\n".join(["| part | parameters |", "|---|---:|", *rows, f"| all | {model.num_parameters() / 1e6:.1f} M |"])


def headline_accuracy() -> str:
    """The systems of Table V on the embedded set, in the fewest columns."""
    return markdown_table(headline(results_of("embedded"), results_of("unseen/embedded")))


def unseen() -> str:
    """Characters that nobody trained: `evaluate_mfdn.py --unseen`."""
    titles = TITLES | {row.name: row.title for row in EXPERIMENTS if "unseen" in row.tables}
    return markdown_table(
        [
            {"data set": title} | row
            for name, title in DATASETS.items()
            for row in unseen_table(results_of(f"unseen/{name}"), titles)
        ]
    )


def compared() -> str:
    """The paired comparisons of both data sets, as the runner wrote them."""
    rows = []
    for name, title in DATASETS.items():
        path = RESULTS / name / COMPARED
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        rows += [{"data set": title} | row for row in found]
    return markdown_table(sorted(rows, key=lambda row: row["question"]))


def accuracy() -> str:
    """Table V on the test splits."""
    return markdown_table(of_datasets(table_5))


def accuracy_share() -> str:
    """Table V on Dan:share."""
    return markdown_table(table_5(results_of("embedded"), "share"))


def dataset_comparison() -> str:
    """Table IV."""
    return markdown_table(table_4(results_of("embedded")))


def tag_prediction() -> str:
    """Table VI."""
    return markdown_table(table_6(results_of("embedded")))


def runner() -> str:
    """What the runs cost: training, on the clock of each run."""
    rows = [row for name in DATASETS for row in results_of(name).rows if row["training"]]
    if not rows:
        raise FileNotFoundError("no run")
    minutes = sum(sum(row["training"]["seconds"].values()) * row["training"]["threads"] for row in rows) / 60
    made = sorted({f"{row['date'] or 'undated'} ({row['commit'] or 'no commit'})" for row in rows})
    return f"{len(rows)} runs, trained in {minutes / 60:.1f} hours of one core: {', '.join(made)}."


def ingredients() -> str:
    """What the ingredients give, on both data sets."""
    return markdown_table(of_datasets(ablations, ablation_titles()))


def hints() -> str:
    """Top-1 accuracy by how many true tags are given: `evaluate_mfdn.py --hints`."""
    found = read_hints()
    return markdown_table(
        [
            {"data set": dataset, "true tags given:": system} | {n: spread([value]) for n, value in values.items()}
            for dataset, systems in found.items()
            for system, values in systems.items()
        ]
    )


def read_hints() -> dict[str, dict[str, dict[str, float]]]:
    """{data set: {system: {number of tags: accuracy}}} of those that have been run."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for dataset, dataset_name in DATASETS.items():
        for system, name in TITLES.items():
            for run in results_of(dataset).runs(system)[:1]:
                if "hints" in run:
                    found.setdefault(dataset_name, {})[re.sub(r"[*`]", "", name)] = run["hints"]
    return found


def calibration() -> str:
    """Scores of the characters on the test split, before and after the temperature: `evaluate_mfdn.py --errors`."""
    rows = []
    for dataset, dataset_name in DATASETS.items():
        for system, name in TITLES.items():
            found = [run["errors"] for run in results_of(dataset).runs(system) if "errors" in run]
            if not found:
                continue
            row = {"data set": dataset_name, "system": name, "seeds": len(found)}
            row["temperature"] = " ".join(f"{errors['temperature']:.2f}" for errors in found)
            for metric, title in (("negative_log_likelihood", "loss"), ("expected_calibration_error", "ECE")):
                for key, when in (("at_temperature_1", "before"), ("as_stored", "after")):
                    mean = statistics.mean(errors[metric][key] for errors in found)
                    row[f"{title} {when}"] = f"{mean:.3f}"
            rows.append(row)
    return markdown_table(rows)


BLOCKS = {
    "parameters": parameters,
    "headline": headline_accuracy,
    "comparisons": compared,
    "accuracy": accuracy,
    "hints": hints,
    "unseen": unseen,
    "accuracy_share": accuracy_share,
    "dataset_comparison": dataset_comparison,
    "tag_prediction": tag_prediction,
    "ingredients": ingredients,
    "runner": runner,
    "calibration": calibration,
} | COSTS


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
    for page in map(Path, sys.argv[1:]):
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
    if curves := read_hints():
        hints_curves(curves, FIGURES / "hints.png")

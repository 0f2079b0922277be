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
from .run_results import COMPARED, RunResults, read_run_results
from .runs import EXPERIMENTS, ablation_titles
from .tables import TITLES, ablations, headline, markdown_table, spread, table_4, table_5, table_6, unseen_table

FIGURES = Path(__file__).parents[2] / "model_cards" / "figures"
RESULTS = Path(__file__).parents[2] / "model_cards" / "results"
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
    rows.append(
        f"| bytes of a picture, train-ready | {sizes['train-ready'] / sizes['512 px']:.2f} | "
        f"{sizes['train-ready'] / 1000:.0f} kB |"
    )
    return "\n".join(rows)


def stages() -> str:
    """Wall time of the one command."""
    seconds = read("first_run.json")["training"]["seconds"]
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


def step_ratios(file: str, what: str, reference: str) -> str:
    """The training steps of a benchmark and their ratios."""
    steps = read(file)["training_step"]
    rows = [f"| {name} | {value['ratio']:.2f} | {1000 * value['seconds']:.0f} |" for name, value in steps.items()]
    return "\n".join([f"| {what} | time / {reference} | ms a step |", "|---|---:|---:|", *rows])


def precision_cost() -> str:
    """A step in bfloat16 on a CPU: bench_precision.py's ratios."""
    return step_ratios("bench_precision.json", "precision, attention", "default")


def systems_cost() -> str:
    """A step of each system of Table V: bench_systems.py's ratios."""
    return step_ratios("bench_systems.json", "training step", "ViT")


def trunk_cost() -> str:
    """A training step at real sizes against the ViT of the same trunk, with its peak memory: bench_trunks.py."""
    rows = []
    for title, entry in read("bench_trunks.json")["sizes"].items():
        size, pixels = title.split()
        row: dict = {"model size": size, "px": int(pixels), "batch": entry["batch_size"]}
        systems = entry["systems"]
        row |= {"rounds": entry["rounds"], "ViT: ms a picture": systems["ViT"]["ms_a_picture"]}
        for system in ("MFDN", "MFDN, one tag query"):
            row[f"{system}: time / ViT"] = f"{systems[system]['ratio']:.2f}"
        for system in ("ViT", "MFDN"):
            row[f"{system}: memory"] = f"{systems[system]['memory_gb']:.1f} GB"
            row[f"{system}: checkpointing"] = f"{systems[system]['memory_gb_checkpointing']:.1f} GB"
        rows.append(row)
    return markdown_table(rows)


def tag_slots() -> str:
    """Mean average precision of tags on validation, per slot order and aggregation (DESIGN decision 8)."""
    figures = read("tag_slots.json")
    aggregations = list(next(iter(figures.values())))
    rows = ["| tags fill the slots | " + " | ".join(aggregations) + " |", "|---|" + "---:|" * len(aggregations)]
    for order, values in figures.items():
        rows.append(f"| {order} | " + " | ".join(f"{values[name]:.3f}" for name in aggregations) + " |")
    return "\n".join(rows)


def tag_scaling() -> str:
    """A training step by the number of tags, against MFDN with as many: bench_tag_scaling.py."""
    systems = read("tag_scaling.json")["systems"]
    rows = []
    for num_tags, ours in systems["mfdn"].items():
        row = {"tags": int(num_tags)}
        for name, title in (("mfdn", "MFDN"), ("multi_label", "multi-label"), ("label2label", "Label2Label")):
            point = systems[name].get(num_tags)
            row[f"{title}: time"] = point and f"{point['seconds'] / ours['seconds']:.2f}"
            row[f"{title}: memory"] = point and f"{point['peak_mb']:,} MB"
        rows.append(row)
    return markdown_table(rows)


def onnx_cost() -> str:
    """Latency against PyTorch (bench_onnx.py), and top-1 accuracy on the test split (onnx_export --dataset)."""
    graphs, exported = read("bench_onnx.json")["graphs"], read("onnx.json")["graphs"]
    rows = []
    for title, variants in graphs.items():
        graph = title.split(",")[0]
        for name, values in variants.items():
            entry = exported[graph].get({"ONNX": graph, "ONNX int8": f"{graph}_int8"}.get(name), {})
            rows.append(
                {
                    "graph": f"`{title.replace(',', '`,', 1)}",
                    "runs on": name,
                    "time": f"{values['ratio']:.2f}",
                    "latency": f"{1000 * values['seconds']:.1f} ms",
                    "size": f"{entry['bytes'] / 1e6:.1f} MB" if entry else None,
                    "top-1": spread([entry["top1_accuracy"]]) if entry else None,
                }
            )
    return markdown_table(rows)


def gallery_cost() -> str:
    """Teaching and ranking at full size: bench_gallery.py."""
    found = read("bench_gallery.json")
    return markdown_table(
        [
            {
                "teaching them, from embeddings": f"{found['teaching_seconds']:.1f} s",
                "ranking a picture": f"{1000 * found['ranking_seconds']:.0f} ms",
                "its forward": f"{1000 * found['forward_seconds']:.0f} ms",
                "share": f"{found['ranking_share_of_forward']:.1%}",
                "gallery": f"{found['gallery_mb']:.0f} MB",
                "threads": found["threads"],
            }
        ]
    )


def tagging_speed() -> str:
    """Pictures per second of `mfdn-tag`: bench_tagging.py."""
    rows = [
        {"": name, "time": f"{values['ratio']:.2f}", "pictures a second": round(values["pictures_per_second"])}
        for name, values in read("bench_tagging.json")["variants"].items()
    ]
    return markdown_table(rows)


def duplicates_found() -> str:
    """Planted copies that are found, by the bits that may differ: bench_duplicates.py."""
    by_distance = read("bench_duplicates.json")["planted"]["by_distance"]
    rows = []
    for name in next(iter(by_distance.values()))["recall"]:
        rows.append({"copy": name} | {f"{bits} bits": f"{v['recall'][name]:.0%}" for bits, v in by_distance.items()})
    for key, title in (("precision", "*precision*"), ("same_pose_taken_for_a_copy", "*another character, same pose*")):
        rows.append({"copy": title} | {f"{bits} bits": f"{v[key]:.1%}" for bits, v in by_distance.items()})
    return markdown_table(rows)


def duplicates_cost() -> str:
    """The search at full size, and what the hashes cost a build: bench_duplicates.py."""
    found = read("bench_duplicates.json")
    rows = []
    for name, values in found["search"].items():
        what = f"search of {values['hashes']:,} hashes, {name}"
        rows.append({"": what, "time": f"{values['seconds']:.0f} s", "memory": f"{values['peak_megabytes']:,} MB"})
    build = found["build"]
    row = {"": f"build of {build['posts']:,} posts / one without hashes", "time": f"{build['ratio']:.2f}"}
    return markdown_table([*rows, row | {"memory": None}])


def reading_cost() -> str:
    """Batches from the Parquet files against the Arrow copy: bench_reading.py."""
    found = read("bench_reading.json")
    rows = []
    for name, mixed in (("Arrow", "full shuffle"), ("Parquet", "row groups")):
        memory = found["megabytes"][name]
        rows.append(
            {
                "path": name,
                "images a second": f"{found['images_per_second'][name]:,.0f}",
                "ratio": f"{found['ratio']:.2f}" if name == "Parquet" else "1.00",
                "copied": f"{found['bytes_of_the_copy'][name] / 1e6:.0f} MB",
                "memory of an epoch": f"{memory['after_an_epoch'] - memory['opened']:,} MB",
                "pairs of one row group": f"{found['mixing'][mixed]['pairs_of_one_row_group']:.1%}",
                "move between epochs": f"{found['mixing'][mixed]['mean_move']:.1%}",
            }
        )
    return markdown_table(rows)


def append_cost() -> str:
    """What the Hub is sent again after new posts: bench_append.py."""
    found = read("bench_append.json")
    share = found.pop("share_of_new_posts")
    return markdown_table(
        [
            {
                "Parquet": name,
                "bytes": f"{values['bytes'] / 1e6:.0f} MB",
                f"sent again after {share:.0%} of new posts": f"{values['sent_again'] / 1e6:.1f} MB",
                "share": f"{values['share_sent_again']:.0%}",
            }
            for name, values in found.items()
        ]
    )


def rehearsal() -> str:
    """The whole way at the paper's size, and its growth from a quarter: bench_rehearsal.py."""
    sizes = read("bench_rehearsal.json")
    quarter, whole = (list(sizes.values())[place]["stages"] for place in (0, -1))
    rows = []
    for name, values in whole.items():
        row = {"stage": name, "wall": f"{values['wall_seconds'] / 60:.1f} min"}
        row |= {"CPU": f"{values['cpu_seconds'] / 60:.1f} min", "memory": f"{values['peak_megabytes']:,} MB"}
        row["disk"] = f"{values['disk_megabytes']:,} MB"
        for key, title in (("cpu_seconds", "CPU"), ("peak_megabytes", "memory")):
            row[f"{title} / that of a quarter"] = f"{values[key] / quarter[name][key]:.1f}"
        rows.append(row)
    return markdown_table(rows)


def real_pictures() -> str:
    """What the rehearsal left out, from what was measured on real pictures: bench_{shards,duplicates,rehearsal}.py."""
    whole, shards = read("bench_rehearsal.json")["1.0"], read("bench_shards.json")
    splits, build = whole["counts"]["splits"], read("bench_duplicates.json")["build"]
    pictures, minutes = sum(splits.values()), whole["stages"]["building"]["wall_seconds"] / 60
    speed = shards["loading"]["512 px"]["images_per_second"]
    rows = []
    for kind, size in shards["bytes_of_a_picture"].items():
        arithmetic = f"{pictures:,} × {size / 1000:.1f} kB"
        rows.append((f"disk, pictures {kind}", arithmetic, f"{pictures * size / 1e9:.0f} GB"))
    seconds = build["seconds"]["now"]
    hours = minutes / 60 + pictures * seconds / build["posts"] / 3600
    arithmetic = f"{minutes:.1f} min + {pictures:,} × {seconds:.2f} s / {build['posts']}"
    rows.append(("building, at most (start counted with each)", arithmetic, f"{hours:.1f} h"))
    for what, split in (("an epoch's pictures decoded", "train"), ("the test pictures decoded", "test")):
        value = f"{splits[split] / speed / 60:.0f} min of a core"
        rows.append((what, f"{splits[split]:,} / {speed:,} a second", value))
    return markdown_table([dict(zip(("of real pictures", "arithmetic", "result"), row, strict=True)) for row in rows])


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
    "metadata_cost": metadata_cost,
    "shard_cost": shard_cost,
    "stages": stages,
    "step_cost": step_cost,
    "precision_cost": precision_cost,
    "systems_cost": systems_cost,
    "trunk_cost": trunk_cost,
    "tag_scaling": tag_scaling,
    "tag_slots": tag_slots,
    "onnx_cost": onnx_cost,
    "tagging_speed": tagging_speed,
    "gallery_cost": gallery_cost,
    "duplicates_found": duplicates_found,
    "duplicates_cost": duplicates_cost,
    "reading_cost": reading_cost,
    "append_cost": append_cost,
    "rehearsal": rehearsal,
    "real_pictures": real_pictures,
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
    for page in map(Path, sys.argv[1:]):
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
    if curves := read_hints():
        hints_curves(curves, FIGURES / "hints.png")

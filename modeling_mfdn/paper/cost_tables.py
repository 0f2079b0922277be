"""The tables of what it costs: time, memory and bytes, from the JSON that tests/benchmarks wrote."""

import json
from pathlib import Path

from .tables import markdown_table, spread

RESULTS = Path(__file__).parents[2] / "model_cards" / "results"


def read(name: str) -> dict:
    """One results file.

    Raises:
        FileNotFoundError: it says which command's output is missing.
    """
    path = RESULTS / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: copy the JSON of the run or benchmark there under this name.")
    return json.loads(path.read_text(encoding="utf-8"))


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
            file = graph + name.removeprefix("ONNX").replace(" ", "_")
            entry = exported[graph].get(file, {}) if name.startswith("ONNX") else {}
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
    """Pictures per second of `mfdn tag`: bench_tagging.py."""
    rows = [
        {"": name, "time": f"{values['ratio']:.2f}", "pictures a second": round(values["pictures_per_second"])}
        for name, values in read("bench_tagging.json")["variants"].items()
    ]
    return markdown_table(rows)


def cold_start() -> str:
    """One picture by a process of its own: bench_tagging.py."""
    rows = [
        {"one picture": name, "processor time": f"{values['cpu_seconds']:.2f} s", "memory": f"{values['peak_mb']} MB"}
        for name, values in read("bench_tagging.json")["cold_start"].items()
    ]
    return markdown_table(rows)


def serving() -> str:
    """`mfdn serve` under load: bench_serve.py."""
    found = read("bench_serve.json")
    broken = sum(number for name, number in found["statuses"].items() if name.startswith("broken"))
    answered = {"whole 200", "broken 413", "broken 422"}
    lost = sum(number for name, number in found["statuses"].items() if name not in answered)
    memory, rate = found["memory_mb"], found["requests_per_second"]
    row = {
        "requests": f"{found['requests']:,}",
        "of them broken": f"{broken:,}",
        "lost": lost,
        "asked one by one": f"{rate['one_by_one']:.0f} / s",
        f"from {found['threads']} threads": f"{rate['together']:.0f} / s",
        "p50": f"{found['milliseconds']['p50']:.0f} ms",
        "p99": f"{found['milliseconds']['p99']:.0f} ms",
        "memory after a tenth": f"{memory[len(memory) // 10]:.0f} MB",
        "at the end": f"{memory[-1]:.0f} MB",
    }
    return markdown_table([row])


def reviewing() -> str:
    """Scripted keys and clicks on the page of `mfdn review`: bench_review.py."""
    found = read("bench_review.json")
    row = {
        "pictures": found["pictures"],
        "corrections": found["corrections"],
        "actions a picture": found["actions_a_picture"],
        "to open": f"{found['seconds_to_open']:.1f} s",
        "in all": f"{found['seconds_in_all']:.1f} s",
        "a picture": f"{found['milliseconds_a_picture']['median']} ms",
    }
    return markdown_table([row])


def wd_clients() -> str:
    """Programs for WD taggers on our graph, against the pipeline: compare_wd_clients.py."""
    rows = []
    for name, found in read("compare_wd_clients.json")["clients"].items():
        kinds = {"at the size of the model": "at_the_size_of_the_model", "as they are": "as_they_are"}
        differences = {f"pictures {title}": f"{found[key]['largest_difference']:.1e}" for title, key in kinds.items()}
        rows.append(
            {"program": f"{name.replace('_', '-')} {found['version']}", "pictures": found["pictures"]} | differences
        )
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


COSTS = {
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
    "cold_start": cold_start,
    "serving": serving,
    "reviewing": reviewing,
    "wd_clients": wd_clients,
    "gallery_cost": gallery_cost,
    "duplicates_found": duplicates_found,
    "duplicates_cost": duplicates_cost,
    "reading_cost": reading_cost,
    "append_cost": append_cost,
    "rehearsal": rehearsal,
    "real_pictures": real_pictures,
}

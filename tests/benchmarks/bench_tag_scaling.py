"""What one more tag costs: time and memory of a training step of MFDN, Label2Label and a multi-label classifier.

    python tests/benchmarks/bench_tag_scaling.py --output tag_scaling.json --figure tag_scaling.png

Each point is a fresh process (its peak memory is its own), the same batch, median of a few steps after a warm-up;
every tag of a post is hidden, as in the second half of MFDN's training. Label2Label is left out where its
self-attention over the tags would need more than --max_gb.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from modeling_mfdn.data.hidden_tags import hide_tags  # noqa: E402
from modeling_mfdn.training.recipes import MODEL_SIZES  # noqa: E402
from train_mfdn import SYSTEMS  # noqa: E402

LAYERS_OF_LABEL2LABEL = 3
NAMES = {"mfdn": "MFDN", "multi_label": "multi-label classifier", "label2label": "Label2Label"}


def child(system: str, num_tags: int, size: str, batch_size: int, steps: int) -> dict[str, float]:
    """Seconds of a step and peak memory in MB, of this process."""
    torch.manual_seed(0)
    config_class, model_class = SYSTEMS[system]
    config = config_class(**MODEL_SIZES[size], num_tags=num_tags, num_labels=100)
    model = model_class(config).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    input_ids = torch.full((batch_size, config.max_tag_tokens), config.pad_token_id)
    input_ids[:, 0], input_ids[:, 21] = config.cls_token_id, config.sep_token_id
    input_ids[:, 1:21] = torch.randint(config.num_special_tokens, config.vocab_size, (batch_size, 20))
    hidden, tag_labels = hide_tags(input_ids, 1.0, config)
    batch = {"pixel_values": torch.randn(batch_size, 3, config.image_size, config.image_size)}
    batch |= {"labels": torch.randint(0, 100, (batch_size,)), "tag_labels": tag_labels}
    if system == "mfdn":
        batch |= {"input_ids": hidden, "attention_mask": (input_ids != config.pad_token_id).long()}
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": round(statistics.median(seconds[1:]), 4), "peak_mb": round(peak)}


def expected_gb(num_tags: int, batch_size: int, heads: int) -> float:
    """Attention weights that Label2Label keeps for the backward pass, if attention keeps them (float32)."""
    return LAYERS_OF_LABEL2LABEL * batch_size * heads * num_tags**2 * 4 / 2**30


def draw(results: dict, path: str) -> None:
    """Time and memory over the number of tags, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, key, title in zip(
        figure.subplots(1, 2), ("seconds", "peak_mb"), ("seconds a training step", "peak memory, MB"), strict=True
    ):
        for (system, points), color in zip(results["systems"].items(), ("#2a8c82", "#d98a1f", "#2f6fb5"), strict=True):
            numbers = [int(number) for number in points]
            axes.plot(numbers, [point[key] for point in points.values()], "o-", color=color, label=NAMES[system])
        axes.set(xscale="log", yscale="log", xlabel="tags")
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6")
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tags", type=int, nargs="+", default=[25, 200, 1_000, 4_000, 25_404])
    parser.add_argument("--model_size", choices=list(MODEL_SIZES), default="small")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--max_gb", type=float, default=8.0)
    parser.add_argument("--output", help="write the figures to this JSON file")
    parser.add_argument("--figure", help="draw them into this PNG")
    parser.add_argument("--child", nargs=2, metavar=("SYSTEM", "TAGS"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        system, num_tags = args.child
        print(json.dumps(child(system, int(num_tags), args.model_size, args.batch_size, args.steps)))
        return {}
    heads = SYSTEMS["mfdn"][0](**MODEL_SIZES[args.model_size]).num_attention_heads
    results = {"model_size": args.model_size, "batch_size": args.batch_size, "systems": {name: {} for name in NAMES}}
    for num_tags in args.tags:
        for system in NAMES:
            if system == "label2label" and expected_gb(num_tags, args.batch_size, heads) > args.max_gb:
                print(
                    f"label2label with {num_tags:,} tags is left out: its attention alone may need "
                    f"{expected_gb(num_tags, args.batch_size, heads):.0f} GB"
                )
                continue
            command = [sys.executable, __file__, "--child", system, str(num_tags), "--model_size", args.model_size]
            command += ["--batch_size", str(args.batch_size), "--steps", str(args.steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            point = json.loads(done.stdout.splitlines()[-1])
            results["systems"][system][str(num_tags)] = point
            cost = f"{point['seconds']:8.3f} s  {point['peak_mb']:>7,} MB"
            print(f"{num_tags:>7,} tags  {NAMES[system]:<24} {cost}", flush=True)
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n")
    if args.figure:
        draw(results, args.figure)
    return results


if __name__ == "__main__":
    main()

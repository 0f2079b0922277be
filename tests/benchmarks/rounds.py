"""Timing of variants in turn."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def measure(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Medians of seconds and of the ratio to the first variant, after one round of warm-up."""
    seconds = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    reference = next(iter(seconds.values()))
    return {
        name: {
            "ratio": round(statistics.median(a / b for a, b in zip(values, reference, strict=True)), 3),
            "seconds": round(statistics.median(values), 4),
        }
        for name, values in seconds.items()
    }


def report_steps(args: argparse.Namespace, steps: dict[str, Callable[[], object]], **facts: str) -> dict:
    """Measure training steps, print them and write them, with `args` and `facts`, to `args.output` if it is given."""
    results = {name: value for name, value in vars(args).items() if name != "output"}
    results |= facts | {"training_step": measure(steps, args.rounds)}
    width = max(map(len, steps)) + 1
    for name, figures in results["training_step"].items():
        print(f"{name:{width}} {figures['ratio']:.2f} {1000 * figures['seconds']:.0f} ms")
    return written(results, args.output)


def written(results: dict, output: str | None) -> dict:
    """The results, written to a JSON file if one is named."""
    if output:
        Path(output).write_text(json.dumps(results, indent=2) + "\n")
    return results

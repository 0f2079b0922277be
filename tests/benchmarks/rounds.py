"""Timing of variants in turn."""

import statistics
import time
from collections.abc import Callable


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

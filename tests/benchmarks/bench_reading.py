"""Training batches from the Parquet files themselves against the Arrow copy that `load_dataset` makes.

    python tests/benchmarks/bench_reading.py --dataset danmul --output bench_reading.json

Both paths take their turn in each round: the same collator (decode, crop, colours) behind a DataLoader of as many
workers, shuffled. Memory is the peak of a process that reads an epoch, without decoding, beside what it needs to
start; mixing says how well a batch represents the set: the share of pairs in a batch that come from the same row
group, and how far a row moves from one epoch to the next, both beside a full shuffle.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import load_dataset
from torch.utils.data import DataLoader
from torch.utils.data.sampler import BatchSampler, RandomSampler

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from rounds import written  # noqa: E402

from modeling_mfdn import MFDNConfig  # noqa: E402
from modeling_mfdn.data.collator import MFDNCollator  # noqa: E402
from modeling_mfdn.data.dataset import COLUMNS, load_split, read_characters, read_tag_vocabulary  # noqa: E402
from modeling_mfdn.data.parquet_rows import LANES, WINDOW_ROWS, RowGroupBatches  # noqa: E402

EPOCH = """
import re, sys
sys.path.insert(0, {root!r})
from modeling_mfdn.data.dataset import COLUMNS, load_split
from modeling_mfdn.data.parquet_rows import RowGroupBatches
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
{open}
before = peak()
{read}
print(before, peak())
"""
OPEN = {
    "Parquet": 'rows = load_split({dataset!r}, "train")',
    "Arrow": "from datasets import load_dataset, Image\n"
    'rows = load_dataset({dataset!r}, split="train", cache_dir={cache!r}).select_columns(list(COLUMNS))'
    '.cast_column("image", Image(decode=False))',
}
READ = {
    "Parquet": "for batch in RowGroupBatches(rows, 64):\n    rows.__getitems__(batch)",
    "Arrow": "import numpy\norder = numpy.random.permutation(len(rows))\n"
    "for start in range(0, len(rows), 64):\n    rows[order[start : start + 64].tolist()]",
}


def arrow_rows(dataset: str, cache: str):
    """The split as it was read before: copied into a cache, mapped into memory."""
    from datasets import Image

    rows = load_dataset(dataset, split="train", cache_dir=cache).select_columns(list(COLUMNS))
    return rows.cast_column("image", Image(decode=False))


def peak_megabytes(path: str, dataset: str, cache: str) -> dict[str, float]:
    values = {"root": str(ROOT), "dataset": dataset, "cache": cache}
    code = EPOCH.format(root=str(ROOT), open=OPEN[path].format(**values), read=READ[path])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    return {"opened": round(before), "after_an_epoch": round(after)}


def mixing(batches: list[np.ndarray], again: list[np.ndarray], groups: np.ndarray) -> dict[str, float]:
    """Of one epoch, with the next."""
    same = [np.mean(groups[batch][:, None] == groups[batch][None, :]) for batch in map(np.asarray, batches)]
    places = [np.empty(len(groups), np.int64) for _ in range(2)]
    for place, epoch in zip(places, (batches, again), strict=True):
        place[np.concatenate(epoch)] = np.arange(len(groups))
    return {
        "pairs_of_one_row_group": round(float(np.mean(same)), 4),
        "mean_move": round(float(np.abs(places[0] - places[1]).mean() / len(groups)), 4),
    }


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="danmul")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each, after one of warm-up")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    cache = tempfile.mkdtemp(prefix="bench_reading_")
    try:
        parquet, arrow = load_split(args.dataset, "train"), arrow_rows(args.dataset, cache)
        tags = read_tag_vocabulary(args.dataset)
        config = MFDNConfig(image_size=args.image_size, num_tags=len(tags), num_labels=len(read_characters(parquet)))
        collator = MFDNCollator(config, tags, training=True)
        options = {"collate_fn": collator, "num_workers": args.workers}
        shuffled = BatchSampler(RandomSampler(arrow), args.batch_size, drop_last=False)
        in_groups = RowGroupBatches(parquet, args.batch_size)
        loaders = {
            "Arrow": DataLoader(arrow, batch_sampler=shuffled, **options),
            "Parquet": DataLoader(parquet, batch_sampler=in_groups, **options),
        }
        speeds: dict[str, list[float]] = {name: [] for name in loaders}
        for epoch in range(args.rounds + 1):
            in_groups.set_epoch(epoch)
            for name, loader in loaders.items():
                start = time.perf_counter()
                number = sum(len(batch["labels"]) for batch in loader)
                if epoch:
                    speeds[name].append(number / (time.perf_counter() - start))
        ratios = [new / old for old, new in zip(speeds["Arrow"], speeds["Parquet"], strict=True)]
        epochs = []
        for epoch in range(2):
            in_groups.set_epoch(epoch)
            epochs.append(list(in_groups))
        files = sum(os.path.getsize(file) for file in parquet.files)
        copied = sum(path.stat().st_size for path in Path(cache).rglob("*.arrow"))
        results = {
            "images": len(parquet),
            "row_groups": len(parquet.group_places),
            "images_per_second": {name: round(statistics.median(values), 1) for name, values in speeds.items()},
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
            "bytes_of_the_files": files,
            "bytes_of_the_copy": {"Arrow": copied, "Parquet": 0},
            "megabytes": {name: peak_megabytes(name, args.dataset, cache) for name in loaders},
            "rows_mixed_at_a_time": LANES * WINDOW_ROWS,
            "mixing": {
                "full shuffle": mixing(list(shuffled), list(shuffled), parquet.groups()),
                "row groups": mixing(*epochs, parquet.groups()),
            },
        }
    finally:
        shutil.rmtree(cache)
    print(json.dumps(results, indent=2))
    return written(results, args.output)


if __name__ == "__main__":
    main()

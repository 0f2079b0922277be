"""Writing pictures into shards against copying them one by one, and what train-ready pictures gain in training.

    python tests/benchmarks/bench_shards.py --output bench_shards.json

Draws noisy 512 px JPEGs (about 100 kB each, as Danbooru's). Every variant of a stage takes its turn in each round, so
that a machine that slows down slows all of them; figures are medians of ratios to the first variant.
"""

import argparse
import json
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageFilter
from upath import UPath

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from rounds import measure, written  # noqa: E402

from dataset_scripts.dump.list_images import ImageFile  # noqa: E402
from dataset_scripts.folder.shards import ShardTask, danmul_schema, plan_path, write_shard  # noqa: E402
from modeling_mfdn import MFDNConfig  # noqa: E402
from modeling_mfdn.data.collator import MFDNCollator  # noqa: E402
from tests.textbook import TextbookCollator  # noqa: E402


def draw_pictures(folder: Path, number: int) -> list[Path]:
    """Smooth shapes with a little noise, 512 px, JPEG of quality 90, 4:4:4."""
    rng, paths = np.random.default_rng(0), []
    for i in range(number):
        small = Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8))
        image = small.resize((512, 512), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
        pixels = np.asarray(image, np.int16) + rng.integers(-7, 8, (512, 512, 3))
        path = folder / f"{i}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90, subsampling=0)
        paths.append(path)
    return paths


def shard_of(paths: list[Path], target: Path, short_side: int | None = None) -> ShardTask:
    ids = np.arange(len(paths))
    counts = np.full(len(paths), 24, np.int32)
    codes = np.tile(np.arange(24), len(paths))
    return ShardTask(
        str(target),
        danmul_schema(["alice", "bob"]),
        ids,
        [ImageFile(str(path)) for path in paths],
        ids % 2,
        ["s"] * len(paths),
        counts,
        codes,
        [f"tag_{i}" for i in range(24)],
        np.zeros((len(paths), 4), np.uint64),
        ids,
        np.zeros(len(paths), bool),
        short_side,
    )


def write(task: ShardTask) -> None:
    plan_path(UPath(task.path)).unlink(missing_ok=True)  # else it is taken for finished
    write_shard(task)


def copy(paths: list[Path], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in paths:
        shutil.copyfile(path, folder / path.name)


def pack(paths: list[Path], target: Path) -> None:
    with tarfile.open(target, "w") as tar:
        for path in paths:
            tar.add(path, path.name)


def rows_of(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1_000)
    parser.add_argument("--trained", type=int, default=256, help="pictures that are decoded for training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="bench_shards_"))
    try:
        (folder / "pictures").mkdir()
        (folder / "out" / "data").mkdir(parents=True)
        paths = draw_pictures(folder / "pictures", args.pictures)
        original = shard_of(paths, folder / "out" / "data" / "original.parquet")
        small = shard_of(paths[: args.trained], folder / "out" / "data" / "small.parquet", 160)
        results = {"pictures": args.pictures, "trained": args.trained, "rounds": args.rounds}
        results["bytes_of_a_picture"] = {"512 px": round(sum(path.stat().st_size for path in paths) / len(paths))}
        results["writing"] = measure(
            {
                "copying one by one": lambda: copy(paths, folder / "copied"),
                "tar": lambda: pack(paths, folder / "packed.tar"),
                "Parquet shard": lambda: write(original),
            },
            args.rounds,
        )
        write(original)
        start = time.perf_counter()
        write(small)
        results["making_train_ready_ms"] = round(1000 * (time.perf_counter() - start) / args.trained, 2)
        rows = {"512 px": rows_of(Path(original.path))[: args.trained], "train-ready": rows_of(Path(small.path))}
        sizes = [len(row["image"]["bytes"]) for row in rows["train-ready"]]
        results["bytes_of_a_picture"]["train-ready"] = round(statistics.mean(sizes))
        config = MFDNConfig(num_tags=24, num_labels=2)
        tags = [f"tag_{i}" for i in range(24)]
        textbook, ours = TextbookCollator(config, tags, training=True), MFDNCollator(config, tags, training=True)
        results["loading"] = measure(
            {
                "512 px, textbook": lambda: textbook(rows["512 px"]),
                "512 px": lambda: ours(rows["512 px"]),
                "train-ready": lambda: ours(rows["train-ready"]),
            },
            args.rounds,
        )
        for figures in results["loading"].values():
            figures["images_per_second"] = round(args.trained / figures["seconds"])
    finally:
        shutil.rmtree(folder)
    print(json.dumps(results, indent=2))
    return written(results, args.output)


if __name__ == "__main__":
    main()

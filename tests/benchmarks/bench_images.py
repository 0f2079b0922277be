"""Cost of getting images from bytes to a normalised batch: our own path against the textbook recipe, in one run.

Recipes are timed in turns, round after round, and in CPU time, so that other work on the machine disturbs little; the
medians are compared. Single-threaded: images per second and core.
"""

import argparse
import io
import json
import statistics
import time

import numpy as np
import torch
from PIL import Image, ImageDraw
from torchvision.transforms import v2

from modeling_mfdn import MFDNConfig
from modeling_mfdn.data.collator import MFDNCollator
from modeling_mfdn.data.dataset import load_split
from modeling_mfdn.data.images import apply_color
from tests.textbook import TextbookCollator

EXAMPLE = "example (one minute): python -m tests.benchmarks.bench_images --images 128 --rounds 5"


def draw_images(count: int, side: int, seed: int = 0) -> list[bytes]:
    """JPEGs with flat areas, lines, gradients and a little grain; about 100 kB at 512 pixels, as on Danbooru."""
    rng = np.random.default_rng(seed)
    encoded = []
    for _ in range(count):
        colors = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        picture = colors.resize((side, side), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(picture)
        for _ in range(60):
            box = np.sort(rng.integers(0, side, (2, 2)), axis=0).ravel().tolist()
            fill = tuple(rng.integers(0, 256, 3).tolist()) if rng.random() < 0.3 else None
            pen.ellipse(box, fill=fill, outline="black", width=int(rng.integers(1, 5)))
        grain = rng.normal(0, 2, (side, side, 1))
        picture = Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90, subsampling=0)
        encoded.append(file.getvalue())
    return encoded


def recipes(config: MFDNConfig) -> dict:
    """{name: rows → batch}. The first is the reference."""

    return {
        "textbook (torchvision on PIL)": TextbookCollator(config, ["tag"], training=True),
        "textbook, evaluation": TextbookCollator(config, ["tag"], training=False),
        "training": MFDNCollator(config, ["tag"], training=True),
        "evaluation, as it ships": MFDNCollator(config, ["tag"], training=False),
        "colour alone: ColorJitter per image": color_jitter_alone(config.image_size),
        "colour alone: one matrix per image": matrix_alone(config.image_size),
    }


def color_jitter_alone(size: int):
    pixels = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
    color = v2.Compose(
        [v2.ColorJitter(0.1, 0.1, 0.1, 0.1), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    )
    return lambda rows: torch.stack([color(pixels) for _ in rows])


def matrix_alone(size: int):
    matrix = torch.randn(3, 4)
    pixels = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
    return lambda rows: apply_color(pixels.expand(len(rows), -1, -1, -1), matrix.expand(len(rows), -1, -1))


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", help="time the images of this data set (default: draw some)")
    parser.add_argument("--split", default="train", help="of --dataset (default: %(default)s)")
    parser.add_argument("--images", type=int, default=256, help="images a round (default: %(default)s)")
    parser.add_argument("--side", type=int, default=512, help="side of drawn images in pixels (default: %(default)s)")
    parser.add_argument("--image_size", type=int, default=128, help="side after the crop (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="after one round of warm-up (default: %(default)s)")
    parser.add_argument("--output", help="also write the figures to this JSON file")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)

    if args.dataset:
        rows = [row | {"tags": []} for row in load_split(args.dataset, args.split)[: args.images]]
    else:
        rows = [
            {"post_id": i, "image": {"bytes": encoded, "path": None}, "character": 0, "tags": []}
            for i, encoded in enumerate(draw_images(args.images, args.side))
        ]
    to_time = recipes(MFDNConfig(image_size=args.image_size, num_tags=1, num_labels=2))
    seconds = {name: [] for name in to_time}
    for round_number in range(args.rounds + 1):
        for name, run in to_time.items():
            start = time.process_time()
            for first in range(0, len(rows), 64):
                run(rows[first : first + 64])
            if round_number:
                seconds[name].append(time.process_time() - start)

    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = medians["textbook (torchvision on PIL)"]
    figures = {
        name: {"images_per_second": len(rows) / median, "ratio": reference / median}
        for name, median in medians.items()
    }
    kilobytes = sum(len(row["image"]["bytes"]) for row in rows) / len(rows) / 1000
    print(f"{len(rows)} images of {kilobytes:.0f} kB → {args.image_size} px, CPU time, median of {args.rounds} rounds")
    print("\n| recipe | images/s | ms/image | speed |\n|---|---:|---:|---:|")
    for name, figure in figures.items():
        speed = figure["images_per_second"]
        print(f"| {name} | {speed:.0f} | {1000 / speed:.2f} | {figure['ratio']:.2f} |")
    results = {"images": len(rows), "kilobytes_per_image": kilobytes, "size": args.image_size, "recipes": figures}
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)
    return results


if __name__ == "__main__":
    main()

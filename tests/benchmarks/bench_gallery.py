"""What taught characters cost at full size: teaching 10,000 of them, ranking a picture against all, the file.

    python tests/benchmarks/bench_gallery.py --output bench_gallery.json

The reference is the forward of the paper's model, 14,413 characters and 25,404 tags, of one picture without tags;
weights and embeddings are noise, which costs what any costs. Times are medians.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from modeling_mfdn import MFDNConfig, MFDNModel
from modeling_mfdn.gallery_mfdn import Calibration, CharacterGallery, CharacterStatistics

NUM_TRAINED, NUM_TAUGHT, LESSON = 14_413, 10_000, 5


def median_seconds(run, times: int) -> float:
    """After one call to warm up."""
    run()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def noise_statistics(width: int) -> CharacterStatistics:
    return CharacterStatistics(
        mean=torch.zeros(2 * width),
        projection=torch.linalg.qr(torch.randn(2 * width, 2 * width))[0],
        spread=torch.linspace(9, 0.1, 2 * width),
        means=torch.randn(NUM_TRAINED, 2 * width).half(),
        counts=torch.full((NUM_TRAINED,), 30),
        calibration=Calibration(trained_likeness=0.1, taught_likeness=0.1, odd_likeness=-1e9),
        head_size=1.0,
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=9, help="forwards and rankings (default: 9)")
    parser.add_argument("--output", default="bench_gallery.json")
    args = parser.parse_args()
    torch.manual_seed(0)
    names = {label: f"character {label}" for label in range(NUM_TRAINED)}
    config = MFDNConfig(id2label=names, label2id={name: label for label, name in names.items()})
    model = MFDNModel(config).eval()
    pixels = torch.randn(1, 3, config.image_size, config.image_size)
    forward = median_seconds(lambda: model(pixel_values=pixels), args.times)
    outputs = model(pixel_values=pixels)

    gallery = CharacterGallery(noise_statistics(config.hidden_size))
    lessons = torch.randn(NUM_TAUGHT, LESSON, 2 * config.hidden_size)
    started = time.perf_counter()
    for number, lesson in enumerate(lessons):
        gallery.teach(f"taught {number}", lesson)
    teaching = time.perf_counter() - started

    def rank() -> torch.Tensor:
        z = gallery.statistics.axes(outputs.picture_embedding)
        scores = outputs.logits.softmax(dim=1)
        trained = gallery.statistics.trained_log_odds(z, scores)
        return torch.cat([scores.log() + trained[:, None], gallery.taught_log_odds(z)], dim=1).softmax(dim=1).topk(5)

    ranking = median_seconds(rank, args.times)
    file = Path(f"{args.output}.safetensors")
    gallery.save(file)
    found = {
        "threads": torch.get_num_threads(),
        "trained": NUM_TRAINED,
        "taught": NUM_TAUGHT,
        "teaching_seconds": round(teaching, 2),
        "forward_seconds": round(forward, 4),
        "ranking_seconds": round(ranking, 4),
        "ranking_share_of_forward": round(ranking / forward, 4),
        "gallery_mb": round(file.stat().st_size / 1e6, 1),
    }
    file.unlink()
    print(json.dumps(found, indent=2))
    Path(args.output).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Pictures per second of `mfdn-tag` against a plain loop over the pipeline, in one run.

    python tests/benchmarks/bench_tagging.py --model mfdn --pictures mini_booru/512px --output bench_tagging.json

Both decode, run the model and write one text file a picture; the time to load the model is in neither. Variants take
turns; figures are medians.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from rounds import measure
from torch.utils.data import DataLoader
from transformers import AutoModelForImageClassification

sys.path.insert(0, str(Path(__file__).parents[2]))

from modeling_mfdn import MFDNPipeline, MFDNProcessor  # noqa: E402
from modeling_mfdn.tagging.tag_files import Caption, Wording  # noqa: E402
from modeling_mfdn.tagging.tag_folder import Pictures, TagOptions, collate, find_pictures, results_of  # noqa: E402


def plain_loop(tagger: MFDNPipeline, paths: list[Path]) -> None:
    """What one would write in five minutes."""
    for path in paths:
        result = tagger(str(path))
        words = [result["characters"][0]["label"], *(tag["label"] for tag in result["tags"])]
        path.with_suffix(".txt").write_text(", ".join(words))


def command(model, processor: MFDNProcessor, paths: list[Path], options: TagOptions) -> None:
    """The loop of `mfdn-tag`."""
    hints: list[list[str]] = [[] for _ in paths]
    pictures = Pictures(paths, hints, processor)
    loader = DataLoader(pictures, options.batch_size, collate_fn=collate, num_workers=options.num_workers)
    wording = Wording(options, processor.tokenizer.get_vocab())
    for index, result, _ in results_of(model, processor, loader, hints, options):
        words = wording.words(*wording.chosen(result))
        Caption(paths[index].with_suffix(".txt"), [], False).replace(words, wording)


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pictures", required=True, help="folder; copied before anything is written beside them")
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    model = AutoModelForImageClassification.from_pretrained(args.model).eval()
    processor = MFDNProcessor.from_pretrained(args.model)
    tagger = MFDNPipeline(model=model, processor=processor)
    with tempfile.TemporaryDirectory() as work:
        for number, path in enumerate(find_pictures(Path(args.pictures), True)[0][: args.number]):
            shutil.copy(path, Path(work, f"{number}{path.suffix}"))
        paths, *_ = find_pictures(Path(work), False)
        variants = {"plain loop over the pipeline": lambda: plain_loop(tagger, paths)}
        for batch_size, workers in ((1, 0), (32, 0), (32, 1), (32, 2)):
            options = TagOptions(str(work), args.model, batch_size=batch_size, num_workers=workers)
            name = f"mfdn-tag, batches of {batch_size}, {workers} workers"
            variants[name] = lambda options=options: command(model, processor, paths, options)
        figures = measure(variants, args.rounds)
    results = {"pictures": len(paths), "threads": torch.get_num_threads(), "variants": figures}
    for name, values in figures.items():
        values["pictures_per_second"] = round(len(paths) / values["seconds"], 1)
        print(f"{name:<40} {values['ratio']:.2f}   {values['pictures_per_second']:.0f} pictures/s")
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n")
    return results


if __name__ == "__main__":
    main()

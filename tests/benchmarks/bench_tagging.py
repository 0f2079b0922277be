"""Pictures per second of `mfdn tag` against a plain loop over the pipeline, in one run; and what one picture costs.

    mfdn export --model mfdn --output mfdn_onnx --int8
    python tests/benchmarks/bench_tagging.py --model mfdn --onnx mfdn_onnx --pictures mini_booru/512px \
        --output bench_tagging.json

All decode, run the model and write one text file a picture; loading the model is in none. Variants take turns;
figures are medians. A cold start is a process of its own that tags one picture: its processor time and peak memory.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from rounds import measure
from transformers import AutoModelForImageClassification

sys.path.insert(0, str(Path(__file__).parents[2]))

from modeling_mfdn import MFDNPipeline, MFDNProcessor  # noqa: E402
from modeling_mfdn.publishing.onnx_tagger import OnnxTagger  # noqa: E402
from modeling_mfdn.tagging.picture_folder import find_pictures  # noqa: E402
from modeling_mfdn.tagging.tag_files import Caption, Wording  # noqa: E402
from modeling_mfdn.tagging.tag_folder import TagOptions  # noqa: E402
from modeling_mfdn.tagging.taggers import results_of  # noqa: E402
from modeling_mfdn.tagging.torch_tagger import TorchTagger  # noqa: E402

COMMAND = "import sys; sys.argv[0] = 'mfdn'; from modeling_mfdn.commands import main; sys.exit(main())"


def plain_loop(tagger: MFDNPipeline, paths: list[Path]) -> None:
    """What one would write in five minutes."""
    for path in paths:
        result = tagger(str(path))
        words = [result["characters"][0]["label"], *(tag["label"] for tag in result["tags"])]
        path.with_suffix(".txt").write_text(", ".join(words))


def command(tagger, paths: list[Path], options: TagOptions) -> None:
    """The loop of `mfdn tag`."""
    options.character_threshold = tagger.character_threshold
    wording = Wording(options, tagger.tags)
    for index, result, _ in results_of(tagger, paths, [[] for _ in paths], options):
        Caption(paths[index].with_suffix(".txt"), [], False).replace(wording.words(wording.chosen(result)), wording)


def cold_start(arguments: list[str], rounds: int) -> dict[str, float]:
    """Medians of processor seconds and peak MB of a process that tags one picture."""
    seconds, megabytes = [], []
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        peak = 0
        while process.poll() is None:
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            peak = max(peak, int(found[1]) if found else 0)
        if process.returncode:
            raise RuntimeError(f"{arguments} ended with {process.returncode}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        megabytes.append(peak / 1024)
    return {"cpu_seconds": round(statistics.median(seconds), 2), "peak_mb": round(statistics.median(megabytes))}


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--onnx", required=True, help="the same model, by mfdn export --int8")
    parser.add_argument("--pictures", required=True, help="folder; copied before anything is written beside them")
    parser.add_argument("--number", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    model = AutoModelForImageClassification.from_pretrained(args.model).eval()
    pipeline = MFDNPipeline(model=model, processor=MFDNProcessor.from_pretrained(args.model))
    with tempfile.TemporaryDirectory() as work:
        for number, path in enumerate(find_pictures(Path(args.pictures), True)[0][: args.number]):
            shutil.copy(path, Path(work, f"{number}{path.suffix}"))
        paths, *_ = find_pictures(Path(work), False)
        paths = [path for path in paths if is_whole(pipeline, path)]
        variants = {"plain loop over the pipeline": lambda: plain_loop(pipeline, paths)}
        torch_tagger = TorchTagger(TagOptions(work, args.model, device="cpu"))
        taggers = {"PyTorch": torch_tagger, "ONNX": OnnxTagger(args.onnx), "ONNX int8": OnnxTagger(args.onnx, "int8")}
        for name, tagger in taggers.items():
            for workers in (0, 2):
                options = TagOptions(work, args.model, num_workers=workers)
                title = f"mfdn tag, {name}, batches of {options.batch_size}, {workers} threads that decode"
                variants[title] = lambda tagger=tagger, options=options: command(tagger, paths, options)
        figures = measure(variants, args.rounds)
        one = Path(work, "one")
        one.mkdir()
        shutil.copy(paths[0], one)
        tag = ["-c", COMMAND, "tag", str(one), "--overwrite", "--model"]
        cold = {
            "mfdn tag, PyTorch": cold_start([*tag, args.model], args.rounds),
            "mfdn tag, ONNX": cold_start([*tag, args.onnx], args.rounds),
            "tag.py beside the graphs": cold_start([str(Path(args.onnx, "tag.py")), str(paths[0])], args.rounds),
            "mfdn tag --help": cold_start(["-c", COMMAND, "tag", "--help"], args.rounds),
        }
    results = {"pictures": len(paths), "threads": torch.get_num_threads(), "variants": figures, "cold_start": cold}
    for name, values in figures.items():
        values["pictures_per_second"] = round(len(paths) / values["seconds"], 1)
        print(f"{name:<70} {values['ratio']:.2f}   {values['pictures_per_second']:.0f} pictures/s")
    for name, values in cold.items():
        print(f"{name:<70} {values['cpu_seconds']:.2f} s of CPU, {values['peak_mb']} MB")
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n")
    return results


def is_whole(pipeline: MFDNPipeline, path: Path) -> bool:
    """The plain loop would end at a broken picture."""
    try:
        pipeline.processor(images=[str(path)])
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main()

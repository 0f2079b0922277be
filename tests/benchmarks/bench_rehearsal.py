"""The whole way at the paper's size, with small pictures: build, train, be killed, resume, evaluate, push.

    python tests/benchmarks/bench_rehearsal.py --work /big/disk/rehearsal --tag_counts tag_counts.csv \\
        --scale 0.25 1 --output bench_rehearsal.json

Generates a dump of 5 million records (general tags by real frequencies, 14,413 characters with a long tail on 1.6
million pictures of one kilobyte, drawn from a few thousand, in tars), and runs each stage as a user would, in a
process of its own. Of each: wall time, CPU time, peak memory (proportional share of all its processes, sampled) and
what it leaves on the disk. Takes hours and 15 GB.
"""

import argparse
import csv
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hub_server import running_hub  # noqa: E402

from dataset_scripts.rules.select_posts import EMOTICON_PATTERN, is_tag  # noqa: E402

POSTS, IMAGES, CHARACTERS, LARGEST, TAGS = 5_000_000, 1_616_238, 14_413, 42_582, 25_404  # paper Tables I and II
RARE = 0.02  # of all posts: with a character that has fewer than 10
SEVERAL = 0.2  # of all posts: with several characters
TAGS_A_POST, SPREAD = 25.5, 9.0  # drawn; a tag that is drawn twice counts once
DRAWINGS, SIDE = 4_000, 32
FILES = 20  # of metadata, and as many tars
STEPS, SAVED = 200, 100
EVALUATED = 20_000
NARROW = ("--model_size", "tiny", "--image_size", "32", "--crop_share", "1", "1", "--warmup_steps", "20", "--use_cpu")


# ---------------------------------------------------------------- the dump


def read_tag_names(path: str | None) -> tuple[list[str], np.ndarray]:
    """TAGS names of general tags and their shares, by a table of name, category and posts; without one a Zipf law."""
    if path is None:
        return [f"tag_{i:05d}" for i in range(TAGS)], 1 / (np.arange(TAGS) + 2.7)
    emoticon = re.compile(EMOTICON_PATTERN)
    with open(path, encoding="utf-8", newline="") as file:
        rows = [(name, int(posts)) for name, kind, posts in csv.reader(file) if kind == "0"]
    kept = [row for row in rows if is_tag(row[0]) and not emoticon.fullmatch(row[0])][:TAGS]
    return [name for name, _ in kept], np.array([posts for _, posts in kept], float)


def character_sizes(characters: int, images: int, largest: int) -> np.ndarray:
    """So many posts in all, by a power law from `largest` down to 10."""
    ranks = np.arange(characters) + 1.0
    low, high = 0.1, 3.0
    for _ in range(60):
        power = (low + high) / 2
        sizes = np.maximum(10, largest * ranks**-power)
        low, high = (power, high) if sizes.sum() > images else (low, power)
    sizes = np.maximum(10, np.floor(largest * ranks**-power)).astype(np.int64)
    sizes[1:101] += (images - sizes.sum()) // 100
    return sizes


def generate(folder: Path, scale: float, tag_counts: str | None) -> None:
    rng = np.random.default_rng(0)
    posts, images, characters = (round(number * scale) for number in (POSTS, IMAGES, CHARACTERS))
    sizes = character_sizes(characters, images, round(LARGEST * scale))
    rare = rng.integers(1, 10, round(posts * RARE / 5))
    who = np.repeat(np.arange(len(sizes) + len(rare)), np.concatenate([sizes, rare]))
    who = np.concatenate([who, np.full(round(posts * SEVERAL), -2)])
    who = rng.permutation(np.concatenate([who, np.full(posts - len(who), -1)])).astype(np.int32)
    names, weights = read_tag_names(tag_counts)
    parts = np.array_split(np.arange(posts), FILES)
    (folder / "metadata_2021").mkdir(parents=True)
    (folder / "512px").mkdir()
    with ProcessPoolExecutor(2) as pool:
        write = partial(write_part, folder, names, np.cumsum(weights) / weights.sum(), drawings())
        list(pool.map(write, range(FILES), [part + 1 for part in parts], [who[part] for part in parts]))


def drawings() -> list[bytes]:
    rng, found = np.random.default_rng(1), []
    for _ in range(DRAWINGS):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer := io.BytesIO(), "JPEG", quality=80)
        found.append(buffer.getvalue())
    return found


def write_part(folder, names, shares, pictures, number, ids, who) -> None:
    """A file of metadata, and the tar of its pictures: of posts of one character."""
    rng = np.random.default_rng([2, number])
    counts = np.clip(np.round(rng.normal(TAGS_A_POST, SPREAD, len(ids))), 0, 200).astype(np.int64)
    codes = np.searchsorted(shares, rng.random(counts.sum()))
    pairs = np.unique(np.repeat(np.arange(len(ids)), counts) * len(names) + codes)
    ends = np.searchsorted(pairs, np.arange(len(ids) + 1) * len(names))
    tags = np.array(names, object)[pairs % len(names)].tolist()
    drawn, ratings = (
        rng.integers(0, len(pictures), len(ids)),
        rng.choice(list("gsqe"), len(ids), p=[0.3, 0.5, 0.1, 0.1]),
    )
    parents = np.where(rng.random(len(ids)) < 0.08, np.maximum(1, ids - rng.integers(1, 50, len(ids))), 0)
    with (
        open(folder / "metadata_2021" / f"posts{number:012d}.json", "w", encoding="utf-8") as file,
        tarfile.open(folder / "512px" / f"{number:04d}.tar", "w") as tar,
    ):
        for row, post_id in enumerate(ids.tolist()):
            record = {
                "id": str(post_id),
                "rating": ratings[row],
                "parent_id": str(parents[row]),
                "md5": f"{post_id:032x}",
                "is_deleted": False,
                "tag_string_general": " ".join(tags[ends[row] : ends[row + 1]]),
                "tag_string_artist": f"artist_{post_id % 30_000}",
                "tag_string_meta": "highres",
            }
            code = who[row]
            if code >= 0:
                record["tag_string_character"] = f"character_{code:05d}_(series_{code % 2000})"
                record["tag_string_copyright"] = f"series_{code % 2000}"
                content = pictures[drawn[row]]
                member = tarfile.TarInfo(f"{post_id}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            elif code == -2:
                record["tag_string_character"] = f"character_{post_id % 900:05d} character_{post_id % 70:05d}_too"
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


# ---------------------------------------------------------------- the stages


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def memory_of(process: psutil.Process) -> int:
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


class Stages:
    """Runs them, and keeps what each of them took."""

    def __init__(self, work: Path):
        self.work, self.rows = work, {}
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(work / "home"), "HF_HUB_OFFLINE": "1"}

    def run(self, name: str, command: list[str], until: Callable[[], bool] | None = None, **environment: str) -> None:
        """`until`: kill it, and all that it has started, as soon as this is true."""
        before, disk, start = resource.getrusage(resource.RUSAGE_CHILDREN), size_of(self.work), time.perf_counter()
        log = open(self.work.with_name(f"{self.work.name}.log"), "a")  # noqa: SIM115
        process = subprocess.Popen(
            command, env=self.environment | environment, stdout=log, stderr=log, start_new_session=True, cwd=self.work
        )
        peak, done = 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(2):  # it halts what it looks at
                try:
                    peak = max(peak, memory_of(psutil.Process(process.pid)))
                except psutil.Error:
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        while until is not None and process.poll() is None and not until():
            time.sleep(0.5)
        if until is not None:
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        done.set()
        watcher.join()
        log.close()
        if code and until is None:
            raise SystemExit(f"{name} failed with {code}; see {log.name}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.rows[name] = {
            "wall_seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
            "peak_megabytes": round(peak / 1e6),
            "disk_megabytes": round((size_of(self.work) - disk) / 1e6),
        }
        print(name, self.rows[name], flush=True)


def rehearse(work: Path, scale: float, tag_counts: str | None) -> dict:
    """All stages at one size."""
    stages, python = Stages(work), sys.executable
    work.mkdir(parents=True)
    generate_it = [python, __file__, "--work", str(work), "--generate", str(scale)]
    stages.run("generating the dump", generate_it + (["--tag_counts", tag_counts] if tag_counts else []))
    build = [python, "-m", "dataset_scripts.build_danmul", "--source", "dump", "--output", "danmul"]
    stages.run("building", build)
    train = [python, str(ROOT / "train_mfdn.py"), "--dataset", "danmul", "--output_dir", "mfdn", *NARROW]
    train += ["--max_steps", str(STEPS), "--save_steps", str(SAVED), "--save_strategy", "steps"]
    train += ["--eval_strategy", "no", "--dataloader_num_workers", "1"]
    saved = work / "mfdn" / f"checkpoint-{SAVED}" / "trainer_state.json"
    stages.run(f"training, killed behind step {SAVED}", train, until=lambda: saved.exists() and is_old(saved, 5))
    stages.run(f"training on to step {STEPS}, statistics of characters", [*train, "--resume_from_checkpoint", "last"])
    evaluate = [python, str(ROOT / "evaluate_mfdn.py"), "--model", "mfdn", "--dataset", "danmul"]
    stages.run(f"evaluating {EVALUATED:,} posts, card", [*evaluate, "--max_images", str(EVALUATED)])
    with running_hub() as hub:
        local = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_local", "HF_HUB_OFFLINE": "0"}
        push = [
            python,
            "-c",
            "import sys; from modeling_mfdn.commands import main; sys.exit(main(sys.argv[1:]))",
            "push",
        ]
        stages.run("pushing the model", [*push, "model", "mfdn", "tester/mfdn"], **local)
        stages.run("pushing the data set", [*push, "dataset", "danmul", "tester/danmul"], **local)
    record = json.loads((work / "danmul" / "build.json").read_text())
    results = json.loads((work / "mfdn" / "results.json").read_text())
    return {
        "stages": stages.rows,
        "counts": record["counts"] | {"duplicates": record["duplicates"]},
        "table_1": json.loads((work / "danmul" / "statistics.json").read_text()),
        "parameters": json.loads((work / "mfdn" / "training.json").read_text())["parameters"],
        "top1_accuracy": results["image"]["top1_accuracy"],
    }


def is_old(path: Path, seconds: float) -> bool:
    return time.time() - path.stat().st_mtime > seconds


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=Path, help="folder that is made, and removed at the end")
    parser.add_argument("--scale", type=float, nargs="+", default=[0.25, 1.0], help="of the paper's size")
    parser.add_argument("--tag_counts", help="CSV of name, category and posts of real tags; without, a Zipf law")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    parser.add_argument("--generate", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file, after each size")
    args = parser.parse_args(argv)
    if args.generate:
        return generate(args.work / "dump", args.generate, args.tag_counts)
    tag_counts = args.tag_counts and str(Path(args.tag_counts).resolve())
    figures = {}
    for scale in args.scale:
        figures[str(scale)] = rehearse(args.work.resolve(), scale, tag_counts)
        if args.output:
            args.output.write_text(json.dumps(figures, indent=2) + "\n")
        if not args.keep:
            shutil.rmtree(args.work)


if __name__ == "__main__":
    main()

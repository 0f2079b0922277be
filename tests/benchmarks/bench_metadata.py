"""The metadata stage of the builder against a plain loop over json.loads: time, memory, and how both grow.

    python tests/benchmarks/bench_metadata.py --tag_counts tag_counts.csv --posts 250000 1000000 5000000 \\
        --output bench_metadata.json

Draws posts in the format of Danbooru2021 (about 2 kB each, 12 files) with the tags of a CSV (name,category,count; the
long tail of a real board), or of a Zipf law without it. Then each side runs in a fresh process: reading, every rule,
order, split; no images (three quarters of the ids count as present). Memory is the parent's peak plus, for each
worker, that of the largest one. Both sides must give the same posts, or this fails.
"""

import argparse
import csv
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from reference_build import reference  # noqa: E402

from dataset_scripts import build_danmul  # noqa: E402
from dataset_scripts.dump.find_dump import Dump  # noqa: E402
from dataset_scripts.dump.list_images import ImageListing  # noqa: E402
from dataset_scripts.folder.executors import open_executor  # noqa: E402
from dataset_scripts.rules.split_posts import SPLITS  # noqa: E402

FILES = 12
BLOCK = 20_000
TAGS_PER_POST, DEVIATION = 24, 9
HEAD = (
    '{"id":"%d","created_at":"2021-09-14 14:33:47.088 UTC","uploader_id":"350028","score":"1","source":'
    '"https://i.pximg.net/img-original/img/2021/09/14/00/00/00/92746321_p0.jpg","md5":"6a12e4916a12e4916a12e4916a12e491"'
    ',"last_commented_at":"1970-01-01 00:00:00 UTC","rating":"%s","image_width":"1402","image_height":"1283",'
    '"is_note_locked":false,"file_ext":"jpg","last_noted_at":"1970-01-01 00:00:00 UTC","is_rating_locked":false,'
    '"has_children":false,"approver_id":"0","file_size":"237334","is_status_locked":false,"up_score":"1",'
    '"down_score":"0","is_pending":false,"is_flagged":false,"is_deleted":%s,"updated_at":"2021-12-01 00:00:00 UTC",'
    '"is_banned":false,"pixiv_id":"92746321","tag_string":"%s","tag_string_general":"%s","tag_string_character":"%s",'
    '"tag_string_copyright":"original","tag_string_artist":"someone_%d","tag_string_meta":"highres translated"}\n'
)


def read_vocabulary(path: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Names (as they stand within JSON quotes) and cumulative shares of general and of character tags."""
    if path is None:
        counts = 3e6 / np.arange(1, 60_001)
        rows = [(f"tag_{i}", 0, count) for i, count in enumerate(counts)]
        rows += [(f"character_{i}", 4, count / 50) for i, count in enumerate(counts)]
    else:
        with open(path, encoding="utf-8", newline="") as file:
            rows = [(name, int(kind), float(count)) for name, kind, count in csv.reader(file) if kind in "04"]
    found = []
    for kind in (0, 4):
        chosen = [(json.dumps(name)[1:-1], count) for name, category, count in rows if category == kind and count > 0]
        shares = np.cumsum([count for _, count in chosen])
        found += [np.array([name for name, _ in chosen], object), shares / shares[-1]]
    return tuple(found)


def write_posts(folder: Path, number: int, tag_counts: str | None) -> int:
    """`number` posts in 12 files. Returns their bytes."""
    tags, tag_shares, characters, character_shares = read_vocabulary(tag_counts)
    (folder / "metadata").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in range(FILES):
        with (folder / "metadata" / f"posts{part:012d}.json").open("w", encoding="utf-8") as file:
            first, last = number * part // FILES, number * (part + 1) // FILES
            for start in range(first, last, BLOCK):
                ids = range(start + 1, min(start + BLOCK, last) + 1)
                counts = np.clip(rng.normal(TAGS_PER_POST, DEVIATION, len(ids)), 0, 90).astype(int)
                drawn = tags[np.searchsorted(tag_shares, rng.random(counts.sum()))]
                ends = np.cumsum(counts)
                kinds = np.searchsorted([0.2, 0.75], rng.random(len(ids)))  # none, one, two characters
                people = characters[np.searchsorted(character_shares, rng.random((len(ids), 2)))]
                ratings = rng.choice(["s", "q", "e"], len(ids), p=[0.75, 0.15, 0.1])
                deleted = rng.random(len(ids)) < 0.05
                lines = []
                for i, post_id in enumerate(ids):
                    general = " ".join(drawn[ends[i] - counts[i] : ends[i]])
                    named = " ".join(people[i, : kinds[i]])
                    state, artist = "true" if deleted[i] else "false", post_id % 9999
                    lines.append(HEAD % (post_id, ratings[i], state, f"{named} {general}", general, named, artist))
                file.write("".join(lines))
    return sum(path.stat().st_size for path in (folder / "metadata").iterdir())


def image_ids(number: int) -> np.ndarray:
    """Three quarters of the ids, sorted."""
    ids = np.arange(1, number + 1)
    return ids[ids % 4 != 0]


def run_builder(folder: Path, number: int, workers: int) -> tuple[float, list]:
    """Seconds of the stage, and its posts. The build runs as it is, but for the pictures."""
    kept = {}

    def keep(folder, posts, splits, *_):
        kept.update(posts=posts, splits=splits, seconds=time.perf_counter() - start)
        return []

    def no_pictures(posts, *_):
        return np.sort(posts.post_ids), np.ones(len(posts)), {}

    shutil.rmtree(folder / "danmul", ignore_errors=True)  # of the round before
    options = build_danmul.build_parser().parse_args(
        ["--source", str(folder), "--output", str(folder / "danmul"), "--workers", str(workers)]
    )
    start = time.perf_counter()
    with (
        mock.patch.object(Dump, "list_images", lambda *_: ImageListing(image_ids(number), 0)),
        mock.patch.object(build_danmul, "check_selected", no_pictures),
        mock.patch.object(build_danmul, "plan_shards", keep),
        open_executor("processes", workers) as executor,
    ):
        try:
            build_danmul.build(options, executor)
        except KeyError:  # the card wants shards; everything measured is done
            pass
    return kept["seconds"], kept["posts"], kept["splits"]


def rows_of(posts, splits) -> list:
    offsets = posts.offsets().tolist()
    names, codes = posts.tag_names, posts.tag_codes.tolist()
    return sorted(
        (
            post_id,
            posts.character_names[character],
            sorted(names[code] for code in codes[offsets[i] : offsets[i + 1]]),
            posts.rating_names[posts.ratings[i]],
            SPLITS[splits[i]],
        )
        for i, (post_id, character) in enumerate(zip(posts.post_ids.tolist(), posts.characters.tolist(), strict=True))
    )


def lines_of(folder: Path):
    for path in sorted((folder / "metadata").iterdir()):
        with path.open(encoding="utf-8") as file:
            yield from file


def child(side: str, folder: Path, number: int, workers: int, compare: bool) -> dict:
    """One side in this process: wall and CPU seconds, peak memory in MB, and a digest of its posts."""
    if side == "builder":
        seconds, posts, splits = run_builder(folder, number, workers)
        usage = measured(seconds, workers)
        rows = rows_of(posts, splits) if compare else []
    else:
        start = time.perf_counter()
        rows = reference(lines_of(folder), set(image_ids(number).tolist()), threshold=0.2)
        usage = measured(time.perf_counter() - start, 0)
    usage["posts"] = len(rows) if side != "builder" else len(posts)
    usage["digest"] = hashlib.sha256(repr(rows).encode()).hexdigest() if compare else None
    return usage


def measured(seconds: float, workers: int) -> dict:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    peak = own.ru_maxrss + (children.ru_maxrss * workers if workers > 1 else 0)
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_mb": round(peak / 1024)}


def run_child(side: str, folder: Path, number: int, workers: int, compare: bool) -> dict:
    argv = [sys.executable, __file__, "--child", side, "--folder", str(folder), "--posts", str(number)]
    argv += ["--workers", str(workers), *(["--compare"] if compare else [])]
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--tag_counts", help="CSV of name,category,count (default: a Zipf law)")
    parser.add_argument("--reference_max", type=int, default=1_000_000, help="largest number for the plain loop")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each side, in turn; the median counts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where posts are drawn (default: a temporary folder)")
    parser.add_argument("--output", help="write the figures to this JSON file")
    parser.add_argument("--child", choices=["builder", "reference"], help=argparse.SUPPRESS)
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print(json.dumps(child(args.child, Path(args.folder), args.posts[0], args.workers, args.compare)))
        return
    results = {"workers": args.workers, "rounds": args.rounds, "sizes": []}
    for number in args.posts:
        folder = Path(tempfile.mkdtemp(dir=args.folder, prefix="bench_metadata_"))
        try:
            size = {"posts": number, "bytes": write_posts(folder, number, args.tag_counts)}
            with_reference = number <= args.reference_max
            runs = {"builder": [], "reference": []}
            for _ in range(args.rounds):
                runs["builder"].append(run_child("builder", folder, number, args.workers, with_reference))
                if with_reference:
                    runs["reference"].append(run_child("reference", folder, number, args.workers, True))
                    if runs["reference"][-1]["digest"] != runs["builder"][-1]["digest"]:
                        raise SystemExit("The builder and the plain loop do not give the same posts.")
            for side, measurements in runs.items():
                if measurements:
                    size[side] = sorted(measurements, key=lambda run: run["seconds"])[len(measurements) // 2]
                    size[side].pop("digest")
            if with_reference:
                size["equal"] = True
                size["ratio"] = round(size["reference"]["seconds"] / size["builder"]["seconds"], 2)
            print(json.dumps(size), flush=True)
            results["sizes"].append(size)
        finally:
            shutil.rmtree(folder)
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

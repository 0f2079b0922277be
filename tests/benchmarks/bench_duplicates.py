"""Near-duplicates: what is found of planted copies, what the hashes cost a build, and the search at the paper's size.

    python tests/benchmarks/bench_duplicates.py --output bench_duplicates.json
    python tests/benchmarks/bench_duplicates.py --before OLDER_CHECKOUT    # the build beside that of an older checkout

The builds take their turn in each round. The search is of 1.6 million random hashes of which 5 % are copies with up to
6 other bits in each word, a third of them mirrored, and of as many that lie close to one another, as pictures do.
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

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from planted_copies import COPIES, drawings, jpeg  # noqa: E402
from rounds import written  # noqa: E402

from dataset_scripts.dump.check_images import check_content  # noqa: E402
from dataset_scripts.rules.near_duplicates import is_near  # noqa: E402

SEARCH = """
import json, resource, sys, time
sys.path.insert(0, {root!r})
import numpy as np
from dataset_scripts.rules.near_duplicates import MIRRORED_BITS, alike_pictures
rng, number = np.random.default_rng(0), {number}
hashes = rng.integers(1, 2**64, (number, 4), dtype=np.uint64)
if {alike}:  # {number} / 400 drawings of which each was changed in 12 bits: many lie within a few bits of many
    hashes[:, 0] = hashes[rng.integers(0, number // 400, number), 0]
    for _ in range(12):
        hashes[:, 0] ^= np.uint64(1) << rng.integers(0, 64, number, dtype=np.uint64)
copies = number // 20
source, place = rng.integers(0, number // 2, copies), np.arange(number // 2, number // 2 + copies)
changed = np.zeros((copies, 4), np.uint64)
for word in (0, 1, 2, 3):
    for _ in range(6):
        changed[:, word] |= np.uint64(1) << rng.integers(0, 64, copies, dtype=np.uint64)
hashes[place] = hashes[source] ^ changed
hashes[place[::3]] ^= MIRRORED_BITS
start = time.perf_counter()
characters = np.zeros(number, np.int64)  # the worst case: all of one
found = alike_pictures(hashes, characters, 6)
print(json.dumps({{
    "hashes": number,
    "seconds": round(time.perf_counter() - start, 1),
    "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    "planted_found": float((found[source] == found[place]).mean()),
    "sets": len(np.unique(found)),
}}))
"""


def planted(number: int) -> dict:
    """Recall of each kind of copy at each distance; pictures that are none and were taken for one."""
    pairs = drawings(number)
    hash_of = lambda content: np.array(check_content(content, hashes=True).picture_hash, np.uint64)  # noqa: E731
    own = np.array([hash_of(jpeg(picture)) for picture, _ in pairs])
    copied = {name: [hash_of(copy(picture)) for picture, _ in pairs] for name, copy in COPIES.items()}
    posed = [hash_of(jpeg(other)) for _, other in pairs]
    found = {}
    for distance in (4, 5, 6, 7):
        near = {name: np.stack([is_near(value, own, distance) for value in copied[name]]) for name in copied}
        right, all_near = sum(table.diagonal().sum() for table in near.values()), sum(map(np.sum, near.values()))
        same_pose = [is_near(value, own[[place]], distance)[0] for place, value in enumerate(posed)]
        among = sum(is_near(value, own[place + 1 :], distance).sum() for place, value in enumerate(own))
        found[str(distance)] = {
            "recall": {name: round(float(table.diagonal().mean()), 3) for name, table in near.items()},
            "precision": round(float(right / all_near), 4),
            "same_pose_taken_for_a_copy": round(float(np.mean(same_pose)), 3),
            "pairs_of_other_pictures": int(among),
        }
    return {"pictures": number, "by_distance": found}


def search(number: int, alike: bool) -> dict:
    code = SEARCH.format(root=str(ROOT), number=number, alike=alike)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def builds(before: Path, rounds: int) -> dict:
    """Seconds of the same build of 1,000 pictures by an older checkout and by this one."""
    work = Path(tempfile.mkdtemp(prefix="bench_duplicates_"))
    try:
        draw = [sys.executable, "-m", "dataset_scripts.mini_booru", "--output", str(work / "dump"), "--posts", "1230"]
        subprocess.run(draw, check=True, cwd=ROOT, capture_output=True)
        seconds: dict[str, list[float]] = {"before": [], "now": []}
        for turn in range(rounds + 1):
            for name, checkout in (("before", before), ("now", ROOT)):
                shutil.rmtree(work / "danmul", ignore_errors=True)
                command = [sys.executable, "-m", "dataset_scripts.build_danmul", "--source", str(work / "dump")]
                environment = os.environ | {"PYTHONPATH": str(checkout)}
                start = time.perf_counter()
                subprocess.run(
                    [*command, "--output", str(work / "danmul")],
                    check=True,
                    cwd=checkout,
                    env=environment,
                    capture_output=True,
                )
                if turn:
                    seconds[name].append(time.perf_counter() - start)
        posts = json.loads((work / "danmul" / "build.json").read_text())["counts"]["posts"]
    finally:
        shutil.rmtree(work)
    ratios = sorted(now / old for old, now in zip(seconds["before"], seconds["now"], strict=True))
    medians = {name: round(statistics.median(values), 2) for name, values in seconds.items()}
    return {"posts": posts, "seconds": medians, "ratio": round(statistics.median(ratios), 3), "ratios": ratios}


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100, help="that copies are made of (default: %(default)s)")
    parser.add_argument("--hashes", type=int, default=1_616_238, help="to search (default: %(default)s)")
    parser.add_argument("--before", type=Path, help="a checkout without picture hashes")
    parser.add_argument("--rounds", type=int, default=9, help="of the builds (default: %(default)s)")
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    results = {"planted": planted(args.pictures)}
    results["search"] = {name: search(args.hashes, name == "alike") for name in ("random", "alike")}
    if args.before:
        results["build"] = builds(args.before.resolve(), args.rounds)
    print(json.dumps(results, indent=2))
    return written(results, args.output)


if __name__ == "__main__":
    main()

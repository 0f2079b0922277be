"""The command line of `build_danmul`: every rule is an option, and the defaults are the paper's values."""

from __future__ import annotations

import argparse
import re

from dataset_scripts.dump.find_dump import FORMATS
from dataset_scripts.folder.executors import EXECUTORS
from dataset_scripts.rules.near_duplicates import DISTANCE, MAX_DISTANCE
from dataset_scripts.rules.select_posts import EMOTICON_PATTERN, LOG_BASES

HELP = """Build the data set Dan:mul from a dump. Defaults are the rules of paper §III.A; every rule reports its count.

DUMP is what an image board gives: metadata and pictures in one of the layouts named under --format.
Writes OUTPUT/data/*.parquet, README.md, tags.json, characters.json, character_tags.json, implications.json,
build.json, statistics.json, and rejects.jsonl when lines were malformed. OUTPUT appears only when it is complete."""
EXAMPLE = """examples:
  python -m dataset_scripts.build_danmul --source DUMP --output danmul --dry_run    # the table of rules, in seconds
  python -m dataset_scripts.build_danmul --source DUMP --output danmul
  python -m dataset_scripts.build_danmul --source NEWER_DUMP --output danmul_more --like danmul
  python -c 'from datasets import load_dataset; print(load_dataset("danmul"))'"""


def build_parser() -> argparse.ArgumentParser:
    """The command line. Defaults are the paper's values."""
    parser = argparse.ArgumentParser(
        "build_danmul", description=HELP, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("dump").add_argument
    add("--source", required=True, metavar="DUMP", help="folder of the dump")
    formats = "; ".join(f"{name} = {what}" for name, what in FORMATS.items())
    add(
        "--format",
        choices=("auto", *FORMATS),
        default="auto",
        help=f"{formats}; auto looks inside and prefers the first of these (default: auto)",
    )
    add(
        "--images",
        metavar="DIR",
        help="folder within DUMP that holds NNNN/ID.jpg or tars (default: 512px, else original, else tars anywhere)",
    )
    add(
        "--max_bad_share",
        type=share,
        default=0.01,
        metavar="SHARE",
        help="share of malformed metadata lines, 0 to 1, above which the build stops (default: 0.01)",
    )
    add(
        "--verify",
        choices=("header", "full"),
        default="header",
        help="walk through the parts of each image up to its end, which finds what was cut off, lacks a part or has a "
        "wrong sum; full = decode it too, which finds holes and flipped bits inside, at many times the cost. What "
        "slips through, training leaves out and counts (default: header)",
    )
    add("--strict", action="store_true", help="stop at missing or broken images instead of dropping their posts")
    add = parser.add_argument_group("rules").add_argument
    add("--ratings", nargs="+", metavar="R", help="keep only these ratings (default: all that have an image)")
    add("--drop_deleted", action="store_true", help="drop posts marked deleted; the paper does not say so")
    add("--aliases", action="store_true", help="rename tags by the dump's tag_aliases*.json; not in the paper")
    add("--implications", action="store_true", help="add tags by the dump's tag_implications*.json; not in the paper")
    add(
        "--rating_tags",
        action="store_true",
        help="add the rating of each post to its tags (rating:general …), so that a model can be asked for it",
    )
    add("--min_posts", type=positive, default=10, metavar="N", help="drop characters with fewer posts (default: 10)")
    add(
        "--emoticon_pattern",
        type=pattern,
        default=EMOTICON_PATTERN,
        metavar="REGEX",
        help="drop tags that this Python expression matches in full (default: an ASCII tag with a symbol and without "
        "two letters or digits in a row)",
    )
    add("--min_tag_posts", type=positive, default=2, metavar="N", help="drop tags on fewer posts (default: 2)")
    add(
        "--tfidf_threshold",
        type=float,
        default=0.2,
        metavar="X",
        help="drop tags whose summed TF-IDF (Eq. 1) is smaller; see the ladder of --dry_run (default: 0.2)",
    )
    add("--log_base", choices=tuple(LOG_BASES), default="natural", help="of Eq. 1 (default: natural)")
    add(
        "--split",
        choices=("hash", "published"),
        default="hash",
        help="hash = 0.70/0.25/0.05 of each character; published = the dump's own (DAF:re) (default: hash)",
    )
    add(
        "--like",
        metavar="DANMUL",
        help="make a further evaluation set for models trained on that built folder: posts that it does not have, its "
        "characters and its tags in place of the rules below single_character, no train split; 2/7 of each character "
        "validation, the rest test",
    )
    add(
        "--duplicates",
        choices=("report", "group", "drop"),
        default="report",
        help="posts that show the same drawing, by the dump's parents, the MD5 of the file and a hash of the picture: "
        "report counts those that lie in several splits, and marks them for evaluate_mfdn.py; group keeps each group "
        "in one split; drop keeps the best picture of each and all variants that parents name (default: report, which "
        "leaves the paper's split as it is and costs one small decode of a picture)",
    )
    add(
        "--duplicate_distance",
        type=int,
        choices=range(MAX_DISTANCE + 1),
        default=DISTANCE,
        metavar="BITS",
        help=f"of the first 64 of the hash that may differ between copies, 0 to {MAX_DISTANCE} (default: {DISTANCE})",
    )
    add("--seed", type=int, default=0, help="of the split and of the row order (default: 0)")
    add = parser.add_argument_group("output").add_argument
    add("--output", default="danmul", metavar="DIR", help="folder to write (default: danmul)")
    add("--overwrite", action="store_true", help="replace a data set that an earlier run wrote there")
    add(
        "--image_size",
        type=positive,
        metavar="PIXELS",
        help="make pictures train-ready: shorter side so long, JPEG of quality 95, 4:4:4; implies --verify full "
        "(default: the original files, untouched)",
    )
    add("--shard_size_mb", type=above_zero, default=400, metavar="MB", help="image bytes per shard (default: 400)")
    add("--workers", type=positive, default=2, metavar="N", help="processes; 1 = this one alone (default: 2)")
    add(
        "--executor",
        choices=EXECUTORS,
        default="processes",
        help="what runs the tasks; dask and ray start a cluster of --workers without an address (default: processes)",
    )
    add("--executor_address", metavar="URL", help="of a Dask scheduler or a Ray cluster")
    add("--dry_run", action="store_true", help="print the rules and the thresholds; open no image, write nothing")
    return parser


def positive(text: str) -> int:
    """An integer of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text}")
    return number


def above_zero(text: str) -> float:
    """A number above 0."""
    if (number := float(text)) <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    if not 0 <= (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return number


def pattern(text: str) -> str:
    """A valid regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"expected a regular expression, got {text!r}: {error}") from error
    return text

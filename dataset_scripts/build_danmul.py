"""Build Dan:mul (paper §III): the dump of a tagged image board in, a folder for `load_dataset("danmul")` out."""

from __future__ import annotations

import argparse
import re
import sys
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm
from upath import UPath

from dataset_scripts import select_posts as rules
from dataset_scripts.apply_rules import (
    Selection,
    apply_post_rules,
    apply_tag_rules,
    format_rules,
    print_ladder,
    print_problems,
    refuse_problems,
)
from dataset_scripts.check_images import check_images
from dataset_scripts.danmul_folder import is_local, publish, record_build, refuse_existing, work_folder, write_lists
from dataset_scripts.dataset_statistics import table_1, table_1_markdown
from dataset_scripts.executors import EXECUTORS, open_executor
from dataset_scripts.find_dump import FORMATS, Dump, find_dump
from dataset_scripts.list_images import ImageListing
from dataset_scripts.posts import Parsed, PostsTable, merge, parse, write_rejects
from dataset_scripts.run_tasks import run
from dataset_scripts.split_posts import assign_splits
from dataset_scripts.tag_relations import apply_aliases, apply_implications, read_relations
from dataset_scripts.train_ready import expected_bytes
from dataset_scripts.write_parquet import plan_shards, write_shard

IMAGES_PER_TASK = 5_000
SHOWN_BAD_LINES = 5

HELP = """Build the data set Dan:mul from a dump. Defaults are the rules of paper §III.A; every rule reports its count.

Expects DUMP/512px/NNNN/ID.jpg (NNNN = id % 1000) and JSON lines in DUMP/metadata*/, either generation.
Writes OUTPUT/data/*.parquet, README.md, tags.json, characters.json, build.json, statistics.json, and rejects.jsonl
when lines were malformed. OUTPUT appears only when it is complete."""
EXAMPLE = """examples:
  python -m dataset_scripts.build_danmul --source DUMP --output danmul --dry_run    # the table of rules, in seconds
  python -m dataset_scripts.build_danmul --source DUMP --output danmul
  python -c 'from datasets import load_dataset; print(load_dataset("danmul"))'"""


def build_parser() -> argparse.ArgumentParser:
    """The command line. Defaults are the paper's values."""
    parser = argparse.ArgumentParser(
        "build_danmul", description=HELP, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("dump").add_argument
    add("--source", required=True, metavar="DUMP", help="folder of the dump")
    formats = "; ".join(f"{name} = {what}" for name, what in FORMATS.items())
    add("--format", choices=("auto", *FORMATS), default="auto",
        help=f"{formats}; auto looks inside and prefers the first of these (default: auto)")  # fmt: skip
    add("--images", metavar="DIR",
        help="folder within DUMP that holds NNNN/ID.jpg or tars (default: 512px, else original, else tars anywhere)")
    add("--max_bad_share", type=share, default=0.01, metavar="SHARE",
        help="share of malformed metadata lines, 0 to 1, above which the build stops (default: 0.01)")
    add("--verify", choices=("header", "full"), default="header",
        help="check header and end of each image, or decode it as well (default: header)")
    add("--strict", action="store_true", help="stop at missing or broken images instead of dropping their posts")
    add = parser.add_argument_group("rules").add_argument
    add("--ratings", nargs="+", metavar="R", help="keep only these ratings (default: all that have an image)")
    add("--drop_deleted", action="store_true", help="drop posts marked deleted; the paper does not say so")
    add("--aliases", action="store_true", help="rename tags by the dump's tag_aliases*.json; not in the paper")
    add("--implications", action="store_true", help="add tags by the dump's tag_implications*.json; not in the paper")
    add("--min_posts", type=positive, default=10, metavar="N", help="drop characters with fewer posts (default: 10)")
    add("--emoticon_pattern", type=pattern, default=rules.EMOTICON_PATTERN, metavar="REGEX",
        help="drop tags that this Python expression matches in full (default: an ASCII tag with a symbol and without "
        "two letters or digits in a row)")
    add("--min_tag_posts", type=positive, default=2, metavar="N", help="drop tags on fewer posts (default: 2)")
    add("--tfidf_threshold", type=float, default=0.2, metavar="X",
        help="drop tags whose summed TF-IDF (Eq. 1) is smaller; see the ladder of --dry_run (default: 0.2)")
    add("--log_base", choices=tuple(rules.LOG_BASES), default="natural", help="of Eq. 1 (default: natural)")
    add("--split", choices=("hash", "published"), default="hash",
        help="hash = 0.70/0.25/0.05 of each character; published = the dump's own (DAF:re) (default: hash)")
    add("--seed", type=int, default=0, help="of the split and of the row order (default: 0)")
    add = parser.add_argument_group("output").add_argument
    add("--output", default="danmul", metavar="DIR", help="folder to write (default: danmul)")
    add("--overwrite", action="store_true", help="replace a data set that an earlier run wrote there")
    add("--image_size", type=positive, metavar="PIXELS",
        help="make pictures train-ready: shorter side so long, JPEG of quality 95, 4:4:4; implies --verify full "
        "(default: the original files, untouched)")  # fmt: skip
    add("--shard_size_mb", type=above_zero, default=400, metavar="MB", help="image bytes per shard (default: 400)")
    add("--workers", type=positive, default=2, metavar="N", help="processes; 1 = this one alone (default: 2)")
    add("--executor", choices=EXECUTORS, default="processes",
        help="what runs the tasks; dask and ray start a cluster of --workers without an address (default: processes)")
    add("--executor_address", metavar="URL", help="of a Dask scheduler or a Ray cluster")
    add("--shards", type=shard_share, metavar="I/N",
        help="one job of N, I from 0: write every N-th shard beside OUTPUT and stop; a last run without it completes")
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


def shard_share(text: str) -> tuple[int, int]:
    """I/N with 0 <= I < N."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 0 to N - 1, got {text}")
    return int(match[1]), int(match[2])


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


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after an error of the user's input in one sentence."""
    options = build_parser().parse_args(argv)
    try:
        with open_executor(options.executor, options.workers, options.executor_address) as executor:
            build(options, executor)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def build(options: argparse.Namespace, executor: Executor | None = None) -> None:
    """Everything, in order. Any Executor does (its tasks are picklable); None runs them here, one after another.

    Raises ValueError or OSError (FileNotFoundError, FileExistsError) with a sentence for the user.
    """
    source, output = UPath(options.source), UPath(options.output)
    output = output.absolute() if is_local(output) else output
    if not options.dry_run:
        refuse_existing(output, options.overwrite)

    # 1. Read
    dump = find_dump(source, options.format)
    print(dump.describe(), flush=True)
    parsed = read_metadata(dump, options, executor)
    if options.split == "published" and not parsed.splits:
        raise ValueError(f"--split published expects a dump with a split, but {dump.format} has none: leave it out.")
    listing = dump.list_images(parsed, options.images)
    if options.aliases:
        parsed.posts = apply_aliases(parsed.posts, read_relations(source, "aliases"))
    if options.implications:
        parsed.posts = apply_implications(parsed.posts, read_relations(source, "implications"))
    selection = Selection(parsed.posts, len(parsed.other_tags - set(parsed.posts.tag_names)))
    parsed.posts = parsed.other_tags = None  # 2 GB at full size; the selection holds what is left

    # 2. Select posts, then tags, in the paper's order
    problems = {"missing": rules.missing_images(selection.posts, listing.ids)}
    num_conflicts = apply_post_rules(selection, listing.ids, options)
    checked_ids, checked_bytes = selection.posts.post_ids, None
    if not options.dry_run:
        decode = options.verify == "full" or options.image_size is not None
        checked_ids, checked_bytes, broken = check_selected(selection.posts, listing, decode, executor)
        vanished = broken.get("missing", problems["missing"])
        problems = broken | {"missing": np.union1d(problems["missing"], vanished)}
        bad_ids = np.sort(np.concatenate([np.array([], np.int64), *broken.values()]))
        selection.drop_posts("readable_image", rules.in_sorted(selection.posts.post_ids, bad_ids))
    if options.strict:
        refuse_problems(problems)
    selection.drop_posts("min_posts", rules.posts_of_rare_characters(selection.posts, options.min_posts))
    scores, ladder = apply_tag_rules(selection, options)
    print(format_rules(selection.rules))
    print_problems(parsed, problems, num_conflicts, listing.num_ignored)
    print_ladder(scores, ladder)
    if not len(selection.posts):
        raise ValueError(
            f"Expected characters with {options.min_posts} posts or more, but the rules above left no post: "
            "lower --min_posts, or check that images and metadata come from the same dump."
        )
    if options.dry_run:
        print("Dry run: no image was opened (readable_image is not in the table) and nothing was written.")
        return

    # 3. Split and write
    scores = dict(zip(selection.posts.tag_names, scores.tolist(), strict=True))
    posts = rules.in_canonical_order(selection.posts)
    if options.split == "published":
        splits = np.array([parsed.splits[post_id] for post_id in posts.post_ids.tolist()], np.int8)
    else:
        splits = assign_splits(posts.post_ids, posts.characters, options.seed)
    statistics = table_1(splits, posts.characters, posts.tag_counts, len(posts.character_names))
    record = record_build(options, parsed, dump, selection, posts, splits, problems)
    record |= {"duplicate_ids_that_differ": num_conflicts, "tfidf_thresholds": ladder}
    record["image_files_ignored"] = listing.num_ignored
    image_bytes = checked_bytes[np.searchsorted(checked_ids, posts.post_ids)]
    if options.image_size:
        image_bytes = np.minimum(image_bytes, expected_bytes(options.image_size))
    with work_folder(output, exclusive=not options.shards) as folder:
        tasks = plan_shards(
            folder / "data", posts, splits, image_bytes, listing, options.shard_size_mb * 10**6, options.seed,
            options.image_size,
        )  # fmt: skip
        if options.shards:
            index, number = options.shards
            tasks = islice(tasks, index, None, number)
        progress = tqdm(total=len(posts), desc="writing posts", unit=" posts", disable=None)
        record["shards"] = []
        for _, shard in run(write_shard, tasks, executor):
            record["shards"].append(shard)
            progress.update(shard["rows"])
        progress.close()
        if options.shards:
            print(f"Shards {index} of {number}: wrote {len(record['shards'])}; run without --shards to complete.")
            return
        write_lists(folder, posts, splits, scores, parsed.bad_lines, record, statistics)
        publish(folder, output, record["shards"], options.overwrite)
    print(table_1_markdown(statistics))
    for split, number in record["counts"]["characters_without_posts"].items():
        if number:
            print(f"{number:,} characters are so small that they have no {split} post.")
    print(f"Wrote {options.output}: {len(posts):,} posts of {len(posts.character_names):,} characters.")


def read_metadata(dump: Dump, options: argparse.Namespace, executor: Executor | None) -> Parsed:
    """All posts of the dump. Raises ValueError when more than --max_bad_share of the lines are malformed."""
    progress = tqdm(run(parse, dump.tasks, executor), "reading metadata", len(dump.tasks), unit=" parts", disable=None)
    parsed = merge(progress)
    for bad in parsed.bad_lines[:SHOWN_BAD_LINES]:
        print(f"{bad.file}:{bad.line}: {bad.reason}", file=sys.stderr)
    if len(parsed.bad_lines) > options.max_bad_share * parsed.num_records:
        bad, rejects = parsed.bad_lines[0], f"{options.output}.rejects.jsonl"
        if not options.dry_run:
            write_rejects(Path(rejects), parsed.bad_lines)
        raise ValueError(
            f"Expected at most {options.max_bad_share:.2%} malformed metadata lines, found {len(parsed.bad_lines):,} "
            f"of {parsed.num_records:,}, the first at {bad.file}:{bad.line}: {bad.reason}; repair the files or raise "
            f"--max_bad_share.{'' if options.dry_run else f' All of them are in {rejects}.'}"
        )
    return parsed


def check_selected(
    posts: PostsTable, listing: ImageListing, decode: bool, executor: Executor | None
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Sorted ids of the posts, the bytes of their images, and the ids of broken ones by reason.

    Before min_posts is counted: a broken image can push a character under the minimum.
    """
    check = partial(check_images, decode=decode)
    post_ids = np.sort(posts.post_ids)
    parts = [post_ids[start : start + IMAGES_PER_TASK] for start in range(0, len(post_ids), IMAGES_PER_TASK)]
    results = run(check, (listing.files(part) for part in parts), executor)
    sizes, reasons = [np.array([], np.int64)], []
    for _, (part_sizes, part_reasons) in tqdm(results, "checking images", len(parts), unit=" parts", disable=None):
        sizes.append(part_sizes)
        reasons += part_reasons
    reasons = np.array(reasons, object)
    broken = {reason: post_ids[reasons == reason] for reason in sorted(set(reasons) - {""})}
    return post_ids, np.concatenate(sizes), broken


if __name__ == "__main__":
    raise SystemExit(main())

"""The build of Dan:mul from start to end: read, select, split, write."""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
from tqdm import tqdm
from upath import UPath

from dataset_scripts.build_options import build_parser
from dataset_scripts.dump.check_images import check_images
from dataset_scripts.dump.find_dump import Dump, find_dump
from dataset_scripts.dump.list_images import ImageListing, counted
from dataset_scripts.dump.parse import Parsed, merge, parse, write_rejects
from dataset_scripts.dump.read_relations import read_relations
from dataset_scripts.dump.records import BadLine
from dataset_scripts.folder.executors import run
from dataset_scripts.folder.lists import read_record, record_build, split_ids, write_lists
from dataset_scripts.folder.shards import expected_bytes, plan_shards, write_shard
from dataset_scripts.folder.statistics import table_1, table_1_markdown
from dataset_scripts.folder.terminal import printable
from dataset_scripts.folder.work_folder import is_local, publish, refuse_existing, sibling, work_folder
from dataset_scripts.rules import select_posts as rules
from dataset_scripts.rules.posts_table import PostsTable, in_canonical_order, in_sorted
from dataset_scripts.rules.selection import (
    Selection,
    apply_post_rules,
    apply_tag_rules,
    format_rules,
    print_ladder,
    print_misspelt,
    print_problems,
    refuse_problems,
)
from dataset_scripts.rules.split_posts import SPLITS, assign_splits
from dataset_scripts.rules.tag_relations import apply_aliases, apply_implications

IMAGES_PER_TASK = 5_000
SHOWN_BAD_LINES = 5


def build(options: argparse.Namespace, executor: Executor | None = None) -> None:
    """Everything, in order. Any Executor does (its tasks are picklable); None runs them here, one after another.

    Raises ValueError or OSError (FileNotFoundError, FileExistsError) with a sentence for the user.
    """
    source, output = UPath(options.source), UPath(options.output)
    output = output.absolute() if is_local(output) else output
    if not options.dry_run:
        refuse_existing(output, options.overwrite)
    like = read_like(options)

    # 1. Read
    dump = find_dump(source, options.format)
    dump.check_images_folder(options.images)
    print(printable(dump.describe()), flush=True)
    parsed = read_metadata(dump, options, executor)
    if options.split == "published" and not parsed.splits:
        raise ValueError(f"--split published expects a dump with a split, but {dump.format} has none: leave it out.")
    listing = dump.list_images(parsed, options.images)
    print(f"images: {len(listing.ids):,} in {listing.describe()}", flush=True)
    if options.aliases:
        parsed.posts = apply_aliases(parsed.posts, read_relations(source, "aliases"))
    if options.implications:
        parsed.posts = apply_implications(parsed.posts, read_relations(source, "implications"))
    selection = Selection(parsed.posts, len(parsed.other_tags - set(parsed.posts.tag_names)))
    parsed.posts = parsed.other_tags = None  # 2 GB at full size; the selection holds what is left

    # 2. Select posts, then tags, in the paper's order
    problems = {"missing": rules.missing_images(selection.posts, listing.ids)}
    num_conflicts = apply_post_rules(selection, listing.ids, options) + listing.num_conflicts
    if like:
        selection.drop_posts("new_post", in_sorted(selection.posts.post_ids, like.post_ids))
        selection.drop_posts("known_character", rules.posts_of_unknown_characters(selection.posts, like.characters))
    checked_ids, checked_bytes = selection.posts.post_ids, None
    if not options.dry_run:
        decode = options.verify == "full" or options.image_size is not None
        checked_ids, checked_bytes, broken = check_selected(selection.posts, listing, decode, executor)
        vanished = broken.get("missing", problems["missing"])
        problems = broken | {"missing": np.union1d(problems["missing"], vanished)}
        bad_ids = np.sort(np.concatenate([np.array([], np.int64), *broken.values()]))
        selection.drop_posts("readable_image", in_sorted(selection.posts.post_ids, bad_ids))
    if options.strict:
        refuse_problems(problems)
    if not like:
        selection.drop_posts("min_posts", rules.posts_of_rare_characters(selection.posts, options.min_posts))
    scores, ladder = apply_tag_rules(selection, options, like and like.tags)
    print(format_rules(selection.rules))
    print_misspelt(selection.rules)
    print_problems(parsed, problems, num_conflicts, listing.num_ignored)
    if not like:
        print_ladder(scores, ladder)
    if not len(selection.posts) and like:
        raise ValueError(
            f"Expected posts of the characters of {options.like} that are not in it, but the rules above left none: "
            "--source should be another or a newer dump of the same board."
        )
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
    posts = in_canonical_order(selection.posts)
    if options.split == "published":
        splits = np.array([parsed.splits[post_id] for post_id in posts.post_ids.tolist()], np.int8)
    else:
        splits = assign_splits(posts.post_ids, posts.characters, options.seed, held_out=like is not None)
    statistics = table_1(splits, posts.characters, posts.tag_counts, len(posts.character_names))
    record = record_build(options, parsed, dump, selection, posts, splits, problems)
    record |= {"duplicate_ids_that_differ": num_conflicts, "tfidf_thresholds": ladder}
    record["image_files_ignored"] = listing.num_ignored
    image_bytes = checked_bytes[np.searchsorted(checked_ids, posts.post_ids)]
    if options.image_size:
        image_bytes = np.minimum(image_bytes, expected_bytes(options.image_size))
    with work_folder(output, exclusive=not options.shards) as folder:
        tasks = plan_shards(
            folder / "data",
            posts,
            splits,
            image_bytes,
            listing,
            options.shard_size_mb * 10**6,
            options.seed,
            options.image_size,
        )
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
        if number and not (like and split == "train"):
            print(f"{number:,} characters are so small that they have no {split} post.")
    print(f"Wrote {options.output}: {len(posts):,} posts of {len(posts.character_names):,} characters.")


@dataclass
class Like:
    """What a built data set knows: names of characters and tags, and its posts, sorted [N]."""

    characters: set[str]
    tags: set[str]
    post_ids: np.ndarray


def read_like(options: argparse.Namespace) -> Like | None:
    """What --like names; None without it.

    Raises:
        FileNotFoundError: it is no built folder.
        ValueError: a rule was asked for that --like takes the place of.
    """
    if not options.like:
        return None
    for name in ("min_posts", "emoticon_pattern", "min_tag_posts", "tfidf_threshold", "split"):
        if getattr(options, name) != build_parser().get_default(name):
            raise ValueError(f"--{name} means nothing with --like: characters and tags are those of {options.like}.")
    folder = UPath(options.like)
    read_record(folder)
    characters, tags = (
        {row[column] for row in json.loads((folder / file).read_text(encoding="utf-8"))}
        for file, column in (("characters.json", "character"), ("tags.json", "tag"))
    )
    return Like(characters, tags, np.sort(np.concatenate([split_ids(folder, split) for split in SPLITS])))


def read_metadata(dump: Dump, options: argparse.Namespace, executor: Executor | None) -> Parsed:
    """All posts of the dump. Raises ValueError when more than --max_bad_share of the lines are malformed."""
    progress = tqdm(run(parse, dump.tasks, executor), "reading metadata", len(dump.tasks), unit=" parts", disable=None)
    parsed = merge(progress)
    if parsed.ignored and not parsed.images:  # else they are in the listing of the images
        print(printable(counted("files in archives of metadata that are not read", parsed.ignored)))
    for bad in parsed.bad_lines[:SHOWN_BAD_LINES]:
        print(printable(f"{bad.file}:{bad.line}: {bad.reason}"), file=sys.stderr)
    if parsed.num_bad > options.max_bad_share * parsed.num_records:
        bad = parsed.bad_lines[0]
        raise ValueError(
            f"Expected at most {options.max_bad_share:.2%} malformed metadata lines, found {parsed.num_bad:,} "
            f"of {parsed.num_records:,}, the first at {bad.file}:{bad.line}: {bad.reason}; repair the files or raise "
            f"--max_bad_share.{'' if options.dry_run else keep_rejects(UPath(options.output), parsed.bad_lines)}"
        )
    return parsed


def keep_rejects(output: UPath, bad_lines: list[BadLine]) -> str:
    """Write bad lines beside the output, and say where: not to manage that must not hide what is wrong with them."""
    rejects = sibling(output, "rejects.jsonl")
    try:
        rejects.parent.mkdir(parents=True, exist_ok=True)
        write_rejects(rejects, bad_lines)
        return f" {len(bad_lines):,} of them are in {rejects}."
    except Exception as error:  # a store elsewhere has errors of its own
        return f" They could not be written to {rejects} ({error})."


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

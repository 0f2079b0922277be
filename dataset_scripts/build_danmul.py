"""The build of Dan:mul from start to end: read, select, split, write. Read `build`, then the four in its order."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import call

import numpy as np
from tqdm import tqdm
from upath import UPath

from dataset_scripts.dump.check_images import check_images
from dataset_scripts.dump.find_dump import Dump, find_dump
from dataset_scripts.dump.list_images import ImageListing, counted
from dataset_scripts.dump.parse import Parsed, merge, parse, write_rejects
from dataset_scripts.dump.read_relations import read_relations
from dataset_scripts.dump.records import BadLine, printable
from dataset_scripts.folder.build_options import build_parser
from dataset_scripts.folder.executors import open_executor, run
from dataset_scripts.folder.files import is_local, move_into_place, refuse_existing, sibling, work_folder
from dataset_scripts.folder.lists import (
    read_class_names,
    read_record,
    record_build,
    recorded_options,
    split_column,
    write_lists,
)
from dataset_scripts.folder.shards import plan_shards, write_shard
from dataset_scripts.folder.statistics import draw_figures, table_1, table_1_markdown
from dataset_scripts.folder.terminal import command_line
from dataset_scripts.rules.near_duplicates import (
    Images,
    OtherPosts,
    copies,
    describe_duplicates,
    families_of,
    find_near_train,
    group_posts,
    join_families,
)
from dataset_scripts.rules.picture_hash import WORDS, from_text
from dataset_scripts.rules.posts_table import PostsTable, in_canonical_order
from dataset_scripts.rules.select_posts import missing_images, tf_idf_sums, threshold_for
from dataset_scripts.rules.selection import (
    CHARACTER_SPELLING,
    TAG_SPELLING,
    Criteria,
    Like,
    Selected,
    Selection,
    format_counts,
)
from dataset_scripts.rules.split_posts import SPLITS, Divided, assign_splits
from dataset_scripts.rules.tag_relations import (
    add_ratings,
    apply_aliases,
    apply_implications,
    is_rating_tag,
    resolve_aliases,
)

PAPER_TAGS = 25_404
IMAGES_PER_TASK = 250
SHOWN_BAD_LINES = 5
SHOWN_NAMES, SHOWN_CHARACTERS = 5, 60
EXPECTED = {
    "tag": "small letters without spaces or controls, and no name of a special token such as [mask]",
    "character": "names without line breaks, controls or bytes that are no text",
}
REPLACED_BY_LIKE = ("min_posts", "emoticon_pattern", "min_tag_posts", "tfidf_threshold", "split", "rating_tags")


@command_line
def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 after an error of the user's input in one sentence."""
    options = build_parser().parse_args(argv)
    with open_executor(options.executor, options.workers, options.executor_address) as executor:
        build(options, executor)
    return 0


def build(options: argparse.Namespace, executor: Executor | None = None) -> None:
    """Build the folder `options.output` from the dump `options.source`.

    Args:
        options: what `build_parser` returns.
        executor: any `concurrent.futures.Executor`, whose tasks are picklable; None runs them here, one by one.

    Raises:
        ValueError, OSError: with a sentence for the user.
    """
    if options.split == "published" and options.duplicates == "group":
        raise ValueError("--duplicates group makes a split of its own: leave --split published, or report the groups.")
    source, output = UPath(options.source), UPath(options.output)
    output = output.absolute() if is_local(output) else output
    if not options.dry_run:
        refuse_existing(output, options.overwrite)
    criteria = read_criteria(options)

    found = read(source, output, executor, options.format, options.images, options.max_bad_share, options.dry_run)
    if options.split == "published" and not found.parsed.splits:
        raise ValueError(f"--split published expects a dump with a split, but {found.dump.format} has none: leave it.")
    relate(found.parsed, source, options.aliases, options.implications)

    decode = options.verify == "full" or options.image_size is not None
    selected = select(found, criteria, executor, None if options.dry_run else decode, options.strict)
    report(found, selected)
    refuse_nothing(selected, options.like)
    if options.dry_run:
        print("Dry run: no image was opened (readable_image is not in the table) and nothing was written.")
        return
    if options.rating_tags or (criteria.like and any(is_rating_tag(tag) for tag in criteria.like.tags)):
        add_rating_tags(selected, criteria)

    published = found.parsed.splits if options.split == "published" else None
    divided = split(selected, options.seed, criteria, published)
    print(describe_duplicates(divided.near.statistics))

    record = record_build(recorded_options(vars(options)), found.dump, found.parsed, found.listing, selected, divided)
    sizes = {"shard_bytes": options.shard_size_mb * 10**6, "short_side": options.image_size}
    implications = known_implications(source)
    write(output, executor, found, selected, divided, implications, record, options.seed, options.overwrite, **sizes)


# ---------------------------------------------------------------- 1. read


@dataclass
class Found:
    """What `read` returns: the dump, its posts (in `parsed`) and where their images lie."""

    dump: Dump
    parsed: Parsed
    listing: ImageListing


def read(
    source: UPath,
    output: UPath,
    executor: Executor | None = None,
    format: str = "auto",
    images: str | None = None,
    max_bad_share: float = 0.01,
    dry_run: bool = False,
) -> Found:
    """All posts of a dump and the listing of its images; no image is opened.

    Raises:
        FileNotFoundError: no metadata, no images.
        ValueError: a damaged file, or more than `max_bad_share` of the metadata lines malformed; they are written
            beside `output` then, unless it is a dry run.
    """
    dump = find_dump(source, format)
    dump.check_images_folder(images)
    print(printable(dump.describe()), flush=True)
    progress = tqdm(run(parse, dump.tasks, executor), "reading metadata", len(dump.tasks), unit=" parts", disable=None)
    parsed = merge(progress)
    if parsed.ignored and not parsed.images:  # else they are in the listing of the images
        print(printable(counted("files in archives of metadata that are not read", parsed.ignored)))
    for bad in parsed.bad_lines[:SHOWN_BAD_LINES]:
        print(printable(f"{bad.file}:{bad.line}: {bad.reason}"), file=sys.stderr)
    if parsed.num_bad > max_bad_share * parsed.num_records:
        bad = parsed.bad_lines[0]
        raise ValueError(
            f"Expected at most {max_bad_share:.2%} malformed metadata lines, found {parsed.num_bad:,} "
            f"of {parsed.num_records:,}, the first at {bad.file}:{bad.line}: {bad.reason}; repair the files or raise "
            f"--max_bad_share.{'' if dry_run else keep_rejects(output, parsed.bad_lines)}"
        )
    listing = dump.list_images(parsed, images)
    print(f"images: {len(listing.ids):,} in {listing.describe()}", flush=True)
    return Found(dump, parsed, listing)


def keep_rejects(output: UPath, bad_lines: list[BadLine]) -> str:
    """Write bad lines beside the output, and say where. That this fails must not hide what is wrong with them."""
    rejects = sibling(output, "rejects.jsonl")
    try:
        rejects.parent.mkdir(parents=True, exist_ok=True)
        write_rejects(rejects, bad_lines)
        return f" {len(bad_lines):,} of them are in {rejects}."
    except Exception as error:  # a store elsewhere has errors of its own
        return f" They could not be written to {rejects} ({error})."


def relate(parsed: Parsed, source: UPath, aliases: bool, implications: bool) -> None:
    """Join what parents link; rename tags by the dump's aliases and add what they imply, where asked for."""
    parsed.posts.families = join_families(parsed.posts.post_ids, parsed.posts.families)
    if aliases:
        names = resolve_aliases(read_relations(source, "aliases"))
        parsed.posts = apply_aliases(parsed.posts, names)
        renamed = Counter()
        for (character, series), number in parsed.series.items():
            renamed[names.get(character, character), names.get(series, series)] += number
        parsed.series = renamed
    if implications:
        parsed.posts = apply_implications(parsed.posts, read_relations(source, "implications"))


def known_implications(source: UPath) -> list[tuple[str, str]]:
    """The implications of the dump for `implications.json`, where it has some; nothing here depends on them."""
    try:
        return read_relations(source, "implications")
    except FileNotFoundError:
        return []
    except ValueError as error:
        print(printable(f"The tag implications are not stored: {error}"), file=sys.stderr)
        return []


# ---------------------------------------------------------------- 2. select


def read_criteria(options: argparse.Namespace) -> Criteria:
    """What the rules go by, with the built folder that --like names.

    Raises:
        FileNotFoundError: --like is no built folder.
        ValueError: a rule was asked for that --like takes the place of.
    """
    criteria = Criteria(
        options.ratings,
        options.drop_deleted,
        options.min_posts,
        options.emoticon_pattern,
        options.min_tag_posts,
        options.tfidf_threshold,
        options.log_base,
        options.duplicates,
        options.duplicate_distance,
    )
    if options.like:
        parser = build_parser()
        for name in REPLACED_BY_LIKE:
            if getattr(options, name) != parser.get_default(name):
                raise ValueError(
                    f"--{name} means nothing with --like: characters and tags are those of {options.like}."
                )
        folder = UPath(options.like)
        read_record(folder)
        names = read_class_names(folder)
        tags = {row["tag"] for row in json.loads((folder / "tags.json").read_text(encoding="utf-8"))}
        post_ids = np.sort(np.concatenate([split_column(folder, name, "post_id") for name in SPLITS]))
        train_ids, texts = (split_column(folder, "train", name) for name in ("post_id", "picture_hash"))
        if len(texts) < len(train_ids):
            print(f"{folder} is of an older build, without picture hashes: copies of its posts are found by parents.")
            texts = [None] * len(train_ids)
        of_train = split_column(folder, "train", "character")
        train = OtherPosts(train_ids, train_ids, from_text(texts), of_train, names)
        criteria.like = Like(set(names), tags, post_ids, train)
    return criteria


def select(
    found: Found, criteria: Criteria, executor: Executor | None = None, decode: bool | None = False, strict=False
) -> Selected:
    """Apply the rules of paper §III.A: posts, then tags.

    Args:
        found: its posts are taken out, because twice they would be 2 GB at full size.
        criteria: what the rules go by.
        executor: runs the checks of the images.
        decode: None opens no image, False walks through the parts of each, True decodes it too.
        strict: refuse missing and broken images.

    Raises:
        ValueError: `strict`, and an image is missing or broken.
    """
    posts, listing = found.parsed.posts, found.listing
    none = np.array([], np.int64)
    images = Images(none, none, none, np.zeros((0, WORDS), np.uint64), {})

    def check(posts: PostsTable) -> np.ndarray:
        nonlocal images
        images = check_selected(posts, listing, bool(decode), executor)
        return np.sort(np.concatenate([np.array([], np.int64), *images.broken.values()]))

    def find_copies(posts: PostsTable) -> np.ndarray:
        others = criteria.like.train if criteria.like else None
        return copies(posts, images.of(posts.post_ids), criteria.duplicate_distance, others)

    missing = missing_images(posts, listing.ids)
    num_other_tags = len(found.parsed.other_tags - set(posts.tag_names))
    if criteria.like:
        criteria.like.train.families = families_of(criteria.like.train.post_ids, posts.post_ids, posts.families)
    selection = Selection(posts, criteria, listing.ids, num_other_tags, None if decode is None else check, find_copies)
    del posts
    found.parsed.posts = found.parsed.other_tags = None
    selection.apply_all()

    problems = images.broken | {"missing": np.union1d(missing, images.broken.get("missing", missing))}
    if strict:
        refuse_problems(problems)
    scores = dict(zip(selection.posts.tag_names, selection.scores.tolist(), strict=True))
    posts = in_canonical_order(selection.posts)
    num_conflicts = selection.num_conflicts + listing.num_conflicts
    of_posts = None if decode is None else images.of(posts.post_ids)
    return Selected(posts, scores, selection.counts, selection.ladder, problems, num_conflicts, of_posts)


def check_selected(posts: PostsTable, listing: ImageListing, decode: bool, executor: Executor | None) -> Images:
    """What is known of the images of the posts, by rising post id."""
    check = partial(check_images, decode=decode, hashes=True)
    post_ids = np.sort(posts.post_ids)
    parts = [post_ids[start : start + IMAGES_PER_TASK] for start in range(0, len(post_ids), IMAGES_PER_TASK)]
    results = run(check, (listing.files(part) for part in parts), executor)
    none = np.array([], np.int64)
    num_bytes, num_pixels, hashes, problems = [none], [none], [np.zeros((0, WORDS), np.uint64)], []
    for _, images in tqdm(results, "checking images", len(parts), unit=" parts", disable=None):
        num_bytes.append(np.array([image.num_bytes for image in images], np.int64))
        num_pixels.append(np.array([image.num_pixels for image in images], np.int64))
        hashes.append(np.array([image.picture_hash for image in images], np.uint64).reshape(-1, WORDS))
        problems += [image.problem for image in images]
    reasons = np.array(problems, object)
    broken = {reason: post_ids[reasons == reason] for reason in sorted(set(problems) - {""})}
    return Images(post_ids, *map(np.concatenate, (num_bytes, num_pixels, hashes)), broken)


def refuse_problems(problems: dict[str, np.ndarray]) -> None:
    """--strict: raises ValueError when an image is missing or broken."""
    found = [f"{len(ids):,} {reason} (post {ids[0]})" for reason, ids in sorted(problems.items()) if len(ids)]
    if found:
        raise ValueError(
            f"--strict expects every image to be there and whole, found {', '.join(found)}: fetch those again, or "
            "build without --strict to drop them."
        )


def refuse_nothing(selected: Selected, like: str | None) -> None:
    """Raises ValueError when the rules left no post."""
    if len(selected.posts):
        return
    if like:
        raise ValueError(
            f"Expected posts of the characters of {like} that are not in it, but the rules above left none: "
            "--source should be another or a newer dump of the same board."
        )
    raise ValueError(
        "Expected characters with --min_posts posts or more, but the rules above left no post: lower --min_posts, or "
        "check that images and metadata come from the same dump."
    )


def add_rating_tags(selected: Selected, criteria: Criteria) -> None:
    """--rating_tags. After the rules: Eq. 1 drops what nearly every post has."""
    posts = in_canonical_order(add_ratings(selected.posts, criteria.like.tags if criteria.like else None))
    scores = dict(zip(posts.tag_names, tf_idf_sums(posts, criteria.log_base).tolist(), strict=True))
    selected.posts, selected.scores = posts, scores | selected.scores


def report(found: Found, selected: Selected) -> None:
    """Print the table of rules and, in a line each, what was skipped on the way."""
    print(format_counts(selected.counts))
    for count in selected.counts:  # perhaps the dump only needs underscores
        if count.rule in (CHARACTER_SPELLING, TAG_SPELLING):
            kind = "tag" if count.rule == TAG_SPELLING else "character"
            names = dict.fromkeys(example[kind] for example in count.examples)
            shown = ", ".join(f"'{printable(name)[:SHOWN_CHARACTERS]}'" for name in list(names)[:SHOWN_NAMES])
            print(f"{count.rule}: expected {EXPECTED[kind]}; among the dropped {kind}s are {shown}")
    skipped = {
        "malformed metadata lines": found.parsed.num_bad,
        "records without id": found.parsed.num_without_id,
        "ids whose records differ (the one with most tags is kept)": selected.num_conflicts,
        "files among the images that are no image of a post": found.listing.num_ignored,
    } | {f"images {reason}": len(ids) for reason, ids in selected.problems.items()}
    for what, number in skipped.items():
        if number:
            print(f"{what}: {number:,}")
    if selected.ladder:
        steps = "  ".join(f"{step['threshold']:g}: {step['tags']:,}" for step in selected.ladder)
        print(f"tags left by a threshold of Eq. 1 of  {steps}")
        scores = np.array([score for score in selected.scores.values() if score > 0])
        threshold = threshold_for(scores, PAPER_TAGS)
        if threshold is not None:
            print(f"{PAPER_TAGS:,} tags, the paper's number, are left by {threshold:.4g}")


# ---------------------------------------------------------------- 3. split


def split(selected: Selected, seed: int, criteria: Criteria, published: dict[int, int] | None) -> Divided:
    """The split of every post: that of the dump where one is `published`, else by a hash of the post id, or of its
    group with `--duplicates group`; and which posts show the same drawing."""
    posts, like = selected.posts, criteria.like
    others = like.train if like else None
    relations = group_posts(posts, selected.images.picture_hashes, criteria.duplicate_distance, others)
    if published is not None:
        splits = np.array([published[post_id] for post_id in posts.post_ids.tolist()], np.int8)
    else:
        groups = relations["any"] if criteria.duplicates == "group" else None
        splits = assign_splits(posts.post_ids, posts.characters, seed, bool(like), groups)
    return Divided(
        splits,
        table_1(splits, posts.characters, posts.tag_counts, len(posts.character_names)),
        find_near_train(relations, splits),
    )


# ---------------------------------------------------------------- 4. write


def write(
    output: UPath,
    executor: Executor | None,
    found: Found,
    selected: Selected,
    divided: Divided,
    implications: list[tuple[str, str]],
    record: dict,
    seed: int,
    overwrite: bool,
    shard_bytes: float,
    short_side: int | None,
) -> None:
    """Write the folder `output`, whole or not at all, and print its size. `record` is the content of build.json.

    Raises:
        BlockingIOError: another build writes there.
        OSError: the disk is full, an image is gone. Finished shards stay for a rerun.
    """
    posts = selected.posts
    with work_folder(output) as folder:
        tasks = plan_shards(
            folder / "data", posts, selected.images, divided, found.listing, shard_bytes, seed, short_side
        )
        progress = tqdm(total=len(posts), desc="writing posts", unit=" posts", disable=None)
        figures = partial(
            draw_figures, folder / "figures", divided.splits, posts.characters, posts.tag_counts
        )  # as long as the shards of a small set
        record["shards"] = []
        for _, shard in run(call, chain([figures], (partial(write_shard, task) for task in tasks)), executor):
            if shard is not None:
                record["shards"].append(shard)
                progress.update(shard["rows"])
        progress.close()
        write_lists(folder, selected, divided, found.parsed, implications, record)
        move_into_place(folder, output, record["shards"], overwrite)
    print(table_1_markdown(divided.statistics))
    for name, number in record["counts"]["characters_without_posts"].items():
        if number and not ("like" in record["options"] and name == "train"):
            print(f"{number:,} characters are so small that they have no {name} post.")
    print(f"Wrote {output}: {len(posts):,} posts of {len(posts.character_names):,} characters.")


if __name__ == "__main__":
    raise SystemExit(main())

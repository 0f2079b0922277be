"""Draws the embedded dump: posts of invented characters, their tags, and the dirt of a real dump.

Example, under a minute on two cores, then the data set that `build_danmul` makes of it:

    python -m dataset_scripts.mini_booru --output mini_booru
    python -m dataset_scripts.build_danmul --source mini_booru --output danmul

and further posts of the same characters, to measure with: enough pictures to tell a point, none of them trained on:

    python -m dataset_scripts.mini_booru --output mini_booru_more --more_of mini_booru --posts 9000
    python -m dataset_scripts.build_danmul --source mini_booru_more --output danmul_more --like danmul

The output has the layout of Danbooru2021: `512px/NNNN/ID.jpg` (NNNN = id % 1000, safe posts only),
`metadata/posts.jsonl` (records of 2017-2020) and `metadata_2021/posts000000000000.json` (flat records of 2021) about
the same posts, and besides `contact_sheet.jpg` and `mini_booru.json`. Same seed and posts, same bytes, whatever the
number of workers. Knobs for how hard the pictures and the tags are stand at the top of `cast.py`.
"""

import argparse
import hashlib
import io
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset_scripts.folder.files import check_replaceable, replace_folder, write_whole
from dataset_scripts.folder.terminal import command_line
from dataset_scripts.mini_booru.cast import read_earlier
from dataset_scripts.mini_booru.contact_sheet import draw_contact_sheet
from dataset_scripts.mini_booru.draw.character import draw
from dataset_scripts.mini_booru.draw.pen import DRAWING_VERSION
from dataset_scripts.mini_booru.metadata import METADATA, write_metadata
from dataset_scripts.mini_booru.posts import Post, make_posts

MARKER = "mini_booru.json"  # of a dump that was drawn here, and may be replaced
JPEG_QUALITY = 90


def image_path(folder: Path, post_id: int) -> Path:
    """Where Danbooru2021 keeps the image of a post."""
    return folder / "512px" / f"{post_id % 1000:04d}" / f"{post_id}.jpg"


def draw_post(post: Post, seed: int, folder: Path) -> None:
    """Draw and write the image of a post, in the state that the post asks for."""
    if post.image in ("missing", "hidden"):
        return
    picture = draw(post.looks, post.scene, np.random.default_rng([seed, post.id, 1]))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    content = buffer.getvalue()
    if post.image == "truncated":
        content = content[: len(content) * 6 // 10]
    elif post.image == "empty":
        content = b""
    path = image_path(folder, post.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def draw_posts(table: list[Post], seed: int, folder: Path, workers: int) -> None:
    """Draw all images with a progress bar; `workers` = 1 draws in this process."""
    bar = tqdm(total=len(table), desc="drawing", unit="post")
    if workers == 1:
        for post in table:
            draw_post(post, seed, folder)
            bar.update()
    else:
        with ProcessPoolExecutor(workers) as pool:
            chunks = [table[k : k + 32] for k in range(0, len(table), 32)]
            for drawn in pool.map(_draw_chunk, chunks, [seed] * len(chunks), [folder] * len(chunks)):
                bar.update(drawn)
    bar.close()


def _draw_chunk(chunk: list[Post], seed: int, folder: Path) -> int:
    for post in chunk:
        draw_post(post, seed, folder)
    return len(chunk)


def summary(table: list[Post], seed: int) -> dict:
    """What `mini_booru.json` says: how to draw the dump again, and counts."""
    clean = Counter(post.characters[0] for post in table if len(post.characters) == 1 and post.image == "valid")
    kept = {name: number for name, number in clean.items() if number >= 10}
    return {
        "seed": seed,
        "posts": len(table),
        "drawing_version": DRAWING_VERSION,
        "images": dict(sorted(Counter(post.image for post in table).items())),
        "ratings": dict(sorted(Counter(post.rating for post in table).items())),
        "characters": len({name for post in table for name in post.characters}),
        "characters_with_10_clean_posts": len(kept),
        "images_of_these": sum(kept.values()),
        "general_tags": len({tag for post in table for tag in post.general}),
    }


def write_dump(
    output: Path, posts: int, seed: int, workers: int, overwrite: bool = False, more_of: Path | None = None
) -> dict:
    """Make the dump beside `output` and move it into place when it is complete; returns the summary.

    `more_of`: a dump of this program; these are further posts of its characters, and its seed counts.
    """
    check_replaceable(output, MARKER, overwrite)
    seed, earlier = read_earlier(more_of) if more_of else (seed, 0)
    table = make_posts(posts, seed, earlier)
    with replace_folder(output, MARKER, overwrite) as unfinished:
        write_metadata(table, seed, unfinished)
        draw_posts(table, seed, unfinished, workers)
        draw_contact_sheet(table, unfinished)
        counts = summary(table, seed) | ({"more_of": {"posts": earlier}} if earlier else {})
        # By these a build knows that what it reads was drawn here, whatever the folder is called.
        digests = {name: hashlib.sha256((unfinished / name).read_bytes()).hexdigest() for name in METADATA}
        counts["metadata_sha256"] = digests
        write_whole(unfinished / MARKER, json.dumps(counts, indent=2) + "\n")
    return counts


def build_parser() -> argparse.ArgumentParser:
    """The command line of this file."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.mini_booru",
        description="Draw a dump of illustrated characters in the Danbooru2021 layout, with tags and with the dirt of "
        "a real dump (bad images, several characters, missing ids, ...). Then: build_danmul --source OUTPUT.",
        epilog="example (under a minute on two cores): python -m dataset_scripts.mini_booru --output mini_booru",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make; look at its contact_sheet.jpg")
    parser.add_argument("--posts", type=int, default=2500, help="distinct posts, 100 or more (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="same seed and posts, same bytes (default: 0)")
    parser.add_argument(
        "--more_of",
        type=Path,
        metavar="DUMP",
        help="draw further posts of the characters of this dump, none of its own again; its seed counts",
    )
    parser.add_argument("--workers", type=int, default=2, help="drawing processes (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an older mini_booru dump in OUTPUT")
    return parser


@command_line
def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after an error of the user's input in one sentence."""
    args = build_parser().parse_args(argv)
    if args.workers < 1:
        raise ValueError(f"--workers must be 1 or more, got {args.workers}")
    if args.more_of and args.seed is not None:
        raise ValueError("--seed means nothing with --more_of, whose dump has one: leave it.")
    counts = write_dump(args.output, args.posts, args.seed or 0, args.workers, args.overwrite, args.more_of)
    kept = f"{counts['characters_with_10_clean_posts']} of {counts['characters']} characters"
    print(f"{args.output}: {counts['posts']} posts, {kept} have 10 images or more ({counts['images_of_these']}).")
    print(f"First look at {args.output / 'contact_sheet.jpg'}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

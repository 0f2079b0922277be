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
number of workers. Knobs for how hard the pictures and the tags are stand at the top of `mini_booru_cast.py`.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset_scripts.contact_sheet import draw_contact_sheet
from dataset_scripts.draw_character import draw
from dataset_scripts.draw_pen import DRAWING_VERSION, Look, Scene
from dataset_scripts.mini_booru_cast import (
    FORGOTTEN_TAG,
    TRAIT,
    WRONG_TAG,
    Character,
    invent_look,
    make_cast,
    pick,
    pose,
    read_earlier,
    stage,
)
from dataset_scripts.mini_booru_tags import DETAILS, drop_colours, visible_tags
from dataset_scripts.terminal import command_line

# The dirt: shares of all posts, or plain numbers where a few are enough.
NO_CHARACTER, SEVERAL_CHARACTERS = 0.06, 0.05
QUESTIONABLE, EXPLICIT = 0.055, 0.025  # ratings without a picture: nothing is drawn for them
MISSING_IMAGE, TRUNCATED_IMAGE, EMPTY_IMAGES = 0.005, 0.003, 1
DELETED = 0.02
NO_TAGS, MANY_TAGS = 0.004, 0.015  # posts with no general tag, and with 31 to 60
ROWS_WITHOUT_ID, DUPLICATE_ROWS = 3, 3
TAGS_SEEN_ONCE = 40  # fewer in a dump of less than 800 posts
DETAILS_A_POST = 1.3  # mean; drawn by a Zipf law
TAIL = 0.2  # share of the characters that have fewer than 10 posts
LAST_ID = 5_020_995  # of Danbooru2021
JPEG_QUALITY = 90
METADATA = ("metadata/posts.jsonl", "metadata_2021/posts000000000000.json")  # the same posts in two formats


@dataclass
class Post:
    """One post of the dump. `image` is valid, missing, truncated, empty or hidden (a rating without pictures)."""

    id: int
    characters: list[str]
    copyrights: list[str]
    artist: str
    general: list[str]
    meta: list[str]
    rating: str
    is_deleted: bool
    image: str
    looks: list[Look]
    scene: Scene


# ---------------------------------------------------------------------------------------------------------------------
# The posts table, without drawing
# ---------------------------------------------------------------------------------------------------------------------
def class_sizes(posts: int) -> np.ndarray:
    """Posts of each character among `posts` posts of one character, largest first (a Zipf law with a long tail)."""
    count = max(8, round(55 * (posts / 2225) ** 0.6))
    tail = [2 + k * 8 // max(1, round(count * TAIL)) for k in range(round(count * TAIL))]
    weights = 1 / (np.arange(count - len(tail)) + 7.0)
    head = np.maximum(2, np.floor((posts - sum(tail)) * weights / weights.sum())).astype(int)
    sizes = np.array(sorted([*head, *tail], reverse=True))
    sizes[0] += posts - sizes.sum()
    return sizes


def kinds_of_crowd(posts: int) -> tuple[int, int]:
    """How many posts show nobody, and how many show several characters."""
    return max(1, round(posts * NO_CHARACTER)), max(2, round(posts * SEVERAL_CHARACTERS))


def draw_ids(posts: int, rng: np.random.Generator) -> np.ndarray:
    """So many ids of posts, rising."""
    return np.sort(rng.choice(np.arange(1_000_000, LAST_ID), posts, replace=False))


def make_posts(posts: int, seed: int, earlier: int = 0) -> list[Post]:
    """Invent all posts of a dump, sorted by id.

    Args:
        posts: number of distinct posts, >= 100.
        seed: of everything. What a post looks like depends on the seed, its id and its characters, not on other posts.
        earlier: the posts of a dump of the same seed whose characters are drawn further: its cast in the same shares,
            no post of it again. 0: a dump of its own.
    """
    if posts < 100:
        raise ValueError(f"posts must be at least 100 to hold every kind of dirt, got {posts}.")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    if earlier:
        rng = np.random.default_rng([seed, 0, earlier])
        free = np.setdiff1d(np.arange(1_000_000, LAST_ID), draw_ids(earlier, np.random.default_rng([seed, 0])))
        ids = np.sort(rng.choice(free, posts, replace=False))
    else:
        rng = np.random.default_rng([seed, 0])
        ids = draw_ids(posts, rng)
    nobody, several = kinds_of_crowd(posts)
    sizes = class_sizes(posts - nobody - several)
    if earlier:
        shares = class_sizes(earlier - sum(kinds_of_crowd(earlier)))
        sizes = (posts - nobody - several) * shares // shares.sum()
        sizes[0] += posts - nobody - several - sizes.sum()
    cast = make_cast(len(sizes), seed, DETAILS[: len(DETAILS) // 2])
    who = [[i] for i, size in enumerate(sizes) for _ in range(size)] + [[]] * nobody
    for _ in range(several):
        people = 3 if rng.random() < 0.15 else 2
        who.append(sorted(int(i) for i in rng.choice(len(sizes), people, replace=False, p=sizes / sizes.sum())))
    order = rng.permutation(posts)
    table = [make_post(seed, int(ids[k]), [cast[i] for i in who[order[k]]]) for k in range(posts)]
    spread_dirt(table, rng)
    once = DETAILS[-min(TAGS_SEEN_ONCE, posts // 20) :]
    tagged = [post for post in table if 0 < len(post.general) < 30]
    for tag, k in zip(once, rng.choice(len(tagged), len(once), replace=False), strict=True):
        tagged[k].general = sorted({*tagged[k].general, tag})
    return table


def make_post(seed: int, post_id: int, characters: list[Character]) -> Post:
    """One clean post of these characters, or of nobody in particular."""
    rng = np.random.default_rng([seed, post_id])
    looks, known = [], []
    for character in characters:
        look, words = pose(rng, character.look, has_prop=len(characters) == 1)
        looks.append(look)
        known += words + [trait for trait in character.traits if rng.random() < TRAIT]
    copyrights = sorted({character.series for character in characters})
    if not characters:
        copyrights = ["original"]
        if rng.random() < 0.7:
            looks = [pose(rng, invent_look(rng, pick(rng, ("starlit_academy", "pocket_orbit", "summer_postbox"))))[0]]
    scene = stage(rng, len(looks))
    common = DETAILS[:-TAGS_SEEN_ONCE]
    zipf = 1 / (np.arange(len(common)) + 2.0)
    details = [common[i] for i in rng.choice(len(common), rng.poisson(DETAILS_A_POST), p=zipf / zipf.sum())]
    general = [tag for tag in visible_tags(looks, scene) if rng.random() >= FORGOTTEN_TAG]
    general = {*general, *drop_colours([*details, *known], scene)}
    if rng.random() < WRONG_TAG:
        general.add(pick(rng, ("glasses", "hat", "twintails", "ponytail", "bow", "short_hair", "smile")))
    if rng.random() < MANY_TAGS:
        goal = int(rng.integers(34, 61))
        extra = [common[i] for i in rng.choice(len(common), 60, replace=False)]
        general |= set(drop_colours(extra, scene)[: max(0, goal - len(general))])
    if rng.random() < NO_TAGS:
        general = set()
    meta = [
        tag
        for tag, share in (("highres", 0.6), ("absurdres", 0.15), ("commentary", 0.2), ("translated", 0.05))
        if rng.random() < share
    ]
    names = sorted(character.name for character in characters)
    return Post(
        post_id, names, copyrights, scene.artist.name, sorted(general), meta, "s", False, "valid", looks, scene
    )


def spread_dirt(table: list[Post], rng: np.random.Generator) -> None:
    """Give posts other ratings, bad images and odd numbers of tags: at least one of each kind in any dump."""
    posts = len(table)
    shuffled = [table[i] for i in rng.permutation(posts)]

    def take(share: float) -> list[Post]:
        number = max(1, round(posts * share))
        taken = shuffled[:number]
        del shuffled[:number]
        return taken

    for rating, share in (("q", QUESTIONABLE), ("e", EXPLICIT)):
        for post in take(share):
            post.rating, post.image = rating, "hidden"
    for image, share in (("missing", MISSING_IMAGE), ("truncated", TRUNCATED_IMAGE), ("empty", EMPTY_IMAGES / posts)):
        for post in take(share):
            post.image = image
    for post in take(DELETED):
        post.is_deleted = True
    if all(post.general for post in table):
        take(0)[0].general = []
    if all(len(post.general) <= 30 for post in table):
        post = next(post for post in shuffled if post.general)
        post.general = sorted({*post.general, *drop_colours(DETAILS[:60], post.scene)[:40]})


# ---------------------------------------------------------------------------------------------------------------------
# Metadata of both generations
# ---------------------------------------------------------------------------------------------------------------------
def write_metadata(table: list[Post], seed: int, folder: Path) -> None:
    """Write both of METADATA, about the same posts."""
    names = sorted({(name, category) for post in table for name, category in tags_of(post)})
    tag_ids = {name: str(1000 + 7 * k) for k, name in enumerate(names)}
    rng = np.random.default_rng([seed, 2])
    twice = {table[i].id for i in rng.choice(len(table), DUPLICATE_ROWS, replace=False)}
    nested, flat = [], []
    for post in table:
        common = common_fields(post, seed)
        for _ in range(2 if post.id in twice else 1):
            nested.append(json.dumps(record_2017(post, common, tag_ids), ensure_ascii=False))
            flat.append(json.dumps(record_2021(post, common), ensure_ascii=False))
    for k in range(ROWS_WITHOUT_ID):  # posts for gold members: the dump has the tags but no id, no md5
        post = table[int(rng.integers(len(table)))]
        row = record_2021(post, common_fields(replace(post, id=LAST_ID + k), seed))
        row = {key: value for key, value in row.items() if key not in ("id", "md5")} | {"is_banned": True}
        flat.insert(int(rng.integers(len(flat))), json.dumps(row, ensure_ascii=False))
    for lines, name in zip((nested, flat), METADATA, strict=True):
        at = int(rng.integers(1, len(lines)))
        lines.insert(at, lines[at - 1][: len(lines[at - 1]) // 2])  # an interrupted write: half of the line before
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def tags_of(post: Post) -> list[tuple[str, str]]:
    """All tags of a post as (name, category), sorted by name."""
    groups = (
        ("0", post.general),
        ("1", [post.artist]),
        ("3", post.copyrights),
        ("4", post.characters),
        ("5", post.meta),
    )
    return sorted((name, category) for category, names in groups for name in names)


def common_fields(post: Post, seed: int) -> dict:
    """The fields that both generations of metadata share; numbers are strings, as in the real dumps."""
    rng = np.random.default_rng([seed, post.id, 3])
    day = 1 + int(365 * 12 * (post.id - 1_000_000) / (LAST_ID - 1_000_000))
    hour, minute, second = (int(rng.integers(limit)) for limit in (24, 60, 60))
    created = f"{np.datetime64('2010-01-01') + day} {hour:02d}:{minute:02d}:{second:02d} UTC"
    is_large = "highres" in post.meta
    width, height = (
        (int(rng.integers(1600, 2400)), int(rng.integers(1200, 3200)))
        if is_large
        else (int(rng.integers(500, 1100)), int(rng.integers(500, 1190)))
    )
    md5 = hashlib.md5(f"{seed}:{post.id}".encode()).hexdigest()  # of the original file, which nobody drew
    up, down = int(rng.poisson(6)), int(rng.poisson(0.3))
    return {
        "id": str(post.id),
        "created_at": created,
        "uploader_id": str(rng.integers(1, 500_000)),
        "score": str(up - down),
        "source": f"https://art.example/{post.artist}/{post.id}",
        "md5": md5,
        "rating": post.rating,
        "image_width": str(width),
        "image_height": str(height),
        "file_ext": ("jpg", "png")[int(rng.random() < 0.4)],
        "file_size": str(width * height // 4),
        "up_score": str(up),
        "down_score": str(-down),
        "has_children": False,
        "is_pending": False,
        "is_flagged": False,
        "is_deleted": post.is_deleted,
        "is_banned": False,
        "updated_at": created,
    }


def record_2017(post: Post, common: dict, tag_ids: dict[tuple[str, str], str]) -> dict:
    """The nested record of Danbooru2017-2020; absent parents are "0"."""
    never = "1970-01-01 00:00:00 UTC"
    tags = [{"id": tag_ids[tag], "name": tag[0], "category": tag[1]} for tag in tags_of(post)]
    more = {
        "last_commented_at": never,
        "last_noted_at": never,
        "parent_id": "0",
        "pixiv_id": "0",
        "approver_id": "0",
        "is_note_locked": False,
        "is_rating_locked": False,
        "is_status_locked": False,
    }
    return {**common, **more, "tags": tags, "pools": [], "favs": []}


def record_2021(post: Post, common: dict) -> dict:
    """The flat record of Danbooru2021; a null field, and so an empty tag string, is absent."""
    tags = tags_of(post)
    record = {
        **common,
        "fav_count": common["up_score"],
        "bit_flags": "0",
        "has_large": False,
        "has_active_children": False,
        "has_visible_children": False,
        "tag_count": str(len(tags)),
        "tag_string": " ".join(name for name, _ in tags),
    }
    for kind, code in (("general", "0"), ("artist", "1"), ("copyright", "3"), ("character", "4"), ("meta", "5")):
        names = [name for name, category in tags if category == code]
        record[f"tag_count_{kind}"] = str(len(names))
        if names:
            record[f"tag_string_{kind}"] = " ".join(names)
    return record


# ---------------------------------------------------------------------------------------------------------------------
# Images and the command
# ---------------------------------------------------------------------------------------------------------------------
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


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse to replace anything but an older dump of this program, and that only when told to."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not output.is_dir():
        raise FileExistsError(f"--output must be a folder, but {output} is a file. Give another name.")
    found = sorted(path.name for path in output.iterdir())[:5]
    if not (output / "mini_booru.json").is_file():
        raise FileExistsError(
            f"{output} is not empty and not a mini_booru dump (no mini_booru.json; it holds {found}). "
            "Give another --output."
        )
    if not overwrite:
        raise FileExistsError(f"{output} already holds a mini_booru dump ({found}). Add --overwrite to replace it.")


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
    check_output(output, overwrite)
    seed, earlier = read_earlier(more_of) if more_of else (seed, 0)
    table = make_posts(posts, seed, earlier)
    output.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        write_metadata(table, seed, work)
        draw_posts(table, seed, work, workers)
        draw_contact_sheet(table, work)
        counts = summary(table, seed) | ({"more_of": {"posts": earlier}} if earlier else {})
        # By these a build knows that what it reads was drawn here, whatever the folder is called.
        counts["metadata_sha256"] = {name: hashlib.sha256((work / name).read_bytes()).hexdigest() for name in METADATA}
        (work / "mini_booru.json").write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
        work.chmod(0o755)  # mkdtemp makes it private
        if output.exists():
            shutil.rmtree(output)
        os.replace(work, output)
    finally:
        shutil.rmtree(work, ignore_errors=True)
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

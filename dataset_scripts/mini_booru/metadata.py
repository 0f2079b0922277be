"""The metadata of the embedded dump, in both generations of Danbooru's."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from dataset_scripts.mini_booru.posts import LAST_ID, Post

ROWS_WITHOUT_ID, DUPLICATE_ROWS = 3, 3
METADATA = ("metadata/posts.jsonl", "metadata_2021/posts000000000000.json")  # the same posts in two formats


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

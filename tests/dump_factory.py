"""Tiny dumps for the tests of the builder: both metadata generations, pictures of a few pixels, dirt on request."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image


@dataclass
class Post:
    """One post as the tests write it down."""

    id: int | None
    characters: list[str]
    general: list[str]
    rating: str = "s"
    deleted: bool = False
    other: list[str] = field(default_factory=lambda: ["some_artist", "highres"])
    more: dict = field(default_factory=dict)  # further keys of the record

    def flat(self) -> str:
        record = {
            "id": None if self.id is None else str(self.id),
            "rating": self.rating,
            "is_deleted": self.deleted,
            "tag_string_general": " ".join(self.general) or None,
            "tag_string_character": " ".join(self.characters) or None,
            "tag_string_artist": " ".join(self.other[:1]) or None,
            "tag_string_meta": " ".join(self.other[1:]),
            **self.more,
        }
        return json.dumps({key: value for key, value in record.items() if value is not None}, ensure_ascii=False)

    def nested(self) -> str:
        tags = [(name, "4") for name in self.characters] + [(name, "0") for name in self.general]
        tags += [(name, "1") for name in self.other[:1]] + [(name, "5") for name in self.other[1:]]
        record = {
            "id": None if self.id is None else str(self.id),
            "rating": self.rating,
            "is_deleted": self.deleted,
            "tags": [{"id": "7", "name": name, "category": category} for name, category in tags],
            **self.more,
        }
        return json.dumps({key: value for key, value in record.items() if value is not None}, ensure_ascii=False)


def picture(post_id: int, kind: str = "JPEG") -> bytes:
    """A small picture whose colour depends on the id."""
    buffer = io.BytesIO()
    color = (post_id * 37 % 256, post_id * 101 % 256, post_id * 11 % 256)
    Image.new("RGB", (8, 8), color).save(buffer, kind)
    return buffer.getvalue()


def image_path(dump: Path, post_id: int, suffix: str = ".jpg") -> Path:
    return dump / "512px" / f"{post_id % 1000:04d}" / f"{post_id}{suffix}"


def write_dump(dump: Path, posts: list[Post], generation: str = "flat", extra_lines: tuple[str, ...] = ()) -> Path:
    """Write posts and a picture for each that is rated `s` or `g`; `extra_lines` go in the middle of the file."""
    folder = dump / ("metadata_2021" if generation == "flat" else "metadata")
    folder.mkdir(parents=True, exist_ok=True)
    lines = [getattr(post, generation)() for post in posts]
    lines[len(lines) // 2 : len(lines) // 2] = extra_lines
    name = "posts000000000000.json" if generation == "flat" else "posts.jsonl"
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for post in posts:
        if post.id is not None and post.rating in "sg":
            path = image_path(dump, post.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(post.id))
    return dump


def dirty_posts() -> list[Post]:
    """Posts that meet every rule: by hand, see test_build_danmul.py."""
    posts = []
    for index in range(12):  # alice: twelve good posts
        general = ["1girl", "long_hair", f"pair_{index // 2}", ">_<", *(["once_only"] if index == 3 else [])]
        posts.append(Post(1000 + index, ["alice_(wonderland)"], general))
    for index in range(10):  # bob: exactly ten, one of them without any tag
        posts.append(Post(2000 + index, ["bob"], [] if index == 4 else ["1boy", "帽子", "v", "s.m.s."]))
    for index in range(9):  # carol: one short of ten
        posts.append(Post(3000 + index, ["carol"], ["1girl", "carols_tag"]))
    posts += [
        Post(4000, [], ["no_humans"]),
        Post(4001, ["alice_(wonderland)", "bob"], ["2girls"]),
        Post(4002, ["alice_(wonderland)"], ["1girl"], rating="q"),
        Post(4003, ["bob"], ["1boy"], rating="e"),
        Post(None, ["alice_(wonderland)"], ["1girl"]),
        Post(None, [], []),
        Post(1000, ["alice_(wonderland)"], ["1girl", "long_hair", "pair_0", ">_<"]),  # an equal second record
        Post(2001, ["bob"], ["1boy"]),  # a second record with fewer tags
        Post(2002, ["bob"], ["1boy", "v", "s.m.s.", "帽子"], deleted=True),  # a second record that differs in a flag
    ]
    return posts

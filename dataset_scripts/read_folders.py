"""Posts that lie beside their pictures: gallery-dl sidecars, kohya folders, WebDataset tars.

Every reader yields (post or BadLine, ImageFile or None).
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator

import msgspec
from upath import UPath

from dataset_scripts.list_images import SUFFIXES, ImageFile
from dataset_scripts.records import MAX_RECORD_BYTES, ListedPost, ParseTask, PlainPost, bad_line, underscored

REPEATS = re.compile(r"^\d+_(?=.)")  # kohya's `10_name`: ten repeats of name
MAX_CAPTION_BYTES = 2**20
LIGATURE = "|||"  # kohya's keep-token separator


def read_sidecars(task: ParseTask) -> Iterator[tuple[object, ImageFile | None]]:
    """gallery-dl: `PICTURE.json` beside `PICTURE`, for each of `members`, paths relative to `path`."""
    decode = msgspec.json.Decoder(ListedPost, strict=False).decode
    for member in task.members:
        sidecar = UPath(task.path) / member
        content = b""
        try:
            content = limited(sidecar, MAX_RECORD_BYTES)
            post = decode(content.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError) as error:
            yield bad_line(member, 1, error, content), None
            continue
        image = UPath(str(sidecar).removesuffix(".json"))
        yield post, ImageFile(str(image)) if image.exists() else None


def read_folder(task: ParseTask) -> Iterator[tuple[object, ImageFile | None]]:
    """kohya: a picture, its tags in `STEM.txt` if there is one, its character the folder it lies in.

    The post id is a hash of the path, so it does not depend on what else lies there.
    """
    for member in task.members:
        picture = UPath(task.path) / member
        caption = picture.with_suffix(".txt")
        try:
            text = limited(caption, MAX_CAPTION_BYTES).decode("utf-8-sig") if caption.exists() else ""
        except ValueError as error:
            yield bad_line(str(caption.relative_to(UPath(task.path))), 1, error, b""), None
            continue
        folder = member.rsplit("/", 2)[-2] if "/" in member else ""
        character = underscored(REPEATS.sub("", folder))
        tags = caption_tags(text) - {character}
        yield PlainPost(hash_path(member), {character} if character else set(), tags), ImageFile(str(picture))


def caption_tags(text: str) -> set[str]:
    """Tags of a caption: between commas or lines, `\\(` unescaped, spaces as underscores."""
    parts = text.replace(LIGATURE, ",").replace("\n", ",").replace("\\(", "(").replace("\\)", ")").split(",")
    return {tag for part in parts if (tag := underscored(part))}


def hash_path(member: str) -> int:
    """A post id of 63 bits from a relative path: the same on every machine and in every folder."""
    return int.from_bytes(hashlib.blake2b(member.encode("utf-8", "surrogateescape"), digest_size=8).digest()) >> 1


def limited(path: UPath, limit: int) -> bytes:
    """The bytes of a small file. Raises ValueError above `limit`."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"expected at most {limit:,} bytes")
    return content


def read_webdataset(task: ParseTask) -> Iterator[tuple[object, ImageFile | None]]:
    """`KEY.json` and `KEY.webp` (jpg, png) in one tar, uncompressed, so that a picture is a place in it.

    Raises ValueError when the tar is damaged.
    """
    try:
        with UPath(task.path).open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield from webdataset_posts(tar, task)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{task.name} cannot be read to its end as a tar ({error}): get it again.") from error


def webdataset_posts(tar: tarfile.TarFile, task: ParseTask) -> Iterator[tuple[object, ImageFile | None]]:
    """The samples of a tar: members with the same path up to the first dot of the name, one behind the other."""
    decode = msgspec.json.Decoder(ListedPost, strict=False).decode
    key, post, image, number = None, None, None, 0
    for member in tar:
        folder, _, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        if not member.isfile() or not suffix:
            continue
        if (folder, stem) != key:
            if post is not None:
                yield post, image
            key, post, image = (folder, stem), None, None
            number += 1
        if f".{suffix}" in SUFFIXES:
            image = ImageFile(task.path, member.offset_data, member.size, name)
        elif suffix == "json":
            post = decode_member(decode, tar, member, f"{task.name}/{member.name}", stem)
    if post is not None:
        yield post, image


def decode_member(decode, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, stem: str) -> object:
    """The post in a JSON member; its id is that of the record, else the number that the member is named by."""
    content = b""
    try:
        if member.size > MAX_RECORD_BYTES:
            raise ValueError(f"expected at most {MAX_RECORD_BYTES:,} bytes, found {member.size:,}")
        content = tar.extractfile(member).read()
        post = decode(content)
    except (ValueError, RecursionError) as error:
        return bad_line(name, 1, error, content)
    if post.id is None and stem.isascii() and stem.isdigit() and int(stem) < 2**63:
        post.id = int(stem)
    return post

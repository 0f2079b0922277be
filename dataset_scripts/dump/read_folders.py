"""Posts that lie beside their pictures: gallery-dl sidecars, kohya folders, WebDataset tars.

Every reader yields (post, BadLine or the suffix of a file that it does not read, ImageFile or None).
"""

from __future__ import annotations

import codecs
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

import msgspec
from upath import UPath

from dataset_scripts.dump.list_images import SUFFIXES, ImageFile, suffix_of
from dataset_scripts.dump.open_files import open_regular, tar_members
from dataset_scripts.dump.records import MAX_RECORD_BYTES, ParseTask, PlainPost, bad_line, underscored
from dataset_scripts.dump.site_posts import SitePost, hash_text, settle

REPEATS = re.compile(r"^\d+_(?=.)")  # kohya's `10_name`: ten repeats of name
MAX_CAPTION_BYTES = 2**20
LIGATURE = "|||"  # kohya's keep-token separator
CAPTION_SUFFIXES = (".txt", ".caption")
OTHER_KINDS = (  # that a site has posts of, and that are no picture for this data set
    ".gif",
    ".apng",
    ".avif",
    ".jxl",
    ".heic",
    ".heif",
    ".bmp",
    ".tif",
    ".tiff",
    ".svg",
    ".psd",
    ".pdf",
    ".webm",
    ".mp4",
    ".m4v",
    ".mkv",
    ".mov",
    ".avi",
    ".wmv",
    ".flv",
    ".swf",
    ".zip",
    ".ugoira",
    ".rar",
    ".7z",
    ".mp3",
    ".wav",
    ".ogg",
    ".html",
    ".txt",
)
NAMESPACE = re.compile(r"(character|series|creator|studio|person|rating|meta|title|source|page):(.*)", re.DOTALL)
BYTE_ORDER_MARKS = {  # the longer first: that of UTF-32 begins like one of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def is_sidecar(name: str, names: set[str]) -> bool:
    """Whether a file is `PICTURE.json` of a picture, film or archive, which need not be there."""
    stem, suffix = os.path.splitext(name)
    kind = os.path.splitext(stem)[1].lower()
    return suffix.lower() == ".json" and (kind in (*SUFFIXES, *OTHER_KINDS) or bool(kind) and stem in names)


def pair_sidecars(names: list[str]) -> tuple[list[str], Counter[str], Counter[str]]:
    """The sidecars of pictures among the sorted names of a folder; how many are of files of other kinds, and how many
    other files there are, both by suffix."""
    known, members, others, ignored = set(names), [], Counter(), Counter()
    for name in names:
        kind = suffix_of(name[: -len(".json")])
        if is_sidecar(name, known):
            if kind in SUFFIXES:
                members.append(name)
            else:
                others[kind] += 1
        elif f"{name}.json" not in known:
            ignored[suffix_of(name)] += 1
    return members, others, ignored


def pair_captions(names: list[str]) -> tuple[list[str], list[str], Counter[str]]:
    """The pictures among the sorted names of a folder, the caption of each ("" for none), and how many other files
    there are by suffix. Of several captions STEM.txt wins, then PICTURE.EXT.txt, STEM.caption, PICTURE.EXT.caption."""
    captions: dict[tuple[str, str], str] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in CAPTION_SUFFIXES:
            captions.setdefault((stem, suffix.lower()), name)
    pictures = [name for name in names if suffix_of(name) in SUFFIXES]
    chosen = []
    for name in pictures:
        places = [(stem, suffix) for suffix in CAPTION_SUFFIXES for stem in (os.path.splitext(name)[0], name)]
        chosen.append(next((captions[place] for place in places if place in captions), ""))
    read = {*pictures, *chosen}
    return pictures, chosen, Counter(suffix_of(name) for name in names if name not in read)


def read_sidecars(task: ParseTask) -> Iterator[tuple[object, ImageFile | None]]:
    """gallery-dl: `PICTURE.json` beside `PICTURE`, for each of `members`, paths relative to `path`."""
    decode = msgspec.json.Decoder(SitePost, strict=False).decode
    for member in task.members:
        sidecar = UPath(task.path) / member
        content = b""
        try:
            content = limited(sidecar, MAX_RECORD_BYTES)
            post = settle(decode(text_of(content)))
        except (ValueError, OSError, RecursionError) as error:
            yield bad_line(member, 1, error, content), None
            continue
        image = UPath(str(sidecar)[: -len(".json")])
        yield post, ImageFile(str(image)) if image.exists() else None


def read_folder(task: ParseTask) -> Iterator[tuple[object, ImageFile | None]]:
    """kohya: a picture, its tags in its caption if there is one, its character the folder it lies in.

    The post id is a hash of the path, so it does not depend on what else lies there. A caption that names its
    characters itself, as Hydrus writes them (`character:NAME`), is believed.
    """
    for member, caption in zip(task.members, task.captions, strict=True):
        content = b""
        try:
            folder = member.rsplit("/", 2)[-2] if "/" in member else ""
            folder.encode()  # what is no text cannot be a name
            content = limited(UPath(task.path) / caption, MAX_CAPTION_BYTES) if caption else b""
            tags, named = namespaced(caption_tags(text_of(content)))
        except (ValueError, OSError) as error:
            yield bad_line(caption or member, 1, error, content), None
            continue
        character = underscored(REPEATS.sub("", folder))
        characters = named or ({character} if character else set())
        yield PlainPost(hash_text(member), characters, tags - characters), ImageFile(str(UPath(task.path) / member))


def caption_tags(text: str) -> set[str]:
    """Tags of a caption: between commas or lines, `\\(` unescaped, spaces as underscores."""
    parts = text.replace(LIGATURE, ",").replace("\n", ",").replace("\\(", "(").replace("\\)", ")").split(",")
    return {tag for part in parts if (tag := underscored(part))}


def namespaced(tags: set[str]) -> tuple[set[str], set[str]]:
    """General tags and characters of tags in the words of Hydrus; series, creators and the like are neither."""
    found = {tag: NAMESPACE.fullmatch(tag) for tag in tags}
    characters = {match[2].strip("_") for match in found.values() if match and match[1] == "character"}
    return {tag for tag, match in found.items() if not match}, characters - {""}


def text_of(content: bytes) -> str:
    """The text of a small file: UTF-8, or what its byte order mark says. Raises ValueError when it is none."""
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    text = content.decode(encoding)
    if "\0" in text:
        raise ValueError("expected text, found NUL: it may be UTF-16 without its byte order mark")
    return text


def limited(path: UPath, limit: int) -> bytes:
    """The bytes of a small file. Raises ValueError above `limit`, OSError for what is no file."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"expected at most {limit:,} bytes")
    return content


def read_webdataset(task: ParseTask) -> Iterator[tuple[object, ImageFile | None]]:
    """`KEY.json` and `KEY.webp` (jpg, png) in one tar, uncompressed, so that a picture is a place in it.

    Raises ValueError when the tar is damaged.
    """
    try:
        with open_regular(task.path) as file:
            yield from webdataset_posts(file, task)
    except tarfile.TarError as error:
        raise ValueError(f"{task.name} cannot be read to its end as a tar ({error}): get it again.") from error


def webdataset_posts(file: BinaryIO, task: ParseTask) -> Iterator[tuple[object, ImageFile | None]]:
    """The samples of a tar: members with the same path up to the first dot of the name, one behind the other.

    Of several pictures of a sample that of the first suffix in SUFFIXES is its picture, of several records the first.
    """
    decode = msgspec.json.Decoder(SitePost, strict=False).decode
    key, post, image, kind = None, None, None, ""
    for member, content in tar_members(file):
        folder, _, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        if not member.isfile():
            continue
        if (folder, stem) != key:
            yield from sample(post, image, kind)
            key, post, image, kind = (folder, stem), None, None, ""
        suffix = f".{suffix.lower()}"
        if suffix in SUFFIXES and (image is None or SUFFIXES.index(suffix) < SUFFIXES.index(kind)):
            if image is not None:
                yield kind, None
            image, kind = ImageFile(task.path, member.offset_data, member.size, name), suffix
        elif suffix == ".json" and post is None:
            post = decode_member(decode, content, member.size, f"{task.name}/{member.name}", stem)
        else:
            yield suffix_of(name), None
    yield from sample(post, image, kind)


def sample(post: object, image: ImageFile | None, kind: str) -> Iterator[tuple[object, ImageFile | None]]:
    """The post with its picture; a picture without post is one that is not read."""
    if post is not None:
        yield post, image
    elif image is not None:
        yield kind, None


def decode_member(decode, file: BinaryIO, size: int, name: str, stem: str) -> object:
    """The post in a JSON member; its id is that of the record, else the number that the member is named by."""
    content = b""
    try:
        if size > MAX_RECORD_BYTES:
            raise ValueError(f"expected at most {MAX_RECORD_BYTES:,} bytes, found {size:,}")
        content = file.read()
        post = decode(text_of(content))
        if post.id is None and stem.isascii() and stem.isdigit() and int(stem) < 2**63:
            post.id = int(stem)
        return settle(post)
    except (ValueError, RecursionError) as error:
        return bad_line(name, 1, error, content)

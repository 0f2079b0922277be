"""Detects what a dump is: its format, its metadata as tasks, and where its images lie."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from dataset_scripts.dump.list_images import SUFFIXES, ImageListing, counted, list_beside, list_buckets, list_tars
from dataset_scripts.dump.open_files import DAMAGED, open_regular, tar_members
from dataset_scripts.dump.parse import Parsed
from dataset_scripts.dump.read_folders import is_sidecar, pair_captions, pair_sidecars
from dataset_scripts.dump.read_json import (
    COMPRESSED_SUFFIXES,
    JSON_SUFFIXES,
    TAR_SUFFIXES,
    is_one_value,
    lines_from,
    opened_files,
    records_of,
    shape_of,
)
from dataset_scripts.dump.read_tables import DAFRE_SPLITS, parquet_columns
from dataset_scripts.dump.records import ParseTask, printable
from dataset_scripts.dump.site_posts import HOME_SITES
from dataset_scripts.rules.posts_table import in_sorted
from dataset_scripts.rules.select_posts import duplicate_posts

RANGE_BYTES = 64 * 2**20
MEMBERS_PER_TASK = 5_000
HEAD_MEMBERS = 20  # of a tar, or sidecars of a folder, that are looked at
FORMATS = {  # name: what it is, as the first line of output says
    "flat": "tag_string_*, as in Danbooru2021 and Danbooru's API",
    "nested": "tags lists, as in Danbooru2017-2020",
    "parquet": "tables of tag_string_* or *_tags, as on the Hub",
    "dafre": "the published CSVs of DAF:re",
    "webdataset": "tars of pictures with JSON beside them",
    "gallery-dl": "pictures with JSON sidecars",
    "folder": "pictures with .txt or .caption beside them, the folder names the character, as for kohya",
}
BESIDE = ("webdataset", "gallery-dl", "folder")  # formats whose metadata lie beside the images


@dataclass
class Dump:
    """A dump of one format."""

    source: UPath
    format: str
    files: list[UPath]  # metadata files; pictures for "folder"
    tasks: list[ParseTask]
    not_read: list[UPath] = field(default_factory=list)  # posts in another format: the same posts a second time
    other_kinds: Counter[str] = field(default_factory=Counter)  # sidecars of files that are no pictures, by suffix
    ignored: Counter[str] = field(default_factory=Counter)  # files beside the pictures that are not read, by suffix

    def describe(self) -> str:
        """One line: format, files, and what the dump holds besides."""
        line = f"metadata: {self.format} ({FORMATS[self.format]}), {self.names(self.files)}"
        if self.not_read:
            line += f"; not read, because they describe the same posts: {self.names(self.not_read)}"
        return line

    def names(self, files: list[UPath]) -> str:
        """The first file as the user knows it, and how many there are."""
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        return f"{relative(files[0], self.source)}{more}"

    def check_images_folder(self, images: str | None) -> None:
        """Raises FileNotFoundError or ValueError for an --images that leads nowhere, before hours of reading."""
        if images is None:
            return
        if self.format in BESIDE:
            raise ValueError(f"--images {images} means nothing to the format {self.format}: leave it out.")
        if not images or not (self.source / images).is_dir():
            found = sorted(f"{path.name}/" for path in self.source.iterdir() if path.is_dir())[:10]
            raise FileNotFoundError(
                f"--images expects a folder within {self.source}, but {images!r} is none; there are "
                f"{', '.join(found) or 'no folders'}."
            )

    def list_beside(self, parsed: Parsed) -> ImageListing:
        """The images beside their records. Of several records of an id one is taken, whole: with its own picture.

        The others leave `parsed`: one without picture for one with, then all but the one that `duplicate_posts` keeps.
        """
        posts, images = parsed.posts, parsed.images
        has_image = np.fromiter((image is not None for image in images), bool, len(images))
        if not has_image.any():
            raise FileNotFoundError(
                f"Expected pictures beside the metadata in {self.source}, found none: check the download."
            )
        dropped = ~has_image & in_sorted(posts.post_ids, np.unique(posts.post_ids[has_image]))
        second, num_conflicts = duplicate_posts(posts.drop_posts(dropped))
        dropped[~dropped] = second
        parsed.posts = posts.drop_posts(dropped)
        parsed.images = [image for image, is_dropped in zip(images, dropped.tolist(), strict=True) if not is_dropped]
        notes = [
            counted("posts without a picture of a kind that is read", self.other_kinds),
            f"further records of an id, left out with their pictures: {dropped.sum():,}" if dropped.any() else "",
        ]
        if parsed.sites.keys() - set(HOME_SITES):
            sites = Counter({printable(site)[:40] or "no site": number for site, number in parsed.sites.items()})
            notes.append(f"{counted('posts of sites', sites)}; ids of others than Danbooru are hashes of site and id")
        ignored = self.ignored + parsed.ignored
        return list_beside(parsed.posts.post_ids, parsed.images, ignored, [n for n in notes if n], num_conflicts)

    def list_images(self, parsed: Parsed, images: str | None) -> ImageListing:
        """Where the images lie. `images`: the folder that --images names, or None.

        Raises FileNotFoundError when there are none.
        """
        self.check_images_folder(images)
        if self.format in BESIDE:
            return self.list_beside(parsed)
        folders = [images] if images else ["512px", "original", "faces", "fullMin256"]
        folder = next((self.source / name for name in folders if (self.source / name).is_dir()), None)
        # Not deeper: a 512px folder has a thousand folders of thousands of files.
        tars = [*folder.glob("*.tar")] if folder else [*self.source.glob("*.tar"), *self.source.glob("*/*.tar")]
        if tars and not images:
            tars = [*self.source.glob("*.tar"), *self.source.glob("*/*.tar")]  # original/, recent/ and updates
        return list_tars(sorted(tars, key=str)) if tars else list_buckets(self.source, folder, folders)


def find_dump(source: UPath, format: str = "auto") -> Dump:
    """What `source` is, or the dump that it is when read as `format`.

    Raises FileNotFoundError when nothing of the format is there, ValueError when a metadata file is damaged.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"--source expects the folder of a dump, but {source} is not a folder.")
    if (source / "labels").is_dir() and format in ("auto", "dafre"):
        files = [source / "labels" / f"{name}.csv" for name in DAFRE_SPLITS]
        files = [path for path in files if path.exists()]
        if files:
            tasks = [ParseTask(str(path), relative(path, source), "dafre") for path in files]
            return Dump(source, "dafre", files, tasks)
    if format in ("auto", "flat", "nested", "parquet"):
        found = metadata_files(source)
        usable = [name for name in ("flat", "nested", "parquet") if found[name]]
        chosen = (usable[0] if usable else None) if format == "auto" else format
        if chosen and found[chosen]:
            others = [path for name in usable if name != chosen for path in found[name]]
            tasks = [task for path, shape in found[chosen].items() for task in metadata_tasks(path, source, shape)]
            return Dump(source, chosen, list(found[chosen]), tasks, others)
    for name in BESIDE:
        if format in ("auto", name) and (dump := dump_beside(source, name, sure=format == name)):
            return dump
    wanted = f"metadata of the format {format}" if format != "auto" else "metadata"
    raise FileNotFoundError(
        f"Expected {wanted} in {source}: posts in {source}/metadata*/ or in the folder itself (.json, .jsonl, "
        f".parquet, compressed or in a tar), labels/*.csv, or pictures with .json or .txt beside them. "
        f"Found {listing(source)}. Give the top folder of the dump, or name its --format."
    )


def listing(source: UPath) -> str:
    """The first things in a folder, and what is in metadata*/, with sizes."""
    paths = sorted(source.iterdir(), key=lambda path: path.name)
    paths += [
        path
        for folder in paths
        if folder.name.startswith("metadata") and folder.is_dir()
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
    ]
    names = [
        f"{relative(path, source)} ({path.stat().st_size:,} bytes)" if path.is_file() else f"{printable(path.name)}/"
        for path in paths[:20]
    ]
    return ", ".join(names) or "nothing"


def relative(path: UPath, source: UPath) -> str:
    """The path as the user knows it, in any terminal and any file."""
    return printable(below(path, source))


def below(path: UPath, source: UPath) -> str:
    """The path within `source`, as it opens."""
    return str(path)[len(str(source)) :].lstrip("/")


def metadata_files(source: UPath) -> dict[str, dict[UPath, str]]:
    """Files with posts in `source/metadata*/`, else in `source`, and their shapes, by format."""
    folders = sorted((path for path in source.glob("metadata*") if path.is_dir()), key=str)
    found: dict[str, dict[UPath, str]] = {"flat": {}, "nested": {}, "parquet": {}}
    for folder in folders or [source]:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
        names = {path.name for path in paths}
        for path in paths:
            if not path.is_file() or is_sidecar(path.name, names):
                continue
            if shape := shape_of_file(path, relative(path, source)):
                found["flat" if shape == "listed" else shape][path] = shape
    return found


def shape_of_file(path: UPath, name: str) -> str | None:
    """The shape of the posts in a file, or "parquet"; None for any other file. Raises ValueError for a broken one."""
    if path.name.endswith(".parquet"):
        try:
            with open_regular(path) as file:
                return "parquet" if parquet_columns(pq.read_schema(file).names) else None
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{name} cannot be read as Parquet ({error}): get it again, or remove it.") from error
    if path.name.endswith(JSON_SUFFIXES):
        with open_regular(path) as file:
            return shape_of(records_of(file, name), name)
    if path.name.endswith(COMPRESSED_SUFFIXES) or (path.name.endswith(".tar") and "picture" not in kinds_in(path)):
        return shape_in_archive(path, name)
    return None


def shape_in_archive(path: UPath, name: str) -> str | None:
    """The shape of the first file of posts in a compressed file or tar. Archives of other things are no posts."""
    uncompressed = path.name.removesuffix(".gz").removesuffix(".xz").removesuffix(".zst").removesuffix(".bz2")
    if not uncompressed.endswith((*JSON_SUFFIXES, ".tar", *TAR_SUFFIXES)):
        return None
    try:
        for member, file in opened_files(str(path), name):
            if file is not None and (shape := shape_of(records_of(file, member), member)):
                return shape
    except DAMAGED as error:
        raise ValueError(f"{name} cannot be unpacked ({error}): get it again, or remove it.") from error
    return None


def metadata_tasks(path: UPath, source: UPath, shape: str) -> Iterator[ParseTask]:
    """The tasks of a metadata file: byte ranges and row groups, because twelve files do not balance over 16 cores."""
    name = relative(path, source)
    if shape == "parquet":
        with path.open("rb") as file:
            groups = pq.ParquetFile(file).num_row_groups
        yield from (ParseTask(str(path), name, "parquet", start=group, end=group + 1) for group in range(groups))
    elif not path.name.endswith(JSON_SUFFIXES) or is_one_value(first_line(path)):
        yield ParseTask(str(path), name, "json")
    else:
        for start in range(0, max(path.stat().st_size, 1), RANGE_BYTES):
            yield ParseTask(str(path), name, "lines", start, start + RANGE_BYTES)


def first_line(path: UPath) -> bytes:
    """The first line of a JSON file that is not blank."""
    with open_regular(path) as file:
        return next((line for line in lines_from(file) if line.strip()), b"")


def dump_beside(source: UPath, format: str, sure: bool) -> Dump | None:
    """A dump whose metadata lie beside its pictures, or None when `source` is none of this format.

    Pictures alone are a dump only if the user is `sure` of it: they may be those of a dump without its metadata.
    """
    if format == "webdataset":
        tars = [path for path in sorted(source.rglob("*.tar"), key=str) if kinds_in(path) == {"json", "picture"}]
        tasks = [ParseTask(str(path), relative(path, source), "webdataset") for path in tars]
        return Dump(source, format, tars, tasks) if tars else None
    names, ignored = [], Counter()
    for path in source.rglob("*"):
        if path.is_file():
            names.append(below(path, source))
        elif path.is_symlink() and path.is_dir():  # rglob does not enter it: it may lead back here
            ignored["linked folder"] += 1
        elif not path.is_dir():
            ignored["no regular file"] += 1
    captions, other_kinds = [], Counter()
    if format == "gallery-dl":
        members, other_kinds, not_read = pair_sidecars(sorted(names))
    else:
        members, captions, not_read = pair_captions(sorted(names))
        if not sure and not any(captions):
            return None
    container = "sidecars" if format == "gallery-dl" else "folder"
    tasks = [
        ParseTask(
            str(source),
            f"{container} {start + 1:,} and on",
            container,
            members=tuple(members[start : start + MEMBERS_PER_TASK]),
            captions=tuple(captions[start : start + MEMBERS_PER_TASK]),
        )
        for start in range(0, len(members), MEMBERS_PER_TASK)
    ]
    files = [source / name for name in members]
    return Dump(source, format, files, tasks, [], other_kinds, ignored + not_read) if files else None


def kinds_in(path: UPath) -> set[str]:
    """Which of "json" and "picture" are among the first members of a tar; nothing for a folder or a pipe of that name.

    Raises ValueError for a file that is no whole tar, as far as it is looked at.
    """
    if not path.is_file():
        return set()
    try:
        with open_regular(path) as file:
            names = [member.name for member, _ in islice(tar_members(file), HEAD_MEMBERS)]
    except tarfile.TarError as error:
        raise ValueError(f"{printable(path)} is no whole tar ({error}): get it again, or remove it.") from error
    kinds = {"json": JSON_SUFFIXES, "picture": SUFFIXES}
    return {kind for kind, suffixes in kinds.items() if any(name.endswith(suffixes) for name in names)}

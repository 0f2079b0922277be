"""Where the image of each post lies: a file `512px/NNNN/ID.jpg`, or any file, or a member of a tar."""

from __future__ import annotations

import io
import os
import tarfile
from array import array
from collections import Counter
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm
from upath import UPath

from dataset_scripts.dump.open_files import open_regular, tar_members
from dataset_scripts.dump.records import printable

# In order of preference when an id has several files.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".jfif", ".jpe", ".JPG", ".JPEG", ".PNG", ".WEBP", ".JFIF", ".JPE")
SHOWN_SUFFIXES = 10


class ImageFile(NamedTuple):
    """The bytes of one image: `size` bytes from `offset` of the file at `path`, or the whole file (size -1)."""

    path: str  # local, or a URL that fsspec knows
    offset: int = 0
    size: int = -1
    member: str = ""  # its name within a tar

    @property
    def name(self) -> str:
        """The last part of the path, as the data set shows it: text, even where it is none on disk."""
        return printable((self.member or self.path).rsplit("/", 1)[-1])


def open_image(file: ImageFile) -> BinaryIO:
    """The image as a seekable binary stream. Raises OSError (FileNotFoundError) as `open` does."""
    stream = open_regular(file.path)
    if file.size < 0:
        return stream
    with stream:
        stream.seek(file.offset)
        return io.BytesIO(stream.read(file.size))


@dataclass
class ImageListing:
    """The images of a dump by rising id. A layout is one subclass, which says where the images of posts lie."""

    ids: np.ndarray  # int64, unique, sorted
    ignored: Counter[str]  # files that are no image of a post by the rules of the layout, by suffix
    num_conflicts = 0  # ids with several records that differ, of which one was taken with its image

    @property
    def num_ignored(self) -> int:
        return self.ignored.total()

    def describe(self) -> str:
        """The place of the images, and the other files there."""
        return f"{self.place()}\n{counted('files not read', self.ignored)}".rstrip("\n")

    def place(self) -> str:
        """The place of the images, in a few words."""
        raise NotImplementedError

    def files(self, post_ids: np.ndarray) -> list[ImageFile]:
        """The images of posts that are in the listing, in the order asked for."""
        raise NotImplementedError


@dataclass
class BucketListing(ImageListing):
    """Images `folder/NNNN/ID.jpg`: no name is kept, 9 bytes an image."""

    folder: str
    suffixes: np.ndarray  # int8, index into SUFFIXES

    def place(self) -> str:
        return f"{self.folder.rsplit('/', 1)[-1]}/NNNN/ID.*"

    def files(self, post_ids: np.ndarray) -> list[ImageFile]:
        """Built from integers: a name in the dump cannot lead elsewhere."""
        suffixes = self.suffixes[np.searchsorted(self.ids, post_ids)]
        return [
            ImageFile(f"{self.folder}/{post_id % 1000:04d}/{post_id}{SUFFIXES[suffix]}")
            for post_id, suffix in zip(post_ids.tolist(), suffixes.tolist(), strict=True)
        ]


@dataclass
class TarListing(ImageListing):
    """Images `ID.jpg` in tars: 40 bytes an image."""

    tars: list[str]
    tar_codes: np.ndarray  # int64 [n], index into tars
    offsets: np.ndarray  # int64 [n]
    sizes: np.ndarray  # int64 [n]
    suffixes: np.ndarray  # int64 [n]

    def place(self) -> str:
        return f"{len(self.tars):,} tars"

    def files(self, post_ids: np.ndarray) -> list[ImageFile]:
        places = np.searchsorted(self.ids, post_ids)
        columns = (self.tar_codes, self.offsets, self.sizes, self.suffixes)
        return [
            ImageFile(self.tars[tar], offset, size, f"{post_id}{SUFFIXES[suffix]}")
            for post_id, tar, offset, size, suffix in zip(
                post_ids.tolist(), *(column[places].tolist() for column in columns), strict=True
            )
        ]


@dataclass
class NamedListing(ImageListing):
    """Images anywhere, as the metadata beside them said."""

    images: list[ImageFile]
    notes: list[str]  # what was found and is not in the listing
    num_conflicts: int = 0

    def place(self) -> str:
        return "\n".join(("places beside their metadata", *self.notes))

    def files(self, post_ids: np.ndarray) -> list[ImageFile]:
        return [self.images[place] for place in np.searchsorted(self.ids, post_ids)]


def list_beside(
    post_ids: np.ndarray, images: list[ImageFile | None], ignored: Counter[str], notes: list[str], num_conflicts: int
) -> ImageListing:
    """The images that lay beside the records of posts; no id occurs twice."""
    places = [place for place in np.argsort(post_ids).tolist() if images[place] is not None]
    return NamedListing(post_ids[places], ignored, [images[place] for place in places], notes, num_conflicts)


def suffix_of(name: str) -> str:
    """The suffix of a file name in small letters, as files are counted by."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) < 10 else "other names"


def counted(what: str, numbers: Counter[str]) -> str:
    """`what: 5 (.gif 3, .txt 2)`; nothing for nothing."""
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {number:,}" for name, number in ordered[:SHOWN_SUFFIXES]]
    more = ["..."] if len(ordered) > len(shown) else []
    return f"{what}: {numbers.total():,} ({', '.join(shown + more)})" if ordered else ""


def list_tars(tars: list[UPath]) -> ImageListing:
    """Read the headers of all tars once: members `ID.jpg`, in any folder, are the images.

    Raises FileNotFoundError when there is none, ValueError for a damaged tar.
    """
    columns = {name: array("q") for name in ("ids", "tars", "offsets", "sizes", "suffixes")}
    ignored = Counter()
    for code, path in enumerate(tqdm(tars, "reading tars", unit=" tars", disable=None)):
        try:
            with open_regular(path) as file:
                for member, _ in tar_members(file):
                    stem, suffix = os.path.splitext(member.name.rsplit("/", 1)[-1])
                    if not member.isfile() or not is_id(stem) or suffix not in SUFFIXES:
                        if member.isfile():
                            ignored[suffix_of(member.name)] += 1
                        continue
                    row = (int(stem), code, member.offset_data, member.size, SUFFIXES.index(suffix))
                    for column, value in zip(columns.values(), row, strict=True):
                        column.append(value)
        except tarfile.TarError as error:
            raise ValueError(f"{path} cannot be read to its end as a tar ({error}): get it again.") from error
    if not columns["ids"]:
        raise FileNotFoundError(f"Expected images named ID.jpg in the tars, found none in {tars[0]} and others.")
    arrays = [np.array(column) for column in columns.values()]
    order = np.lexsort((arrays[1], arrays[4], arrays[0]))
    ids, first = np.unique(arrays[0][order], return_index=True)
    codes, offsets, sizes, suffixes = (values[order][first] for values in arrays[1:])
    return TarListing(ids, ignored, [str(path) for path in tars], codes, offsets, sizes, suffixes)


def is_id(stem: str) -> bool:
    """Whether a file is named by a post id: digits without leading zeros that fit 63 bits."""
    return stem.isascii() and stem.isdigit() and len(stem) < 19 and str(int(stem)) == stem


def list_buckets(source: UPath, folder: UPath | None, tried: list[str]) -> ImageListing:
    """List `folder` once: a thousand folders instead of millions of look-ups.

    Raises FileNotFoundError when the folder is absent or holds no image in the layout NNNN/ID.jpg.
    """
    if folder is None:
        found = sorted(path.name for path in source.iterdir())[:10]
        raise FileNotFoundError(
            f"Expected the images in {source}/{tried[0]}/NNNN/ID.jpg (NNNN = id % 1000) or in tars there, found "
            f"{found} in {source}: put or link that folder there, or name it with --images."
        )
    ids, suffixes, ignored = array("q"), array("b"), Counter()
    for bucket in sorted((path for path in folder.iterdir() if path.is_dir()), key=str):
        for name in file_names(bucket):
            stem, suffix = os.path.splitext(name)
            if suffix in SUFFIXES and is_id(stem) and bucket.name == f"{int(stem) % 1000:04d}":
                ids.append(int(stem))
                suffixes.append(SUFFIXES.index(suffix))
            else:
                ignored[suffix_of(name)] += 1
    if not ids:
        raise FileNotFoundError(
            f"Expected images named NNNN/ID.jpg (NNNN = id % 1000) in {folder}, found {ignored.total()} other files: "
            "check that the download is complete and unpacked."
        )
    all_ids, all_suffixes = np.array(ids, np.int64), np.array(suffixes, np.int8)
    order = np.lexsort((all_suffixes, all_ids))
    unique_ids, first = np.unique(all_ids[order], return_index=True)
    return BucketListing(unique_ids, ignored, str(folder), all_suffixes[order][first])


def file_names(folder: UPath) -> list[str]:
    """Names in a folder; four times as fast for a local one as paths are."""
    return os.listdir(folder) if isinstance(folder, os.PathLike) else [path.name for path in folder.iterdir()]

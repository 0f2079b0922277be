"""Where the image of each post lies: a file `512px/NNNN/ID.jpg`, or any file, or a member of a tar."""

from __future__ import annotations

import io
import os
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from upath import UPath

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # in order of preference when an id has several files


class ImageFile(NamedTuple):
    """The bytes of one image: `size` bytes from `offset` of the file at `path`, or the whole file (size -1)."""

    path: str  # local, or a URL that fsspec knows
    offset: int = 0
    size: int = -1

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]


def open_image(file: ImageFile) -> BinaryIO:
    """The image as a seekable binary stream. Raises OSError (FileNotFoundError) as `open` does."""
    stream = UPath(file.path).open("rb")
    if file.size < 0:
        return stream
    with stream:
        stream.seek(file.offset)
        return io.BytesIO(stream.read(file.size))


@dataclass
class ImageListing:
    """The images of a dump by rising id. A layout is one subclass, which says where the images of posts lie."""

    ids: np.ndarray  # int64, unique, sorted
    num_ignored: int  # files of the dump that are no image of a post by the rules of its layout

    def files(self, post_ids: np.ndarray) -> list[ImageFile]:
        """The images of posts that are in the listing, in the order asked for."""
        raise NotImplementedError


@dataclass
class BucketListing(ImageListing):
    """Images `folder/NNNN/ID.jpg`: no name is kept, 9 bytes an image."""

    folder: str
    suffixes: np.ndarray  # int8, index into SUFFIXES

    def files(self, post_ids: np.ndarray) -> list[ImageFile]:
        """Built from integers: a name in the dump cannot lead elsewhere."""
        suffixes = self.suffixes[np.searchsorted(self.ids, post_ids)]
        return [
            ImageFile(f"{self.folder}/{post_id % 1000:04d}/{post_id}{SUFFIXES[suffix]}")
            for post_id, suffix in zip(post_ids.tolist(), suffixes.tolist(), strict=True)
        ]


def list_images(source: Path) -> ImageListing:
    """List `source/512px` once: a thousand scandir calls instead of millions of look-ups.

    Raises FileNotFoundError when the folder is absent or holds no image in the layout NNNN/ID.jpg.
    """
    folder = source / "512px"
    if not folder.is_dir():
        found = sorted(path.name for path in source.iterdir())[:10]
        raise FileNotFoundError(
            f"Expected the images in {folder}/NNNN/ID.jpg (NNNN = id % 1000), found {found} in {source}: "
            "put or link the 512px folder there."
        )
    ids, suffixes, num_ignored = array("q"), array("b"), 0
    for bucket in sorted(path for path in folder.iterdir() if path.is_dir()):
        with os.scandir(bucket) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                is_id = stem.isascii() and stem.isdigit() and len(stem) < 19 and str(int(stem)) == stem
                if is_id and suffix in SUFFIXES and bucket.name == f"{int(stem) % 1000:04d}":
                    ids.append(int(stem))
                    suffixes.append(SUFFIXES.index(suffix))
                else:
                    num_ignored += 1
    if not ids:
        raise FileNotFoundError(
            f"Expected images named NNNN/ID.jpg (NNNN = id % 1000) in {folder}, found {num_ignored} other files: "
            "check that the download is complete and unpacked."
        )
    all_ids, all_suffixes = np.array(ids, np.int64), np.array(suffixes, np.int8)
    order = np.lexsort((all_suffixes, all_ids))
    unique_ids, first = np.unique(all_ids[order], return_index=True)
    return BucketListing(unique_ids, num_ignored, str(folder), all_suffixes[order][first])

"""The images of a dump: one listing of `512px/NNNN/ID.jpg`, and a check of each file that decodes no pixel."""

from __future__ import annotations

import os
import warnings
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # in order of preference when an id has several files
MAX_IMAGE_BYTES = 16 * 2**20  # 512px images have 0.1 MB; a row group of 100 must stay below Arrow's 2 GiB
MAX_IMAGE_PIXELS = 50_000_000  # of the header: a guard against decompression bombs, not against large pictures
TAIL_BYTES = 4096
REASONS = ("missing", "unreadable", "empty", "oversized", "not an image", "truncated")


@dataclass
class ImageListing:
    """The image files of a dump, by rising id."""

    folder: str
    ids: np.ndarray  # int64, unique, sorted
    suffixes: np.ndarray  # int8, index into SUFFIXES
    num_ignored: int  # other files, and images whose bucket is not id % 1000

    def paths(self, post_ids: np.ndarray) -> list[str]:
        """Paths of posts that are in the listing. Built from integers: a name in the dump cannot lead elsewhere."""
        suffixes = self.suffixes[np.searchsorted(self.ids, post_ids)]
        return [
            f"{self.folder}/{post_id % 1000:04d}/{post_id}{SUFFIXES[suffix]}"
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
    return ImageListing(str(folder), unique_ids, all_suffixes[order][first], num_ignored)


def check_images(paths: list[str]) -> tuple[np.ndarray, list[str]]:
    """Bytes of each file (int64 [n]) and its problem, one of REASONS, or "" for a good one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # image_problem has its own limit
        checked = [image_problem(path) for path in paths]
    return np.array([size for size, _ in checked], np.int64), [problem for _, problem in checked]


def image_problem(path: str) -> tuple[int, str]:
    """Size in bytes and what is wrong with an image file, "" if nothing. Reads its header and its end.

    Finds every cut-off file, which neither PIL's open nor its verify does; a flipped bit inside needs a full decode.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return size, "empty"
            if size > MAX_IMAGE_BYTES:
                return size, "oversized"
            kind = image_kind(file.read(16))
            if kind is None:
                return size, "not an image"
            if not has_end(file, kind, size):
                return size, "truncated"
            file.seek(0)
            return size, header_problem(file, kind)
    except FileNotFoundError:
        return 0, "missing"
    except OSError:
        return 0, "unreadable"


def image_kind(head: bytes) -> str | None:
    """"JPEG", "PNG" or "WEBP" by the first 16 bytes, whatever the file is called; None for anything else."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return None


def has_end(file, kind: str, size: int) -> bool:
    """Whether the file reaches its end marker; trailing NULs are tolerated, they are padding of some mirrors."""
    if kind == "WEBP":  # no end marker, but the length stands in the header
        file.seek(4)
        return int.from_bytes(file.read(4), "little") + 8 <= size
    file.seek(max(0, size - TAIL_BYTES))
    tail = file.read().rstrip(b"\0")
    if not tail:
        file.seek(0)
        tail = file.read().rstrip(b"\0")
    return tail.endswith(b"\xff\xd9" if kind == "JPEG" else b"IEND\xaeB`\x82")


def header_problem(file, kind: str) -> str:
    """"", "oversized" or "not an image", from the header as PIL reads it."""
    try:
        with Image.open(file, formats=[kind]) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        return "oversized"
    except Exception:  # PIL's parsers raise many types on damaged headers, and each means the same here
        return "not an image"
    return "oversized" if width * height > MAX_IMAGE_PIXELS else ""

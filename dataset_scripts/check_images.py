"""What is wrong with an image file: by its header and its end, or by decoding it strictly."""

from __future__ import annotations

import io
import os
import warnings
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import Image

from dataset_scripts.list_images import ImageFile, open_image

MAX_IMAGE_BYTES = 16 * 2**20  # 512px images have 0.1 MB; a row group of 100 must stay below Arrow's 2 GiB
MAX_IMAGE_PIXELS = 50_000_000  # of the header: a guard against decompression bombs, not against large pictures
TAIL_BYTES = 4096
REASONS = ("missing", "unreadable", "empty", "oversized", "not an image", "truncated", "damaged")


def check_images(files: list[ImageFile], decode: bool = False) -> tuple[np.ndarray, list[str]]:
    """Bytes of each file (int64 [n]) and its problem, one of REASONS, or "" for a good one. See image_problem."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # image_problem has its own limit
        checked = [image_problem(file, decode) for file in files]
    return np.array([size for size, _ in checked], np.int64), [problem for _, problem in checked]


def image_problem(file: ImageFile, decode: bool = False) -> tuple[int, str]:
    """Size in bytes and what is wrong with an image file, "" if nothing. Reads its header and its end.

    Finds every cut-off file, which neither PIL's open nor its verify does. Holes and flipped bytes inside are found
    with `decode`, at 400 times the cost.
    """
    try:
        if file.size > MAX_IMAGE_BYTES:  # of a tar member, which is read as a whole
            return file.size, "oversized"
        with open_image(file) as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            if size == 0:
                return size, "empty"
            if size > MAX_IMAGE_BYTES:
                return size, "oversized"
            kind = image_kind(stream.read(16))
            if kind is None:
                return size, "not an image"
            if not has_end(stream, kind, size):
                return size, "truncated"
            stream.seek(0)
            if problem := header_problem(stream, kind):
                return size, problem
            stream.seek(0)
            return size, "damaged" if decode and not decodes(stream.read(), kind) else ""
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


def has_end(stream: BinaryIO, kind: str, size: int) -> bool:
    """Whether the file reaches its end marker; trailing NULs are tolerated, they are padding of some mirrors."""
    if kind == "WEBP":  # no end marker, but the length stands in the header
        stream.seek(4)
        return int.from_bytes(stream.read(4), "little") + 8 <= size
    stream.seek(max(0, size - TAIL_BYTES))
    tail = stream.read().rstrip(b"\0")
    if not tail:
        stream.seek(0)
        tail = stream.read().rstrip(b"\0")
    return tail.endswith(b"\xff\xd9" if kind == "JPEG" else b"IEND\xaeB`\x82")


def header_problem(stream: BinaryIO, kind: str) -> str:
    """"", "oversized" or "not an image", from the header as PIL reads it."""
    try:
        with Image.open(stream, formats=[kind]) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        return "oversized"
    except Exception:  # PIL's parsers raise many types on damaged headers, and each means the same here
        return "not an image"
    return "oversized" if width * height > MAX_IMAGE_PIXELS else ""


def decodes(content: bytes, kind: str) -> bool:
    """Whether every pixel can be decoded. JPEG: strictly, where PIL fills a hole with grey and says nothing."""
    try:
        if kind == "JPEG":
            # An eighth of the size: all of the file is read, only the last step is short.
            simplejpeg.decode_jpeg(content, "GRAY", min_height=1, min_width=1, strict=True)
        else:
            with Image.open(io.BytesIO(content), formats=[kind]) as image:
                image.load()
    except Exception:  # each decoder has errors of its own, and each means the same here
        return False
    return True

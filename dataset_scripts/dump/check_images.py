"""What is wrong with an image file, by its structure or by decoding it strictly, and what it looks like."""

from __future__ import annotations

import io
import os
import re
import warnings
import zlib
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from dataset_scripts.dump.list_images import ImageFile, open_image
from dataset_scripts.dump.pictures import upright_rgb
from dataset_scripts.rules.picture_hash import WORDS, picture_hash

MAX_IMAGE_BYTES = 16 * 2**20  # 512px images have 0.1 MB; a row group of 100 must stay below Arrow's 2 GiB
MAX_IMAGE_PIXELS = 50_000_000  # of the header: a guard against decompression bombs, not against large pictures
MAX_SIDE = 65_500  # what libjpeg reads and writes: a line of 1 x 100,000 pixels never becomes a train-ready JPEG
SHORTEST_SIDE, LONGEST_SIDE = 32, 256  # pixels of a small picture: no wave of its hash is shorter than 6
LUMA = np.array([[0.299], [0.587], [0.114]])
MAX_SCANS = 100  # of a JPEG, ten are usual; each is a pass over all pixels and may have ten bytes
REASONS = ("missing", "unreadable", "empty", "oversized", "not an image", "truncated", "damaged")
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
AFTER_SCAN = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}  # JPEG markers between scans
IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # the first that is neither a stuffed byte nor a restart


class Checked(NamedTuple):
    """What is known of an image file."""

    num_bytes: int
    problem: str  # one of REASONS, or "" for a good one
    num_pixels: int = 0
    picture_hash: tuple[int, ...] = (0,) * WORDS  # 0 for a broken or a plain picture


def check_images(files: list[ImageFile], decode: bool = False, hashes: bool = False) -> list[Checked]:
    """Look at each file, see [`check_image`]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # check_image has its own limit
        return [check_image(file, decode, hashes) for file in files]


def check_image(file: ImageFile, decode: bool = False, hashes: bool = False) -> Checked:
    """What is wrong with an image file. Reads it and walks through its parts.

    Finds every cut-off file, which neither PIL's open nor its verify does, and a PNG with a flipped bit, by its sums.
    Holes and flipped bits inside a JPEG or WEBP are found with `decode`, at many times the cost. With `hashes` a small
    picture is decoded too, and [`picture_hash`] says what it looks like.
    """
    try:
        if file.size > MAX_IMAGE_BYTES:  # of a tar member, which is read as a whole
            return Checked(file.size, "oversized")
        with open_image(file) as stream:
            size = stream.seek(0, os.SEEK_END)
            if size > MAX_IMAGE_BYTES:
                return Checked(size, "oversized")
            stream.seek(0)
            content = stream.read()
    except FileNotFoundError:
        return Checked(0, "missing")
    except OSError:
        return Checked(0, "unreadable")
    return check_content(content, decode, hashes)


def check_content(content: bytes, decode: bool = False, hashes: bool = False) -> Checked:
    """The same of the bytes of an image file."""
    size = len(content)
    if not content:
        return Checked(size, "empty")
    kind = image_kind(content[:16])
    if kind is None:
        return Checked(size, "not an image")
    problem, width, height = {"JPEG": walk_jpeg, "PNG": walk_png, "WEBP": walk_webp}[kind](content)
    if width * height > MAX_IMAGE_PIXELS or max(width, height) > MAX_SIDE:
        return Checked(size, "oversized")  # before Pillow makes room for it
    if problem:
        return Checked(size, problem)
    if width * height == 0 or (kind != "PNG" and not opens(content, kind)):
        return Checked(size, "not an image")
    whole = Checked(size, "", width * height)
    if not (decode or hashes):
        return whole
    try:
        grey = small_grey(content, kind, strict=decode)
    except Exception:  # each decoder has errors of its own, and each means the same here
        return Checked(size, "damaged") if decode else whole
    return whole._replace(picture_hash=tuple(picture_hash(grey).tolist())) if hashes else whole


def image_kind(head: bytes) -> str | None:
    """ "JPEG", "PNG" or "WEBP" by the first 16 bytes, whatever the file is called; None for anything else."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return None


def walk_jpeg(content: bytes) -> tuple[str, int, int]:
    """Problem, width and height of a JPEG by its markers, up to its end; bytes behind the end are ignored."""
    position, width, height, scans = 2, 0, 0, 0
    while 0 <= position < len(content) - 1:
        marker = content[position + 1]
        if content[position] != 0xFF or marker == 0:  # rubbish; before the first scan readers skip it
            if scans:
                return "damaged", width, height
            position = content.find(b"\xff", position + 1)
            continue
        if marker in (0xFF, 0x01, *range(0xD0, 0xD9)):  # padding, and markers without content
            position += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            return "" if scans else "not an image", width, height
        length = int.from_bytes(content[position + 2 : position + 4])
        if position + 4 > len(content):
            break
        if length < 2 or (scans and marker not in AFTER_SCAN):
            return "damaged", width, height
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(content[position + n : position + n + 2]) for n in (5, 7))
        position += 2 + length
        if marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS:
                return "oversized", width, height
            found = IN_SCAN.search(content, position)
            position = found.start() if found else -1
    return "truncated", width, height


def walk_png(content: bytes) -> tuple[str, int, int]:
    """Problem, width and height of a PNG by its chunks and their sums, up to its end. Pillow does without: it calls a
    picture with much text none."""
    position, width, height, has_pixels, view = 8, 0, 0, False, memoryview(content)
    while position + 12 <= len(content):
        length, kind = int.from_bytes(view[position : position + 4]), content[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(content):
            break
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            return "damaged", width, height
        if position == 8:
            depth, colors, *methods = content[position + 16 : position + 21]
            if kind != b"IHDR" or length != 13 or depth not in PNG_DEPTHS.get(colors, ()) or methods > [0, 0, 1]:
                return "not an image", 0, 0
            width, height = (int.from_bytes(view[position + n : position + n + 4]) for n in (8, 12))
        has_pixels |= kind == b"IDAT" and length > 0
        if kind == b"IEND":
            return "" if has_pixels else "damaged", width, height
        position = end
    return "truncated", width, height


def walk_webp(content: bytes) -> tuple[str, int, int]:
    """Problem, width and height of a WEBP by its chunks. Its length stands in its head."""
    end = int.from_bytes(content[4:8], "little") + 8
    position, width, height, has_pixels = 12, 0, 0, False
    while position + 8 <= min(end, len(content)):
        kind, length = content[position : position + 4], int.from_bytes(content[position + 4 : position + 8], "little")
        head = content[position + 8 : position + 18]
        if position + 8 + length > end:
            return "damaged" if end <= len(content) else "truncated", width, height
        if kind == b"VP8X":
            width, height = (1 + int.from_bytes(head[n : n + 3], "little") for n in (4, 7))
        elif kind == b"VP8L":
            bits = int.from_bytes(head[1:5], "little")
            width, height = max(width, 1 + bits % 2**14), max(height, 1 + (bits >> 14) % 2**14)
            has_pixels |= head[:1] == b"\x2f" and bits >> 29 == 0
        elif kind == b"VP8 ":
            tag, bits = int.from_bytes(head[:3], "little"), int.from_bytes(head[6:10], "little")
            width, height = max(width, bits % 2**14), max(height, (bits >> 16) % 2**14)
            has_pixels |= tag % 2 == 0 and (tag >> 5) + 10 <= length and head[3:6] == b"\x9d\x01\x2a"
        has_pixels |= kind == b"ANMF"
        position += 8 + length + length % 2
    if end > len(content):
        return "truncated", width, height
    return "" if has_pixels else "damaged", width, height


def opens(content: bytes, kind: str) -> bool:
    """Whether PIL can parse the header."""
    try:
        with Image.open(io.BytesIO(content), formats=[kind]) as image:
            return min(image.size) > 0
    except Exception:  # PIL's parsers raise many types on damaged headers, and each means the same here
        return False


def small_grey(content: bytes, kind: str, strict: bool = True) -> np.ndarray:
    """The picture in grey, uint8 [height, width], each at most 2 * LONGEST_SIDE: a JPEG as it is stored, others
    upright and on white.

    Every pixel is decoded, or an error raised of whatever type the decoder has; of a JPEG only if `strict`, where PIL
    fills a hole with grey and says nothing.
    """
    if kind == "JPEG":
        # An eighth of the size: all of the file is read, only the last step is short.
        space = simplejpeg.decode_jpeg_header(content)[2]
        space = "CMYK" if space in ("CMYK", "YCCK") else "GRAY"
        sides = {"min_height": SHORTEST_SIDE, "min_width": SHORTEST_SIDE}
        pixels = simplejpeg.decode_jpeg(content, space, strict=strict, **sides)
        if space == "CMYK":  # inverted, as every program writes it
            pixels = pixels[:, :, :3] @ LUMA * pixels[:, :, 3:] / 255
        grey = Image.fromarray(pixels[:, :, 0].astype(np.uint8))
    else:
        grey = upright_rgb(content, 2 * SHORTEST_SIDE).convert("L")
    return np.asarray(grey.reduce(tuple(max(1, side // LONGEST_SIDE) for side in grey.size)))

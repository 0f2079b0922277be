"""Decoding of pictures for this package.

A picture may have 50 million pixels, so nothing is made of a whole one that can be made of the small one.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP")  # those that the builder lets in; Pillow would give an EPS to Ghostscript
DRAFT = 3  # times the pixels wanted that a JPEG is decoded at, at least: no eye sees the difference
NO_PIXELS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # chunks of a PNG


def upright_rgb(content: bytes, short_side: int | None = None) -> Image.Image:
    """The picture as it is meant to be seen: turned upright, RGB, on white; its shorter side at most `short_side`.

    Raises what PIL raises.
    """
    image, size = decoded(content, short_side)
    info = image.info
    if image.mode.startswith("I"):
        image = eight_bits(image)
    elif image.mode not in ("L", "LA", "RGB", "RGBA") or "transparency" in info:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if short_side and min(size) > short_side:
        scale = short_side / min(size)
        image = image.resize([max(1, round(side * scale)) for side in size], Image.Resampling.LANCZOS)
    image.info = info
    with contextlib.suppress(Exception):  # of EXIF that is none, PIL raises many types: the pixels are there
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def decoded(content: bytes, short_side: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The picture as PIL decodes it, and its size; of a JPEG that is much larger than asked for, a smaller decode.

    A PNG with more text than PIL bears is read without its text. Raises what PIL raises.
    """
    try:
        return load(content, short_side)
    except ValueError:
        if not content.startswith(b"\x89PNG"):
            raise
        return load(without_text(content), short_side)


def load(content: bytes, short_side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """PIL's own decoding."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        size = image.size
        if short_side:
            scale = min(1, DRAFT * short_side / min(size))
            image.draft(image.mode, tuple(max(1, round(side * scale)) for side in size))  # does nothing but for JPEG
        image.load()
    return image, size


def without_text(content: bytes) -> bytes:
    """A PNG without the chunks that say nothing of its pixels."""
    parts, position = [content[:8]], 8
    while position + 8 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4])
        if content[position + 4 : position + 8] not in NO_PIXELS:
            parts.append(content[position:end])
        position = end
    return b"".join(parts)


def eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits (modes I;16 and I) as mode L, where PIL cuts every value at 255."""
    values = np.asarray(image).astype(np.uint32)
    values += 128
    values //= 257  # 65535 → 255; in place, for a picture may fill the memory
    return Image.fromarray(values.astype(np.uint8))

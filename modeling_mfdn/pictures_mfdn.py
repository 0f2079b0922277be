"""A picture file as RGB pixels, with Pillow and numpy alone: whatever a user has, upright, on white, in a square.

`MFDNImageProcessor` goes on from here, and so does the `tag.py` of an exported folder, beside which this file lies:
the pixels are the same with PyTorch and without.
"""

import contextlib
import io
import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")
MAX_MEMORY = 800 * 2**20  # a picture that would take more to decode is refused before it is decoded
# Bytes that decoding takes for each pixel until it is RGB. A progressive JPEG also keeps its coefficients.
BYTES_PER_PIXEL = {"JPEG": 8, "MPO": 8, "PNG": 12, "WEBP": 16, "AVIF": 16}
OTHER_BYTES_PER_PIXEL = 12
COEFFICIENT_BYTES = 8
MAX_SIDE = 4096  # larger pictures are scaled down to it: no model needs more, and a strip of 800 x 20,000 pixels in a
# white square would fill 1.2 GB
ROWS_AT_ONCE = 256
ORIENTATION = 0x0112  # of EXIF; 1 is upright
NO_PIXELS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # chunks of a PNG


def open_picture(source: str | os.PathLike | bytes | BinaryIO) -> Image.Image:
    """`PIL.Image.open` with [`FORMATS`] alone, for a path, an open file or the bytes of one; pixels are not read yet.

    Pillow goes by content, not by name, and hands an EPS, whatever it is called, to Ghostscript, a program that runs
    what the file says.

    Raises:
        OSError: no such file, or none of these formats.
    """
    Image.init()  # fills Image.OPEN: Pillow may be built without one of them
    stream = io.BytesIO(source) if isinstance(source, bytes | bytearray) else source
    return Image.open(stream, formats=[name for name in FORMATS if name in Image.OPEN])


def load_rgb(source: str | os.PathLike | bytes | Image.Image, min_side: int | None = None) -> Image.Image:
    """A picture as it is meant to be seen: upright (EXIF), RGB, on white, no side longer than `MAX_SIDE`.

    Args:
        source: a file, its bytes, or a picture that Pillow opened.
        min_side: a JPEG may be decoded at a smaller scale at which both sides have at least this many pixels.

    Raises:
        ValueError: it would take more than `MAX_MEMORY`.
        OSError, and what else Pillow's plugins stumble over: it is broken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `check_size` has a limit of its own
        if isinstance(source, Image.Image):
            return to_rgb(loaded(source, min_side))
        try:
            with open_picture(source) as image:
                return to_rgb(loaded(image, min_side))
        except Exception:
            # Pillow refuses a PNG with much text, which is how image generators keep their settings, or with text that
            # is damaged. Its pixels do not ask what it says.
            content = source if isinstance(source, bytes | bytearray) else Path(source).read_bytes()
            pixels_alone = without_text(content)
            if pixels_alone is None:
                raise
            with open_picture(pixels_alone) as image:
                return to_rgb(loaded(image, min_side))


def loaded(image: Image.Image, min_side: int | None) -> Image.Image:
    """The picture with its pixels, in its own mode; a JPEG that is larger than needed at a smaller scale."""
    num_pixels = image.width * image.height
    if num_pixels and (min_side or max(image.size) > MAX_SIDE):
        scale = MAX_SIDE / max(image.size)
        width, height = (min_side or max(1, int(side * scale)) for side in image.size)
        image.draft(None, (width, height))  # does nothing but for JPEG, and of a picture that has its pixels
    check_size(image, num_pixels)
    if getattr(image, "is_animated", False):
        warnings.warn("A picture holds several frames (animation); only the first is read.", stacklevel=3)
    image.load()  # Pillow opens a file without reading it: a truncated one would be found out only later
    return image


def check_size(image: Image.Image, num_pixels: int) -> None:
    """Raises ValueError for a picture without pixels, or with more than `MAX_MEMORY` has room for.

    Args:
        image: at the scale at which it will be decoded.
        num_pixels: at full size.
    """
    needed = image.width * image.height * BYTES_PER_PIXEL.get(image.format or "", OTHER_BYTES_PER_PIXEL)
    if image.info.get("progressive"):
        needed += num_pixels * COEFFICIENT_BYTES
    if num_pixels == 0 or needed > MAX_MEMORY:
        raise ValueError(
            f"it is {image.width} x {image.height} pixels, which takes {needed / 2**20:,.0f} MB to decode; expected 1 "
            f"pixel or more, and at most {MAX_MEMORY / 2**20:,.0f} MB. Scale it down first"
        )


def without_text(content: bytes) -> bytes | None:
    """A PNG without its text and colour profile chunks; None for other files."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    parts, position = [content[:8]], 8
    while position + 8 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4])
        if content[position + 4 : position + 8] not in NO_PIXELS:
            parts.append(content[position:end])
        position = end
    return b"".join(parts)


def scale_to_8_bit(image: Image.Image) -> Image.Image:
    """A picture of mode I;16, I or F as mode L. Its range says its scale: [0, 1] (F only), [0, 255] or [0, 65535]."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65_535):  # also NaN
        raise ValueError(f"A picture of mode {image.mode} must hold values in [0, 65535], found {low:g} to {high:g}.")
    scale = 1.0
    if image.mode == "F" and high <= 1:
        scale = 255.0
    elif image.mode.startswith("I;16") or high > 255:
        scale = 1 / 257  # 65535 → 255
    pixels = np.empty((image.height, image.width), np.uint8)
    for top in range(0, image.height, ROWS_AT_ONCE):  # in float32 all of them would be four times the picture
        rows = slice(top, top + ROWS_AT_ONCE)
        pixels[rows] = (values[rows].astype(np.float32) * scale).round()
    return Image.fromarray(pixels)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL picture as RGB: upright (EXIF), transparency on white, 16-bit and float scaled to [0, 255], no side
    longer than `MAX_SIDE`.

    Pillow's own `convert("RGB")` paints transparent pixels in whatever colour lies below, mostly black, and cuts
    16-bit values at 255.
    """
    with contextlib.suppress(Exception):  # of EXIF that is none, Pillow raises many types: the pixels are there
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = scale_to_8_bit(image)
    is_transparent = image.has_transparency_data or image.mode == "La"
    if is_transparent and image.mode != "RGBA":
        image = image.convert("LA") if image.mode == "La" else image  # Pillow knows no way from La to RGBA
        image = image.convert("RGBA")
    elif not is_transparent and image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    if max(image.size) > MAX_SIDE:  # before white is laid below it, and while it is small
        size = [max(1, round(side * MAX_SIDE / max(image.size))) for side in image.size]
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    if is_transparent:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def pad_to_square(image: Image.Image) -> Image.Image:
    """The picture, as RGB, in the centre of a white square: nothing is cropped or stretched.

    The square is as wide as the longer side, at most `MAX_SIDE` pixels.
    """
    image = to_rgb(image)
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


__all__ = ["load_rgb", "open_picture", "pad_to_square", "to_rgb"]

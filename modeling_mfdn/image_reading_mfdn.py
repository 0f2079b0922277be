"""Any picture a user has → upright RGB on white, or an error that says what is wrong with it."""

import io
import os
import urllib.request
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")
MAX_PIXELS = 2**28  # a picture that says it is larger is refused before it is decoded
MAX_BYTES = 2**26  # of a picture that is fetched from an address
MAX_SIDE = 4096  # of a padded square: a strip of 800 x 20,000 pixels would fill 1.2 GB with white


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


def scale_to_8_bit(image: Image.Image) -> Image.Image:
    """A picture of mode I;16, I or F as mode L. Its range says its scale: [0, 1] (F only), [0, 255] or [0, 65535]."""
    values = np.asarray(image).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 65_535):  # also NaN
        raise ValueError(f"A picture of mode {image.mode} must hold values in [0, 65535], found {low:g} to {high:g}.")
    if image.mode == "F" and high <= 1:
        values = values * 255
    elif image.mode.startswith("I;16") or high > 255:
        values = values / 257  # 65535 → 255
    return Image.fromarray(values.round().astype(np.uint8))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL picture as RGB: upright (EXIF), transparency on white, 16-bit and float scaled to [0, 255].

    Pillow's own `convert("RGB")` paints transparent pixels in whatever colour lies below, mostly black, and cuts
    16-bit values at 255.
    """
    if image.getexif():
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return scale_to_8_bit(image).convert("RGB")
    if image.has_transparency_data or image.mode == "La":
        image = image.convert("LA") if image.mode == "La" else image  # Pillow knows no way from La to RGBA
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def pad_to_square(image: Image.Image) -> Image.Image:
    """The picture, as RGB, in the centre of a white square: nothing is cropped or stretched.

    The square is as wide as the longer side; one of more than `MAX_SIDE` pixels is scaled down to that first.
    """
    image = to_rgb(image)
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    if side > MAX_SIDE:
        width, height = (max(1, round(length * MAX_SIDE / side)) for length in (width, height))
        image, side = image.resize((width, height), Image.Resampling.BILINEAR), MAX_SIDE
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def array_to_image(array: np.ndarray | torch.Tensor) -> Image.Image:
    """[H, W], [H, W, 1 | 3 | 4] or [1 | 3 | 4, H, W], uint8 or float in [0, 1], as a PIL picture.

    Where both orders fit, an array is read as [H, W, channels] and a tensor as [channels, H, W].
    """
    name = "tensor" if isinstance(array, torch.Tensor) else "array"
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()  # numpy knows no bfloat16
    found = f"found an {name} of dtype {array.dtype} and shape {list(array.shape)}"
    channel_axes = [
        axis for axis in ((0, 2) if name == "tensor" else (2, 0)) if array.ndim == 3 and array.shape[axis] in (1, 3, 4)
    ]
    if array.ndim != 2 and not channel_axes:
        raise ValueError(
            f"A picture must be [H, W], [H, W, channels] or [channels, H, W] with 1, 3 or 4 channels, {found}. "
            "Pass several pictures as a list."
        )
    if array.size == 0:
        raise ValueError(f"A picture must have at least one pixel, {found}.")
    if array.ndim == 3:
        array = np.moveaxis(array, channel_axes[0], 2)
        array = array[:, :, 0] if array.shape[2] == 1 else array
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # also NaN
            raise ValueError(f"A float picture must lie in [0, 1], {found} with values from {low:g} to {high:g}.")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"A picture must be uint8 in [0, 255] or float in [0, 1], {found}.")
    return Image.fromarray(np.ascontiguousarray(array))


def fetch(address: str) -> bytes:
    """What lies at an http(s) address. Raises OSError, or ValueError for more than `MAX_BYTES`."""
    request = urllib.request.Request(address, headers={"User-Agent": "mfdn"})
    with urllib.request.urlopen(request, timeout=30) as answer:  # follows redirects to http(s) alone
        content = answer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return content


def read_image(source: Any) -> Image.Image:
    """One picture, given as a PIL picture, array, tensor, bytes of a file, file path or http(s) address, as RGB.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, truncated, without pixels, larger than `MAX_PIXELS`, or an array that is none of
            those named at `array_to_image`.
        TypeError: anything else.
    """
    if isinstance(source, np.ndarray | torch.Tensor):
        return to_rgb(array_to_image(source))
    if isinstance(source, Image.Image):
        name = f"The picture {getattr(source, 'filename', '')!r} of mode {source.mode}"
    elif isinstance(source, bytes | bytearray):
        name = f"A file of {len(source):,} bytes"
    elif isinstance(source, str | os.PathLike):
        name = str(source)
    else:
        raise TypeError(
            "A picture must be a PIL image, an array or tensor, bytes, or a path or http(s) address, got "
            f"{type(source).__name__}."
        )
    try:
        if isinstance(source, Image.Image):
            image = source
        elif isinstance(source, bytes | bytearray):
            image = open_picture(source)
        elif name.startswith(("http://", "https://")):
            image = open_picture(fetch(name))
        elif not Path(name).is_file():
            raise FileNotFoundError(f"There is no picture file {name!r}.")
        else:
            image = open_picture(name)
        num_pixels = image.width * image.height
        if num_pixels == 0 or num_pixels > MAX_PIXELS:
            raise ValueError(f"it is {image.width} x {image.height} pixels, must be 1 to {MAX_PIXELS} in all")
        if getattr(image, "is_animated", False):
            warnings.warn("A picture holds several frames (animation); only the first is read.", stacklevel=2)
        image.load()  # Pillow opens a file without reading it: a truncated one would be found out only later
        return to_rgb(image)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parser stumbles over
        raise ValueError(f"{name} cannot be read as a picture: {type(error).__name__}: {error}") from error


__all__ = ["open_picture", "pad_to_square", "read_image", "to_rgb"]

"""The one path from a picture to pixels: read whatever a user has, upright RGB on white, pad, resize, scale.

Training's evaluation, both pipelines, the ONNX export and the page take it, so the accuracy that is measured is that
of the pixels that ship.
"""

import contextlib
import io
import os
import urllib.request
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import PILImageResampling

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")
MAX_MEMORY = 800 * 2**20  # a picture that would take more to decode is refused before it is decoded
# Bytes that decoding takes for each pixel until it is RGB. A progressive JPEG also keeps its coefficients.
BYTES_PER_PIXEL = {"JPEG": 8, "MPO": 8, "PNG": 12, "WEBP": 16, "AVIF": 16}
OTHER_BYTES_PER_PIXEL = 12
COEFFICIENT_BYTES = 8
MAX_BYTES = 2**26  # of a picture that is fetched from an address
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
        ValueError: not a picture, truncated, without pixels, too large for `MAX_MEMORY`, or an array that is none of
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
        if isinstance(source, str) and name.startswith(("http://", "https://")):
            source = fetch(name)
        elif isinstance(source, str | os.PathLike) and not Path(name).is_file():
            raise FileNotFoundError(f"There is no picture file {name!r}.")
        return load_rgb(bytes(source) if isinstance(source, bytearray) else source)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parser stumbles over
        raise ValueError(f"{name} cannot be read as a picture: {type(error).__name__}: {error}") from error


class MFDNImageProcessor(TorchvisionBackend):
    """Pictures of any kind → `pixel_values` [B, 3, H, W], padded to a white square, resized, scaled to [-1, 1].

    Args:
        size: {"height", "width"} in pixels; the paper's 128.
        do_pad: put the picture into a white square first; False stretches it.
        resample, do_resize, do_rescale, rescale_factor, do_normalize, image_mean, image_std: as of ViTImageProcessor.

    Example:
        >>> MFDNImageProcessor()("picture.png", return_tensors="pt")["pixel_values"].shape
        torch.Size([1, 3, 128, 128])
    """

    model_input_names = ["pixel_values"]
    resample = PILImageResampling.BILINEAR
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"height": 128, "width": 128}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_pad = True

    def fetch_images(self, images: Any) -> list:
        """One picture or a list of them, each as `read_image` takes it, as RGB PIL pictures.

        Raises:
            ValueError: no picture, or one that cannot be read.
        """
        images = list(images) if isinstance(images, list | tuple) else [images]
        if not images:
            raise ValueError("images is an empty list; expected at least one picture.")
        return [self.fetch_images(image) if isinstance(image, list | tuple) else read_image(image) for image in images]

    def process_image(self, image: Image.Image, do_pad: bool | None = None, **kwargs) -> torch.Tensor:
        """[3, H, W] uint8, padded to a square with `do_pad`."""
        return super().process_image(pad_to_square(image) if do_pad else image, **kwargs)

    def resize(self, image: torch.Tensor, size: Any, resample: Any = None, **kwargs) -> torch.Tensor:
        """[B, 3, H, W] resized by Pillow, as published trunks and training here know it: torchvision's bicubic filter
        differs from it by a step of 1 in 255 here and there, and so would every score."""
        is_bytes = image.dtype == torch.uint8 and image.device.type == "cpu" and not torch.compiler.is_compiling()
        if not (is_bytes and size.height and size.width and isinstance(resample, int)):
            return super().resize(image, size, resample, **kwargs)
        pictures = [Image.fromarray(pixels) for pixels in image.permute(0, 2, 3, 1).contiguous().numpy()]
        resized = np.stack([np.asarray(picture.resize((size.width, size.height), resample)) for picture in pictures])
        return torch.from_numpy(resized).permute(0, 3, 1, 2)

    def _preprocess(self, images: list[torch.Tensor], do_pad: bool | None = None, **kwargs) -> BatchFeature:
        return super()._preprocess(images, do_pad=False, **kwargs)  # that happened where it cost least


__all__ = ["MFDNImageProcessor", "load_rgb", "open_picture", "pad_to_square", "read_image", "to_rgb"]

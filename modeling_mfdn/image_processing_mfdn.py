"""The one path from a picture to pixels: read whatever a user has, upright RGB on white, pad, resize, scale.

Training's evaluation, both pipelines, the ONNX export and the page take it, so the accuracy that is measured is that
of the pixels that ship.
"""

import os
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import PILImageResampling

from .pictures_mfdn import load_rgb, pad_to_square, to_rgb

MAX_BYTES = 2**26  # of a picture that is fetched from an address


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


__all__ = ["MFDNImageProcessor", "read_image"]

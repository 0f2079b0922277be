"""Pixels: decoding at the size that is needed, and colour jitter as one matrix per image."""

from collections.abc import Sequence

import numpy as np
import simplejpeg
import torch
from PIL import Image as PILImage

from ..pictures_mfdn import load_rgb

MAX_FAST_PIXELS = 2**25  # what is larger, Pillow decodes, where its size is checked
HALF = (0.5, 0.5, 0.5)
LUMINANCE = np.array([0.2989, 0.587, 0.114])  # of R, G, B, as torchvision
RGB_TO_YIQ = np.array([LUMINANCE, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ)


def decode_image(encoded: bytes, min_side: int | None = None) -> PILImage.Image:
    """RGB picture, upright, on white.

    Args:
        encoded: the file.
        min_side: a JPEG is decoded at the smallest scale of its DCT (1/8 ... 8/8) at which the longer side has at
            least this many pixels, which is most of the speed. None decodes with Pillow at full size.

    Raises:
        ValueError, OSError: it cannot be read, or is too large, see [`load_rgb`].
    """
    # EXIF may turn the picture, and simplejpeg knows neither that nor CMYK: Pillow does these, and other formats.
    if min_side and encoded[:2] == b"\xff\xd8" and encoded.find(b"Exif\0\0", 0, 65536) < 0:
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
            if colorspace not in ("CMYK", "YCCK") and height * width <= MAX_FAST_PIXELS:
                side = {"min_height": min_side} if height >= width else {"min_width": min_side}
                return PILImage.fromarray(simplejpeg.decode_jpeg(encoded, "RGB", **side))
        except ValueError:
            pass  # simplejpeg refuses what libjpeg only warns of; what Pillow refuses too is an error
    return load_rgb(encoded, min_side)


def color_matrices(
    factors: np.ndarray, mean_luminance: np.ndarray, mean: Sequence[float] = HALF, std: Sequence[float] = HALF
) -> np.ndarray:
    """Colour jitter, /255 and normalisation as one affine map per image.

    Args:
        factors: [B, 4]: brightness, contrast, saturation (1 = unchanged) and hue (turns, 0 = unchanged).
        mean_luminance: [B] of the image before jitter, in [0, 255]; the point that contrast keeps.
        mean, std: of each channel, on the scale [0, 1].

    Returns:
        [B, 3, 4] float32: `matrix[:, :3] @ rgb + matrix[:, 3]` is the normalised pixel for rgb in [0, 255].
    """
    # torchvision draws the order of the four at random, clips between them and turns the hue in HSV. Here: fixed
    # order, one clip at the end, hue turned in YIQ, because then all four are one matrix. Equal as augmentation.
    brightness, contrast, saturation, hue = factors.T
    turn = np.zeros((len(factors), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(2 * np.pi * hue)
    turn[:, 1, 2] = np.sin(2 * np.pi * hue)
    turn[:, 2, 1] = -turn[:, 1, 2]
    hue_matrix = YIQ_TO_RGB @ turn @ RGB_TO_YIQ
    luminance_matrix = np.broadcast_to(LUMINANCE, (3, 3))
    weight = saturation[:, None, None]
    saturation_matrix = weight * np.eye(3) + (1 - weight) * luminance_matrix
    gain = (brightness * contrast)[:, None, None]
    # Contrast adds a grey, which saturation and hue leave alone.
    offset = (1 - contrast) * brightness * mean_luminance
    matrix = np.concatenate(
        [hue_matrix @ saturation_matrix * gain, np.broadcast_to(offset[:, None, None], (len(factors), 3, 1))], axis=2
    )
    matrix *= (1 / np.asarray(std) / 255)[:, None]
    matrix[:, :, 3] -= np.asarray(mean) / np.asarray(std)
    return matrix.astype(np.float32)


def apply_color(
    pixels: torch.Tensor, color_matrix: torch.Tensor, mean: Sequence[float] = HALF, std: Sequence[float] = HALF
) -> torch.Tensor:
    """Jittered and normalised pixels.

    Args:
        pixels: [B, 3, S, S] uint8.
        color_matrix: [B, 3, 4] float32 of `color_matrices`, made with the same `mean` and `std`.

    Returns:
        [B, 3, S, S] float32, cut at what black and white become; [-1, 1] for mean = std = 0.5.
    """
    flat = pixels.flatten(2).to(color_matrix.dtype)
    black, white = ((value - torch.tensor(mean)) / torch.tensor(std) for value in (0, 1))
    colored = torch.baddbmm(color_matrix[:, :, 3:], color_matrix[:, :, :3], flat)
    return colored.clamp_(black[:, None], white[:, None]).view(pixels.shape)

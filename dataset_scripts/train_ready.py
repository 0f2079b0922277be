"""Pictures made small once, so that training need not do it in every epoch."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP")  # those that the builder lets in; Pillow would give an EPS to Ghostscript
JPEG_QUALITY = 95  # with 4:4:4: line art suffers more from halved colours than from one step of quality
BYTES_AT_160 = 20_000  # of such a picture, on average: what shards are planned with


def train_ready(content: bytes, short_side: int, name: str = "picture") -> bytes:
    """The picture as JPEG (quality 95, 4:4:4), its shorter side at most `short_side` pixels.

    Raises ValueError, with `name`, when it cannot be decoded.
    """
    try:
        image = upright_rgb(content)
    except Exception as error:  # PIL's parsers raise many types, and each means the same here
        raise ValueError(f"{name} cannot be decoded ({error}): --verify full drops such posts.") from error
    scale = short_side / min(image.size)
    if scale < 1:
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def upright_rgb(content: bytes) -> Image.Image:
    """The picture as it is meant to be seen: turned upright, RGB, on white. Raises what PIL raises."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def expected_bytes(short_side: int) -> int:
    """What such a picture has, about."""
    return max(1, BYTES_AT_160 * short_side**2 // 160**2)

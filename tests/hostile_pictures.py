"""Odd but whole pictures, damaged ones and decompression bombs, by name, made from a seed."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image, PngImagePlugin

KINDS = ("JPEG", "PNG", "WEBP")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawing(rng: random.Random, width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Soft colours with some noise: compresses about as a picture does."""
    numbers = np.random.default_rng(rng.randrange(2**32))
    small = numbers.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    pixels = pixels + numbers.integers(-9, 10, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its sum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colors: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of rows as they are, filter bytes and all; `extra`: chunks before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colors, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def grey_16(values: np.ndarray) -> bytes:
    """A PNG of 16-bit grey values [H, W]."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, 0, zlib.compress(rows))


def zeros(count: int) -> bytes:
    """zlib stream of so many zeros, made without having them."""
    packer, parts = zlib.compressobj(9), []
    for start in range(0, count, 2**20):
        parts.append(packer.compress(bytes(min(2**20, count - start))))
    return b"".join(parts) + packer.flush()


def whole_pictures(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Pictures that a viewer shows in full and that must not be dropped: (name, file)."""
    width, height = rng.randrange(16, 200), rng.randrange(16, 200)
    image = drawing(rng, width, height)
    tails = {
        "nothing": b"",
        "zeros": bytes(rng.randrange(1, 9000)),
        "line": b"\r\n",
        "noise": rng.randbytes(rng.randrange(1, 9000)),
        "archive": b"PK\3\4" + rng.randbytes(500),
    }
    for kind in KINDS:
        for name, tail in tails.items():
            yield f"{kind} with {name} behind it", encoded(image, kind) + tail
    yield "JPEG with a film behind it", encoded(image, "JPEG") + b"\0\0\0\x18ftypmp42" + rng.randbytes(3000)
    yield "JPEG with a second JPEG behind it", encoded(image, "JPEG") + encoded(image.rotate(90), "JPEG")
    yield "progressive JPEG", encoded(image, "JPEG", progressive=True)
    yield "JPEG with restarts", encoded(image, "JPEG", restart_marker_rows=1)
    for mode in ("L", "CMYK"):
        yield f"{mode} JPEG", encoded(image.convert(mode), "JPEG")
        yield f"{mode} progressive JPEG", encoded(image.convert(mode), "JPEG", progressive=True)
    small = encoded(image.resize((9, 9)), "JPEG")
    for kind in KINDS:
        yield f"{kind} whose EXIF is none, but a picture", encoded(image, kind, exif=b"Exif\0\0" + small)
        yield f"{kind} whose EXIF is noise", encoded(image, kind, exif=b"Exif\0\0MM\0*" + rng.randbytes(200))
    turned = Image.Exif()
    turned[0x112] = rng.randrange(1, 9)
    for kind in KINDS:
        yield f"{kind} that is turned", encoded(image, kind, exif=turned)
    for mode in ("1", "L", "LA", "P", "RGBA"):
        yield f"{mode} PNG", encoded(image.convert(mode), "PNG")
    yield "PNG with a transparent colour", encoded(image.convert("P"), "PNG", transparency=3)
    yield "16-bit PNG", grey_16(np.full((height, width), rng.randrange(2**16)))
    frames = [drawing(rng, width, height) for _ in range(3)]
    yield "animated PNG", encoded(image, "PNG", save_all=True, append_images=frames)
    yield "animated WEBP", encoded(image, "WEBP", save_all=True, append_images=frames)
    yield "lossless WEBP", encoded(image.convert("RGBA"), "WEBP", lossless=True)
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * rng.choice([10, 2_000_000, 9_000_000]), zip=True)
    yield "PNG with text", encoded(image, "PNG", pnginfo=text)
    many = b"".join(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000))) for _ in range(80))
    content = encoded(image, "PNG")
    yield "PNG with much text before its pixels", content[:33] + many + content[33:]
    yield "PNG with much text behind its pixels", content[:-12] + many + content[-12:]
    yield "wide line", encoded(Image.new("RGB", (rng.randrange(10_000, 16_000), 1)), rng.choice(KINDS))
    yield "high line", encoded(Image.new("RGB", (1, rng.randrange(10_000, 16_000))), rng.choice(KINDS))


def damaged_pictures(rng: random.Random, number: int) -> Iterator[tuple[str, bytes]]:
    """Pictures that lost something: (name, file). Some few still decode to the same or nearly the same pixels."""
    ways = ("cut", "cut and padded", "hole", "noise", "bit", "shifted", "doubled", "swapped", "wrong end")
    for _ in range(number):
        kind, way = rng.choice(KINDS), rng.choice(ways)
        options = {"progressive": rng.random() < 0.3} if kind == "JPEG" else {}
        if kind == "WEBP":
            options = {"lossless": rng.random() < 0.4}
        content = bytearray(encoded(drawing(rng, rng.randrange(16, 300), rng.randrange(16, 300)), kind, **options))
        size = len(content)
        start = rng.randrange(20, size - 2)
        length = rng.randrange(1, min(3000, size - start) + 1)
        if way == "cut":
            del content[start:]
        elif way == "cut and padded":
            content[start:] = bytes(size - start)
        elif way == "hole":
            content[start : start + length] = bytes(length)
        elif way == "noise":
            content[start : start + length] = rng.randbytes(length)
        elif way == "bit":
            content[start] ^= 1 << rng.randrange(8)
        elif way == "shifted":
            del content[start : start + length]
        elif way == "doubled":
            content[start:start] = content[start : start + length]
        elif way == "swapped":
            other = rng.randrange(20, size - 2)
            content[start], content[other] = content[other], content[start]
        else:  # cut, with the end of the file put behind the cut
            content[start:] = content[-12:]
        yield f"{kind}, {way} at {start} of {size}", bytes(content)


def bombs(rng: random.Random, skipped: tuple[str, ...] = ()) -> Iterator[tuple[str, bytes]]:
    """Files of about 1 MB or less that are large when decoded, but for those whose names hold one of `skipped`."""
    side = 7071  # 50 million pixels, just within the limit
    claim, grey = 2**31 - 1, zlib.compress(bytes(2))
    makers = {
        "PNG that claims 2**31 by 2**31": lambda: png(claim, claim, 8, 2, zeros(1000)),
        "line of 1 x 100,000": lambda: encoded(Image.new("L", (1, 100_000)), "PNG"),
        "line of 100,000 x 1": lambda: encoded(Image.new("L", (100_000, 1)), "PNG"),
        "PNG with text of 200 MB": lambda: png(1, 1, 8, 0, grey, chunk(b"zTXt", b"a\0\0" + zeros(200 * 2**20))),
        "PNG with a profile of 200 MB": lambda: png(1, 1, 8, 0, grey, chunk(b"iCCP", b"a\0\0" + zeros(200 * 2**20))),
        "JPEG that claims 65,500 by 65,500": claiming_jpeg,
        "JPEG of 20,000 scans": scanned_jpeg,
        "noise": lambda: rng.randbytes(1000),
        "animated WEBP of 2,000 frames": lambda: animation(64, 2000),
    }
    for lossless in (False, True):
        makers[f"animated WEBP of 50 million pixels, {lossless=}"] = partial(animation, side, 2, lossless=lossless)
    for depth, colors, channels in ((16, 6, 4), (8, 6, 4), (16, 2, 3), (16, 4, 2), (16, 0, 1), (8, 3, 1)):
        makers[f"PNG of 50 million pixels, {depth} bits, type {colors}"] = partial(
            large_png, side, depth, colors, channels
        )
    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            makers[f"JPEG of 50 million pixels, {mode}, {progressive=}"] = partial(
                large_jpeg, side, mode, progressive=progressive
            )
    for name, make in makers.items():
        if not any(word in name for word in skipped):
            yield name, make()


def large_png(side: int, depth: int, colors: int, channels: int) -> bytes:
    palette = chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(256)) if colors == 3 else b""
    return png(side, side, depth, colors, zeros((side * channels * depth // 8 + 1) * side), palette)


def large_jpeg(side: int, mode: str, **options) -> bytes:
    return encoded(Image.new(mode, (side, side)), "JPEG", subsampling=0, quality=5, **options)


def claiming_jpeg() -> bytes:
    content = encoded(Image.new("L", (64, 64)), "JPEG", progressive=True)
    start = content.index(b"\xff\xc2")
    return content[: start + 5] + struct.pack(">HH", 65_500, 65_500) + content[start + 9 :]


def scanned_jpeg() -> bytes:
    content = encoded(Image.new("L", (64, 64)), "JPEG", progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * 20_000 + b"\xff\xd9"


def animation(side: int, number: int, **options) -> bytes:
    frames = [Image.new("RGBA", (side, side), (i % 256, i // 256, 0, 200)) for i in range(number)]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], method=0, **options)

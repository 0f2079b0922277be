"""Odd pictures that are whole, damaged ones and bombs, by name, made from a seed; for whoever reads pictures."""

import io
import random
import struct
import zlib
from collections.abc import Iterator

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


def png(width: int, height: int, depth: int, colours: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of rows as they are, filter bytes and all; `extra`: chunks before the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
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
    tails = {"nothing": b"", "zeros": bytes(rng.randrange(1, 9000)), "line": b"\r\n",
             "noise": rng.randbytes(rng.randrange(1, 9000)), "archive": b"PK\3\4" + rng.randbytes(500)}  # fmt: skip
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
    yield "JPEG with a thumbnail", encoded(image, "JPEG", exif=b"Exif\0\0" + encoded(image.resize((9, 9)), "JPEG"))
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


def bombs(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Files of at most 1 MB that are large when decoded."""
    side = 7071  # 50 million pixels, just within the limit
    for depth, colours, channels in ((16, 6, 4), (8, 6, 4), (16, 2, 3), (16, 4, 2), (16, 0, 1), (8, 3, 1)):
        palette = chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(256)) if colours == 3 else b""
        rows = zeros((side * channels * depth // 8 + 1) * side)
        yield f"PNG of 50 million pixels, {depth} bits, type {colours}", png(side, side, depth, colours, rows, palette)
    yield "PNG that claims 2**31 by 2**31", png(2**31 - 1, 2**31 - 1, 8, 2, zeros(1000))
    yield "line of 1 x 100,000", encoded(Image.new("RGB", (1, 100_000)), "PNG")
    yield "line of 100,000 x 1", encoded(Image.new("L", (100_000, 1)), "PNG")
    text = chunk(b"zTXt", b"a\0\0" + zeros(900 * 2**20))
    yield "PNG with text of 900 MB", png(1, 1, 8, 0, zlib.compress(bytes(2)), text)
    yield "PNG with a profile of 900 MB", png(1, 1, 8, 0, zlib.compress(bytes(2)), chunk(b"iCCP", text[8:-4]))
    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            image = Image.new(mode, (side, side))
            yield f"JPEG of 50 million pixels, {mode}, {progressive=}", encoded(
                image, "JPEG", progressive=progressive, subsampling=0, quality=5
            )
    content = encoded(Image.new("L", (64, 64)), "JPEG", progressive=True)
    start = content.index(b"\xff\xc2")
    claims = content[: start + 5] + struct.pack(">HH", 65_500, 65_500) + content[start + 9 :]
    yield "JPEG that claims 65,500 by 65,500", claims
    last = content.rindex(b"\xff\xda")
    yield "JPEG of many scans", content[:-2] + content[last:-2] * 20_000 + b"\xff\xd9"
    for lossless in (False, True):
        frames = [Image.new("RGBA", (side, side), (i, i, i, i)) for i in range(2)]
        yield f"animated WEBP of 50 million pixels, {lossless=}", encoded(
            frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=lossless, method=0
        )
    frames = [Image.new("RGB", (64, 64), (i % 256, i // 256, 0)) for i in range(2000)]
    yield "animated WEBP of 2,000 frames", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield "noise", rng.randbytes(1000)

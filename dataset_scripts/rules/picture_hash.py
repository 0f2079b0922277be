"""A hash of what a picture looks like: bits of which few change when it is resized, recompressed or marked.

64 bits of the lowest waves find what may be a copy. Among a million pictures many agree in these by chance, or because
heads are in the middle of most; 192 bits of further waves tell them apart.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

WORDS = 4  # of 64 bits
HIGHEST = 23  # waves each way that are looked at
# (from top to bottom, from left to right): the lowest after the mean, by their sum. Bit n % 64 of word n // 64.
WAVES = sorted(
    ((down, right) for down in range(HIGHEST) for right in range(HIGHEST) if down + right),
    key=lambda wave: (sum(wave), wave),
)[: 64 * WORDS]
DOWN, RIGHT = np.array(WAVES).T
LEAST_CONTRAST = 0.25  # of 255, root mean square over the lowest 64: below, the signs are those of noise


def packed(bits: np.ndarray) -> np.ndarray:
    """bool [..., 256] → uint64 [..., 4]."""
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8").astype(np.uint64)


# The waves that are odd from left to right: a mirrored picture has their signs the other way round.
MIRRORED_BITS = packed(RIGHT % 2 == 1)


def picture_hash(grey: np.ndarray) -> np.ndarray:
    """uint64 [4]: the signs of the 256 lowest waves (two-dimensional cosine transform) of a grey picture; 0 where it
    is plain.

    Brightness, contrast and size do not matter, and the mirrored picture has `hash ^ MIRRORED_BITS`. Waves and not
    differences of neighbours, because two plain backgrounds agree in all of those.

    Args:
        grey: [height, width] of any size and type from 0 to 255; a picture of 64 pixels is quite large enough.
    """
    height, width = grey.shape
    waves = (cosines(height) @ grey.astype(np.float32) @ cosines(width).T)[DOWN, RIGHT]
    if np.sqrt(np.mean(waves[:64] ** 2)) < LEAST_CONTRAST:
        return np.zeros(WORDS, np.uint64)
    # 0 says that there is none. A picture whose signs are all negative gets another hash that no picture is near to.
    return np.maximum(packed(waves > 0), np.uint64([1, 0, 0, 0]))


@lru_cache(256)
def cosines(size: int) -> np.ndarray:
    """float32 [HIGHEST, size]: the waves over so many pixels, divided by their number."""
    centres = (np.arange(size) + 0.5) / size
    return (np.cos(np.pi * np.arange(HIGHEST)[:, None] * centres) / size).astype(np.float32)


def to_text(hashes: np.ndarray) -> list[str | None]:
    """uint64 [n, 4] → 64 hexadecimal digits each, None for none."""
    text = hashes.astype(">u8").tobytes().hex()
    digits = 16 * WORDS
    return [text[i * digits : (i + 1) * digits] if hashes[i].any() else None for i in range(len(hashes))]


def from_text(texts: list[str | None]) -> np.ndarray:
    """The hashes again, uint64 [n, 4]. Raises ValueError for what is none."""
    words = np.frombuffer(bytes.fromhex("".join(text or "0" * 16 * WORDS for text in texts)), ">u8")
    return words.reshape(len(texts), WORDS).astype(np.uint64)

"""A hash of what a picture looks like: 64 bits of which few change when it is resized, recompressed or marked."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

HASH_BITS = 64
HIGHEST = 11  # waves each way that are looked at
# (from top to bottom, from left to right): the lowest after the mean, by their sum. Bit n of the hash is WAVES[n].
WAVES = sorted(
    ((down, right) for down in range(HIGHEST) for right in range(HIGHEST) if down + right),
    key=lambda wave: (sum(wave), wave),
)[:HASH_BITS]
BITS = np.uint64(1) << np.arange(HASH_BITS, dtype=np.uint64)
# Those of the odd waves from left to right: a mirrored picture has them the other way round.
MIRRORED_BITS = np.bitwise_or.reduce(BITS[[right % 2 == 1 for _, right in WAVES]])
LEAST_CONTRAST = 0.25  # of 255, root mean square over the waves: below, the signs are those of noise


def picture_hash(grey: np.ndarray) -> int:
    """The signs of the 64 lowest waves (two-dimensional cosine transform) of a grey picture; 0 where it is plain.

    Brightness, contrast and size do not matter, the mirrored picture has `hash ^ MIRRORED_BITS`; waves and not
    differences of neighbours, because two plain backgrounds agree in all of those.

    Args:
        grey: [height, width] of any size and type from 0 to 255; a picture of 64 pixels is quite large enough.
    """
    height, width = grey.shape
    waves = cosines(height) @ grey.astype(np.float32) @ cosines(width).T
    found = np.array([waves[wave] for wave in WAVES])
    if np.sqrt(np.mean(found**2)) < LEAST_CONTRAST:
        return 0
    # 0 says that there is none. A picture whose signs are all negative gets another hash that no picture is near to.
    return int(np.bitwise_or.reduce(BITS[found > 0], initial=np.uint64(0))) or 1


@lru_cache(256)
def cosines(size: int) -> np.ndarray:
    """float32 [HIGHEST, size]: the waves over so many pixels, divided by their number."""
    centres = (np.arange(size) + 0.5) / size
    return (np.cos(np.pi * np.arange(HIGHEST)[:, None] * centres) / size).astype(np.float32)

"""What a picture looks like, in 64 bits: pictures that look alike differ in few of them. Knows PIL and numpy."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

BITS = 64
"""Length of a hash."""
SIDE = 64
"""Shorter side in pixels that suffices: the hash looks at 32 x 32."""

_PIXELS, _LOWEST = 32, 8
# Rows are the lowest cosines of a DCT-II, of which no more than these are needed: a sixteenth of the whole.
# Whole numbers so small that float64 holds every sum of their products: what cancels out in flat and symmetric pictures
# is then 0 on every processor, and not its rounding.
_COSINES = np.rint(2**16 * np.cos(np.pi / _PIXELS * np.outer(np.arange(_LOWEST), np.arange(_PIXELS) + 0.5)))


def phash(image: Image.Image) -> str:
    """The perceptual hash (signs of the lowest 8 x 8 cosine frequencies about their median), as 16 hex digits.

    It is what ``imagehash.phash`` gives for the same small grey picture, but for frequencies that a flat or symmetric
    one has none of: those it leaves to rounding, which differs between machines. Here the picture's own digest decides,
    so that it has one hash everywhere, and icons are not alike for being symmetric.

    Args:
        image: upright, RGB or grey, any size.
    """
    grey = _small(image).resize((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    lowest = _COSINES @ np.asarray(grey, dtype=np.float64) @ _COSINES.T
    twice_middle = np.sort(lowest, axis=None)[_LOWEST * _LOWEST // 2 - 1 :][:2].sum()
    own = np.unpackbits(np.frombuffer(hashlib.blake2b(grey.tobytes(), digest_size=BITS // 8).digest(), dtype=np.uint8))
    above = np.where(2 * lowest == twice_middle, own.reshape(lowest.shape) == 1, 2 * lowest > twice_middle)
    return np.packbits(above).tobytes().hex()


def distance(one: str, other: str) -> int:
    """How many of the 64 bits differ: within 8 it is most likely one picture, 32 is what chance gives."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def _small(image: Image.Image) -> Image.Image:
    """The picture in grey, so small that resampling it costs next to nothing."""
    factor = min(image.size) // SIDE
    if factor >= 4:
        # Every second pixel is enough for what is averaged next, and takes a quarter of the time.
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)
        factor //= 2
    grey = image.convert("L")
    return grey.reduce(factor) if factor > 1 else grey

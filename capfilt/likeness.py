"""What a picture looks like, in 64 bits: pictures that look alike differ in few of them. Knows PIL."""

from __future__ import annotations

import imagehash
from PIL import Image

BITS = 64
"""Length of a hash."""
SIDE = 64
"""Shorter side in pixels that suffices: the hash looks at 32 x 32."""


def phash(image: Image.Image) -> str:
    """The perceptual hash (signs of the lowest 8 x 8 cosine frequencies), as 16 hex digits.

    Args:
        image: upright, RGB or grey, any size.
    """
    return str(imagehash.phash(_small(image)))


def distance(one: str, other: str) -> int:
    """How many of the 64 bits differ: within 8 it is most likely one picture, 32 is what chance gives."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def _small(image: Image.Image) -> Image.Image:
    factor = min(image.size) // SIDE
    if factor >= 4:
        # Every second pixel is enough for what is averaged next, and takes a quarter of the time.
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)
        factor //= 2
    return image.reduce(factor) if factor > 1 else image

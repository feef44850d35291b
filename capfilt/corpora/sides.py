"""On which side of the split a thing falls: by its name alone, so the split is the same everywhere and always.

Knows hashes; knows no pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

HELD_OUT_ONE_IN = 10
"""One in this many concepts, and one in this many series of clip art, is never trained on."""
SERIES_ALWAYS_TRAINED = 40
"""A series of more pictures than this is always trained on: held out, it would be most of what is measured."""


def chance(*pieces: str) -> float:
    """A number in [0, 1) that depends on the pieces alone."""
    data = "\0".join(pieces).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") / 2**64


def pick(count: int, *pieces: str) -> int:
    """One of ``range(count)``, by the pieces alone."""
    return int(chance(*pieces) * count)


def held_out(kind: str, name: str) -> bool:
    """Whether the concept or series of this name is never trained on."""
    return chance("side", kind, name) < 1 / HELD_OUT_ONE_IN


def split(kind: str, names: Iterable[str]) -> dict[str, list[str]]:
    """The names as ``{"train": [...], "held_out": [...]}``, each sorted, without repeats."""
    sides: dict[str, list[str]] = {"train": [], "held_out": []}
    for name in sorted(set(names)):
        sides["held_out" if held_out(kind, name) else "train"].append(name)
    return sides

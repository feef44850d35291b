"""How large the pictures are and of what shape, counted in constant memory.

Reads widths and heights of ledger rows, which are those of the pictures as written; decodes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Counts = npt.NDArray[np.int64]

MOST_PX = 4096
"""Shorter sides are counted by the pixel up to here; longer ones together."""
ASPECT_BINS = 25
"""Bins of log2(width / height), each ``ASPECT_STEP`` wide, the middle one around a square."""
ASPECT_STEP = 0.2
_SQUARE = 2
"""A picture whose ratio lies within so many bins of the middle one is about square: from 5:7 to 7:5."""


@dataclass(frozen=True, kw_only=True)
class SizeFacts:
    """The sizes of all pictures that the filter could see, or of those that were kept."""

    shorter: Counts
    """Pictures by the shorter side, px; the last bin holds all longer ones. ``[MOST_PX + 1]``"""
    aspects: Counts
    """Pictures by log2(width / height), tall ones first. ``[ASPECT_BINS]``"""

    @property
    def pictures(self) -> int:
        """Those with a size."""
        return int(self.shorter.sum())

    @property
    def median(self) -> int | None:
        """The median of the shorter side, px; None without pictures."""
        if not self.pictures:
            return None
        return int(np.searchsorted(self.shorter.cumsum(), (self.pictures + 1) // 2))

    def under(self, px: int) -> float | None:
        """The share whose shorter side is under so many px, in [0, 1]; None without pictures."""
        return float(self.shorter[:px].sum() / self.pictures) if self.pictures else None

    def shapes(self) -> dict[str, float]:
        """The shares that are tall, about square and wide; nothing without pictures."""
        if not self.pictures:
            return {}
        middle = ASPECT_BINS // 2
        tall, wide = self.aspects[: middle - _SQUARE].sum(), self.aspects[middle + _SQUARE + 1 :].sum()
        whole = self.pictures
        return {
            "tall": float(tall / whole),
            "about square": float((whole - tall - wide) / whole),
            "wide": float(wide / whole),
        }


class Sizes:
    """Gathers :class:`SizeFacts`, of all rows that are added and of the kept ones among them."""

    def __init__(self) -> None:
        self._seen, self._kept = _nothing(), _nothing()

    def add(self, table: pa.Table) -> None:
        """Adds rows that reached the filter (the caller chooses the rows); those without a size are left out."""
        known = pc.and_(pc.greater(table.column("width"), 0), pc.greater(table.column("height"), 0)).fill_null(False)
        sized = table.filter(known)
        width, height = (sized.column(name).to_numpy().astype(np.float64) for name in ("width", "height"))
        kept = pc.is_null(sized.column("drop")).to_numpy()
        self._seen = _plus(self._seen, width, height)
        self._kept = _plus(self._kept, width[kept], height[kept])

    @property
    def seen(self) -> SizeFacts:
        """Of all pictures."""
        return self._seen

    @property
    def kept(self) -> SizeFacts:
        """Of those that were kept."""
        return self._kept


def _nothing() -> SizeFacts:
    return SizeFacts(shorter=np.zeros(MOST_PX + 1, np.int64), aspects=np.zeros(ASPECT_BINS, np.int64))


def _plus(facts: SizeFacts, width: npt.NDArray[np.float64], height: npt.NDArray[np.float64]) -> SizeFacts:
    shorter = np.minimum(np.minimum(width, height), MOST_PX).astype(np.int64)
    steps = np.rint(np.log2(width / height) / ASPECT_STEP).astype(np.int64) + ASPECT_BINS // 2
    return SizeFacts(
        shorter=facts.shorter + np.bincount(shorter, minlength=MOST_PX + 1),
        aspects=facts.aspects + np.bincount(np.clip(steps, 0, ASPECT_BINS - 1), minlength=ASPECT_BINS),
    )

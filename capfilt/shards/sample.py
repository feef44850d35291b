"""One sample of a shard: a picture, its captions and what is known of it; shared by writers and readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from capfilt.images import decode
from capfilt.records import Caption


@dataclass(frozen=True)
class Sample:
    """A picture with its captions."""

    key: str
    """Unique in the data set; no dots."""
    image: bytes
    """Encoded JPEG, PNG or WebP."""
    captions: list[Caption]
    """Kept and rejected, in the record's order."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """``records.META`` in our shards; whatever the JSON says in a stranger's."""

    @property
    def caption(self) -> str | None:
        """The best kept caption (:func:`best_caption`); None where none is kept."""
        best = best_caption(self.captions)
        return None if best is None else best["text"]

    def picture(self) -> Image.Image:
        """The picture, RGB.

        Raises:
            DataError: its bytes are no whole JPEG, PNG or WebP.
        """
        return decode(self.image)


def key_of(part: int, row: int) -> str:
    """The sample's key: its place in the plan; the hyphen keeps (1, 23) and (12, 3) apart at any width."""
    return f"{part:05d}-{row:07d}"


def _standing(caption: Caption) -> tuple[float, float]:
    """By P(match); by cosine where the filter knew only that; a text not scored stands below every scored one."""
    itm, itc = caption["itm"], caption["itc"]
    return (-1.0 if itm is None else itm, -2.0 if itc is None else itc if itm is None else 0.0)


def best_caption(captions: Iterable[Caption]) -> Caption | None:
    """The kept caption of the highest score, the first of equals; one not scored counts as lowest. Or None."""
    kept = [caption for caption in captions if caption["kept"]]
    return max(kept, key=_standing, default=None)

"""A contact sheet: pictures with a few lines of text each, and whether they are right; for a model's card.

Knows pictures and lines; knows no model and no run. The page is static: no script at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capfilt.report.gallery import shorten, thumbnail
from capfilt.report.rendering import page

SHEET_SIDE = 200
"""Longer side of a picture on the sheet, px."""


@dataclass(frozen=True)
class SheetItem:
    """One picture of the sheet."""

    image: bytes
    """Encoded JPEG, PNG or WebP."""
    lines: Sequence[str]
    """What stands below it; the first line is the picture's caption and its alternative text."""
    good: bool | None = None
    """Right, wrong, or not judged."""


def contact_sheet(items: Sequence[SheetItem], *, title: str, columns: int = 6) -> str:
    """A self-contained HTML page with the pictures in a grid.

    Args:
        items: what to show, in order; a picture that cannot be decoded leaves a gap and its lines.
        title: the page's heading.
        columns: pictures beside each other on a wide screen, 1 or more; fewer on a narrow one.
    """
    shown = [
        {
            "thumbnail": thumbnail(item.image, SHEET_SIDE),
            "lines": [shorten(line) for line in item.lines],
            "good": item.good,
        }
        for item in items
    ]
    judged = [item.good for item in items if item.good is not None]
    return page("sheet.html", title=title, columns=max(1, columns), items=shown, right=sum(judged), judged=len(judged))

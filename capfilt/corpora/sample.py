"""The bundled sample: a small scraped corpus, with what is wrong with scraped corpora.

Open Clip Art pictures that the embedded model was never trained on, with the titles their uploaders gave them, good
and bad as they come; at the end a few rows that go wrong in fetching. Knows the clip art and files; trains nothing.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from capfilt.corpora import clipart, traps
from capfilt.corpora.packages import locked, obtain
from capfilt.corpora.pictures import Unfit, is_blank, on_white, open_raster
from capfilt.corpora.sides import chance
from capfilt.storage import Store

LONGEST = 288
"""Pixels of the longer side of a picture of the sample."""
_JPEG_QUALITY = 88
_ONE_MORE = 1
"""The picture of the row without a title."""

TRAPS = {
    "page.html": traps.html_page,
    "truncated.jpg": traps.truncated_jpeg,
    "giant.png": traps.giant_png,
    "tiny.gif": traps.tiny_gif,
    "strip.png": traps.long_strip,
}
"""The files of the rows that go wrong."""

Row = tuple[str, str]
"""(url, caption)"""


@dataclass(frozen=True)
class _Clip:
    file: str
    title: str
    data: bytes


def build_sample(dest: str, *, cache: str, count: int = 350) -> dict[str, int]:
    """Writes ``pairs.csv``, ``images/`` and ``README.md`` below ``dest``; returns counts.

    Args:
        dest: a folder.
        cache: a folder for the packages' archives.
        count: how many pictures, beside the rows that go wrong.

    Raises:
        SourceError: an archive is not the locked one.
        DestinationError: ``dest`` cannot be written to.
    """
    store = Store(dest)
    store.check_writable()
    packages = locked()
    titles, pictures = (obtain(packages[name], Path(cache)) for name in (clipart.TITLES, clipart.PICTURES))
    *clips, untitled = _clips(titles, pictures, count + _ONE_MORE)
    for clip in (*clips, untitled):
        store.write(f"images/{clip.file}", clip.data)
    for name, make in TRAPS.items():
        store.write(f"images/{name}", make())
    rows = [(f"images/{clip.file}", clip.title) for clip in clips]
    store.write("pairs.csv", table([*rows, *bad_rows(rows, untitled.file)]))
    store.write("README.md", _readme(clips).encode())
    return {
        "rows": len(rows) + len(bad_rows(rows, untitled.file)),
        "pictures": len(rows),
        "bytes": sum(len(c.data) for c in clips),
    }


def bad_rows(rows: Sequence[Row], untitled: str) -> list[Row]:
    """What stands at the end of the table; one row is an exact repeat of the first."""
    return [
        ("images/missing.png", "Red bicycle"),
        ("images/page.html", "Photo of the month"),
        ("images/truncated.jpg", "Blue stripes"),
        ("images/giant.png", "White wall, full size"),
        ("images/tiny.gif", "spacer"),
        ("images/strip.png", "Horizontal rule"),
        ("", "A picture without an address"),
        rows[0],
        (f"images/{untitled}", ""),
    ]


def table(rows: Sequence[Row]) -> bytes:
    """The rows as CSV with the columns ``url`` and ``caption``, UTF-8."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([("url", "caption"), *rows])
    return out.getvalue().encode("utf-8")


def _clips(titles: Path, pictures: Path, count: int) -> list[_Clip]:
    about = clipart.usable(clipart.read_all_about(titles))
    sides = clipart.sides(clipart.series_of_all(clipart.read_pictures(pictures, about)))
    order = sorted((name for name, held in sides.items() if held), key=lambda name: chance("sample", name))
    drawn = dict(_drawn(pictures, order))
    usable = [name for name in order if name in drawn][:count]
    return [_clip(name, about[name], drawn[name]) for name in usable]


def _drawn(pictures: Path, names: Sequence[str]) -> Mapping[str, Image.Image]:
    out = {}
    for name, data in clipart.read_pictures(pictures, names):
        picture = open_raster(data)
        if not isinstance(picture, Unfit):
            flat = on_white(picture, LONGEST)
            if not is_blank(flat):
                out[name] = flat
    return out


def _clip(name: str, about: clipart.About, picture: Image.Image) -> _Clip:
    ending, data = smallest(picture)
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return _Clip(f"{stem}.{ending}", about.text, data)


def smallest(picture: Image.Image) -> tuple[str, bytes]:
    """The picture as PNG, or as JPEG where that is less than half of it: flat drawings stay exact."""
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    picture.save(jpeg, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    as_jpeg = jpeg.tell() * 2 < png.tell()
    return ("jpg", jpeg.getvalue()) if as_jpeg else ("png", png.getvalue())


def _readme(clips: Sequence[_Clip]) -> str:
    version = locked()[clipart.PICTURES].version
    repeated = [(t, n) for t, n in Counter(clip.title for clip in clips).most_common() if n > 1]
    listed = "; ".join(f"“{title}” ({times} times)" for title, times in repeated[:6])
    return f"""# The bundled sample

{len(clips)} drawings of the Open Clip Art Library 0.18 with the titles their uploaders gave them, as a scraped
corpus would have them: `pairs.csv` (columns `url` and `caption`; the urls are relative to this folder) and `images/`.

- **Source.** The Debian packages `openclipart-png` and `openclipart-svg`, version {version}.
  The title is the `dc:title` of the drawing's own metadata, or its description where there is no title. Nothing was
  rewritten.
- **Licence.** Public domain: only drawings whose metadata names the public domain dedication are here.
- **Choice.** At random (by a hash of the file name) from the drawings that no model of this project was trained on,
  so good titles and bad ones stand in their natural proportion. The commonest, most of which do not say what is on
  the picture: {listed}.
- **Left out.** Series of more than 40 near-identical drawings (which are trained on), drawings of more than 50
  million pixels, and those that are white on white.
- **Pictures.** On white, the longer side {LONGEST} pixels; PNG, or JPEG where that is less than half as large.

## The last {len(bad_rows([("", "")], ""))} rows go wrong on purpose

| row | what is wrong with it |
|---|---|
| `images/missing.png` | there is no such file (404) |
| `images/page.html` | an HTML page where a picture is promised |
| `images/truncated.jpg` | the first third of a JPEG |
| `images/giant.png` | 20,000 x 20,000 pixels in 76 kB: never decode it |
| `images/tiny.gif` | 8 x 8 pixels |
| `images/strip.png` | 1600 x 40 pixels |
| (empty) | no address at all |
| the first row again | an exact repeat |
| the last row | a good picture without a title; only a caption that was generated can be kept for it |

The files of these rows were made for this sample and are in the public domain too.
"""

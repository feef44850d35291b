"""Puts the results of ``capfilt paper`` into docs/paper-tables.md, each between its marks, and draws them beside it.

capfilt paper a --corpora DIR --out benchmarks/results/paper     and the other tables
python -P benchmarks/paper.py
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from capfilt.paper.page import draw, markdown

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "paper-tables.md"
PLOTS = ROOT / "docs" / "paper-tables"
RESULTS = ROOT / "benchmarks" / "results" / "paper"


def results() -> dict[str, Any]:
    """The committed results, by table."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))}


def filled(page: str, found: Mapping[str, Any]) -> str:
    """The page with each table that it has marks for.

    Raises:
        KeyError: it has marks for a table without results.
    """
    marks = re.compile(r"(<!-- table (\w+), from benchmarks/results/paper/\w+\.json -->\n).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda mark: f"{mark[1]}{markdown(found[mark[2]])}{mark[3]}", page)


def digest(told: Mapping[str, Any]) -> str:
    """Of the figures that a plot shows; it stands in the plot's EXIF, so that a test sees which results were drawn."""
    return hashlib.sha256(json.dumps(told["arms"], sort_keys=True).encode()).hexdigest()


def drawn(told: Mapping[str, Any]) -> bytes:
    """A table's plot as WebP."""
    png = draw(told)
    assert png is not None, "matplotlib is not installed"
    file, exif = BytesIO(), Image.Exif()
    exif[ExifTags.Base.ImageDescription] = digest(told)
    Image.open(BytesIO(png)).convert("RGB").save(file, "WEBP", lossless=True, method=6, exif=exif)
    return file.getvalue()


if __name__ == "__main__":
    PLOTS.mkdir(exist_ok=True)
    for name, told in results().items():
        (PLOTS / f"{name}.webp").write_bytes(drawn(told))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), results()), encoding="utf-8")

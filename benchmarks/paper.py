"""Puts the results of ``capfilt paper`` into docs/paper-tables.md, each between its marks, and draws them beside it.

    capfilt paper a --corpora DIR --out benchmarks/results/paper     and the other tables
    python -P benchmarks/paper.py

What lies in its folder ``bfloat16`` was run on a CPU that multiplies in it, and is pooled with the rest.
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
from capfilt.paper.run import summary

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "paper-tables.md"
PLOTS = ROOT / "docs" / "paper-tables"
RESULTS = ROOT / "benchmarks" / "results" / "paper"


def files(folder: Path) -> dict[str, Any]:
    """The results of a folder, by table."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}


def results() -> dict[str, Any]:
    """The committed results, by table; a table that was run in both precisions is pooled."""
    also = files(RESULTS / "bfloat16")
    return {name: pooled(told, also[name]) if name in also else told for name, told in files(RESULTS).items()}


def pooled(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two results of one table as one: all their runs, with the mean and spread of all.

    The same seeds in another precision are other runs: rounding moves a training as far as a seed does.

    Raises:
        ValueError: they are not of the same arms.
    """
    arms = []
    for one, other in zip(first["arms"], second["arms"], strict=True):
        if one["name"] != other["name"]:
            raise ValueError(f"{one['name']} and {other['name']} are not one arm")
        units = [*one["units"], *other["units"]]
        arms.append({**one, "units": units, **summary([unit["figures"] for unit in units])})
    return {
        **first,
        "arms": arms,
        "pooled": [{key: told[key] for key in ("precision", "cpu_s", "seeds")} for told in (first, second)],
    }


def table(told: Mapping[str, Any]) -> str:
    """A table of the page, and below it what it was made from."""
    if "pooled" not in told:
        return markdown(told)
    runs = [
        f"{one['seeds']} seeds in {one['precision']} ({one['cpu_s'] / 60:.0f} minutes of one core)"
        for one in told["pooled"]
    ]
    head = markdown(told).rsplit("\n\n", 1)[0]
    return f"{head}\n\n{' and '.join(runs)}; what it shares with other tables is counted.\n"


def filled(page: str, found: Mapping[str, Any]) -> str:
    """The page with each table that it has marks for.

    Raises:
        KeyError: it has marks for a table without results.
    """
    marks = re.compile(r"(<!-- table (\w+), from benchmarks/results/paper/\w+\.json -->\n).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda mark: f"{mark[1]}{table(found[mark[2]])}{mark[3]}", page)


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

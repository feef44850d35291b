"""The curves of a run as a picture: losses, held-out losses, learning rate and speed by step. Knows CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

from capfilt.train.log import LOSSES

NAMES = {"itc": "ITC", "itm": "ITM", "lm": "LM"}


def draw(out: Path, file: Path) -> Path | None:
    """Draw ``out/log.csv``, and ``out/held-out.csv`` if there is one, into a picture whose name says its format.

    Returns:
        The file; None where matplotlib is not installed or there is nothing to draw.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra
    except ImportError:
        return None
    log, held_out = _columns(out / "log.csv"), _columns(out / "held-out.csv")
    shown = [name for name in LOSSES if name in log]
    if not shown:
        return None
    figure = Figure(figsize=(3.4 * (len(shown) + 1), 2.8), layout="constrained")
    panels = figure.subplots(1, len(shown) + 1)
    for axes, name in zip(panels, shown, strict=False):
        axes.plot(log["step"], log[name], linewidth=1.0, label="training")
        if name in held_out:
            axes.plot(held_out["step"], held_out[name], marker="o", markersize=3, linewidth=1.2, label="held out")
            axes.legend(frameon=False, fontsize="small")
        axes.set(title=f"{NAMES[name]} loss", xlabel="step")
        axes.grid(alpha=0.3)
    speed = panels[-1]
    speed.plot(log["step"], log["images_per_s"], linewidth=1.0, color="tab:green")
    speed.set(title="pairs/s", xlabel="step", ylim=(0, None))
    speed.grid(alpha=0.3)
    temporary = file.with_name(f".{file.name}")
    figure.savefig(temporary, dpi=110, format=file.suffix.removeprefix("."))
    return temporary.replace(file)


def _columns(file: Path) -> dict[str, list[float]]:
    if not file.exists():
        return {}
    with file.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}

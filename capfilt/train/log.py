"""What a run tells of itself: means of losses between reports, and ``log.csv``. Knows numbers and one file."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class StepReport:
    """What is told of a step: losses are means since the last report, ``images_per_s`` likewise."""

    step: int
    steps: int
    losses: dict[str, float]
    images_per_s: float
    lr: float


class Meter:
    """Means of losses, kept on the device until they are asked for.

    Args:
        batch_size: pairs a step, those of all processes.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.sums: dict[str, Tensor] = {}
        self.count, self.since = 0, time.perf_counter()

    def add(self, losses: dict[str, Tensor]) -> None:
        """A step's losses."""
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + loss if name in self.sums else loss
        self.count += 1

    def take(self) -> tuple[dict[str, float], float]:
        """Means and pairs a second since the last call."""
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        rate = self.count * self.batch_size / max(1e-9, time.perf_counter() - self.since)
        self.sums, self.count, self.since = {}, 0, time.perf_counter()
        return means, rate


class Log:
    """``log.csv``: a line a report; a resumed run drops the lines that it will write again.

    Args:
        file: where. start: the step that the run goes on with.
        writes: whether this process is the one that writes.
    """

    def __init__(self, file: Path, start: int, *, writes: bool = True) -> None:
        self.file, self.writes = file, writes
        self.rows: list[dict[str, str]] = []
        if start and file.exists():
            with file.open(newline="", encoding="utf-8") as f:
                self.rows = [row for row in csv.DictReader(f) if int(row["step"]) <= start]

    def write(self, report: StepReport) -> None:
        """Add a line."""
        numbers = {**report.losses, "lr": report.lr, "images_per_s": report.images_per_s}
        self.rows.append({"step": str(report.step)} | {k: f"{v:.6g}" for k, v in numbers.items()})
        if not self.writes:
            return
        with self.file.open("w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def ends(self) -> tuple[float, float]:
        """The summed losses of the first and the last line."""
        if not self.rows:
            return math.nan, math.nan
        return _total(self.rows[0]), _total(self.rows[-1])


def _total(row: dict[str, str]) -> float:
    return sum(float(row[name]) for name in ("itc", "itm", "lm") if name in row)

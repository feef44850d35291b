"""What a run tells of itself: means of losses between reports, and CSV files of them. Knows numbers and files."""

from __future__ import annotations

import csv
import io
import math
import resource
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepReport:
    """What is told of a step: losses are means since the last report, ``images_per_s`` likewise."""

    step: int
    steps: int
    losses: dict[str, float]
    images_per_s: float
    lr: float
    memory_gb: float
    """The most that this process has held so far: of the GPU where it trains on one, else of the machine."""
    eta_s: float
    """Seconds to the end, at the rate since the last report."""


class Meter:
    """Means of losses, kept on the device until they are asked for, and the rows of each step until then.

    Args:
        batch_size: pairs a step, those of all processes.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.steps: deque[tuple[int, dict[str, Tensor], Sequence[str]]] = deque()
        self.since = time.perf_counter()

    def add(self, step: int, losses: dict[str, Tensor], names: Sequence[str]) -> None:
        """A step's losses, and where its pairs are."""
        self.steps.append((step, losses, names))

    def take(self) -> tuple[dict[str, float], float]:
        """Means and pairs a second since the last call."""
        values = {name: torch.stack([losses[name] for _, losses, _ in self.steps]) for name in self.steps[0][1]}
        means = {name: float(value.double().mean()) for name, value in values.items()}
        rate = len(self.steps) * self.batch_size / max(1e-9, time.perf_counter() - self.since)
        if all(math.isfinite(mean) for mean in means.values()):
            self.steps.clear()
        self.since = time.perf_counter()
        return means, rate

    def first_wild(self) -> tuple[int, dict[str, float], Sequence[str]] | None:
        """The first step since the last finite report whose losses are not all finite: its losses and its pairs."""
        for step, losses, names in self.steps:
            values = {name: float(loss) for name, loss in losses.items()}
            if not all(math.isfinite(value) for value in values.values()):
                return step, values, names
        return None


def peak_memory_gb(device: torch.device) -> float:
    """The most memory that this process has held, in GB: of its GPU, or resident on the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


class Log:
    """A CSV file with a line a report; a resumed run drops the lines that it will write again.

    Args:
        file: where. start: the step that the run goes on with.
        writes: whether this process is the one that writes.
    """

    def __init__(self, file: Path, start: int, *, writes: bool = True) -> None:
        self.file, self.writes = file, writes
        self.rows = _lines(file, start) if start else []
        if writes and file.exists():
            temporary = file.with_name(f".{file.name}")
            temporary.write_text(_csv(self.rows, header=True), encoding="utf-8", newline="")
            temporary.replace(file)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a line."""
        row = {"step": str(step)} | {name: f"{value:.6g}" for name, value in numbers.items()}
        self.rows.append(row)
        if self.writes:
            with self.file.open("a", newline="", encoding="utf-8") as f:
                f.write(_csv([row], header=len(self.rows) == 1))

    def ends(self) -> tuple[float, float]:
        """The summed losses of the first and the last line."""
        if not self.rows:
            return math.nan, math.nan
        return total(self.rows[0]), total(self.rows[-1])


LOSSES = ("itc", "itm", "lm")


def total(row: Mapping[str, str | float]) -> float:
    """The sum of the losses of a line."""
    return sum(float(row[name]) for name in LOSSES if name in row)


def _lines(file: Path, start: int) -> list[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8") as f:
            rows = list(csv.DictReader(f))
    except FileNotFoundError:
        return []
    # A kill may have left half a line.
    return [row for row in rows if None not in row.values() and row["step"].isdigit() and int(row["step"]) <= start]


def _csv(rows: Sequence[Mapping[str, str]], *, header: bool) -> str:
    if not rows:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def skipped_in(folder: Path) -> set[str]:
    """The names of what any process of a run has passed over."""
    names: set[str] = set()
    for file in folder.glob("skipped*.csv"):
        names |= Skipped(file).seen
    return names


class Skipped:
    """``skipped.csv``: name and reason of each thing that training passed over, once.

    Args:
        file: where; an earlier run's lines stay.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seen: set[str] = set()
        if file.exists():
            with file.open(newline="", encoding="utf-8") as f:
                self.seen = {row["name"] for row in csv.DictReader(f)}

    def add(self, bad: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Write down what is new; returns it."""
        new = [(name, reason) for name, reason in dict(bad).items() if name not in self.seen]
        if new:
            first = not self.file.exists()
            with self.file.open("a", newline="", encoding="utf-8") as f:
                writer = csv.writer(f, lineterminator="\n")
                if first:
                    writer.writerow(("name", "reason"))
                writer.writerows((name, " ".join(reason.split())) for name, reason in new)
            self.seen |= {name for name, _ in new}
        return new

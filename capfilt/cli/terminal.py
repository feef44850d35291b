"""What a command shows: live bars in a terminal, plain lines in a log, nothing when asked to be quiet.

Progress goes to stderr and results to stdout. Knows counts and texts; knows no job.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 10.0
_NARROWEST = 30
"""Columns: with fewer, breaking lines helps nobody."""


class Meter(Protocol):
    """Where progress is told."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` units; ``note`` says what there is beside the count."""
        ...


@contextmanager
def meter(label: str, *, quiet: bool = False, every: float = SECONDS_BETWEEN_LINES) -> Iterator[Meter]:
    """A meter that suits where stderr goes; in a log a line at most every ``every`` seconds, and the last."""
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield _Live(bar, label)
    else:
        yield _Lines(label, every)


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """The text in a colour where the stream is a terminal and NO_COLOR is not set; else as it is."""
    return typer.style(text, fg=colour, bold=True) if stream.isatty() and not os.environ.get("NO_COLOR") else text


def plain(text: str) -> str:
    """The text with a blank for whatever cannot be seen: a stranger's must not move the cursor, colour the terminal or
    begin a line."""
    return "".join(char if char.isprintable() else " " for char in text)


def hanging(text: str, indent: int, stream: TextIO) -> str:
    """What stands behind ``indent`` columns, broken between words where a terminal is too narrow; else as it is."""
    width = shutil.get_terminal_size().columns - indent if stream.isatty() else 0
    if width < _NARROWEST:
        return text
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A small table on stdout: the first column to the left, the others to the right. Never cut, never coloured."""
    lines = [[plain(cell) for cell in line] for line in [columns, *rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    typer.echo(plain(title))
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(text.rjust(w) for text, w in zip(others, widths[1:], strict=True))]
        typer.echo("  ".join(["", *cells]).rstrip())


@dataclass
class _Silent:
    def update(self, done: int, total: int, note: str = "") -> None:
        """Says nothing."""


@dataclass
class _Live:
    bar: Progress
    label: str

    def __post_init__(self) -> None:
        self.task = self.bar.add_task(self.label, total=None, note="")

    def update(self, done: int, total: int, note: str = "") -> None:
        """Moves the bar."""
        self.bar.update(self.task, completed=done, total=total, note=note)


@dataclass
class _Lines:
    label: str
    every: float
    last: float = field(default=float("-inf"))

    def update(self, done: int, total: int, note: str = "") -> None:
        """Writes a line, unless one was written a moment ago."""
        now = time.monotonic()
        if now - self.last < self.every and done < total:
            return
        self.last = now
        typer.echo(f"{self.label} {done}/{total}{'  ' + note if note else ''}", file=sys.stderr)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )

"""A bootstrap as it runs: a board in a terminal, plain lines in a log.

Knows the job's progress and how it reads; knows not how the job is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from capfilt.cli.terminal import SECONDS_BETWEEN_LINES, meter

if TYPE_CHECKING:
    from rich.console import Console, Group

    from capfilt.bootstrap import Progress

Tell = Callable[["Progress"], None]
_REASONS = 6
"""So many reasons are told apart; the others are told together."""
_BAR = 34


@contextmanager
def watching(
    label: str = "parts",
    *,
    quiet: bool = False,
    every: float = SECONDS_BETWEEN_LINES,
    console: Console | None = None,
) -> Iterator[Tell]:
    """What to tell a run's progress to: a live board where stderr is a terminal, else lines.

    Args:
        label: what the bar counts.
        quiet: tell nothing.
        every: seconds between lines in a log.
        console: where the board goes; None takes stderr.
    """
    if quiet or (console is None and not sys.stderr.isatty()):
        with meter(label, quiet=quiet, every=every) as plain:
            yield lambda now: plain.update(now.done, now.total, line(now))
        return
    from rich.console import Console as Terminal
    from rich.live import Live

    board = _Board(label)
    with Live(
        board, console=console or Terminal(stderr=True), refresh_per_second=4, redirect_stdout=False, transient=True
    ):
        yield board.update
    if board.now is not None:
        # What stays in the scrollback after the board is gone.
        print(f"{label} {board.now.done}/{board.now.total}  {line(board.now)}", file=sys.stderr)  # noqa: T201


def line(now: Progress) -> str:
    """One line: the books, the noise, the speed and the time left."""
    noise = " ".join(_noise(now))
    told = [f"{now.tally.rows:,} rows", f"{now.tally.kept:,} kept", *([f"noise {noise}"] if noise else [])]
    if (rate := now.pace.steady) is not None:
        told += [f"{rate:.3g} images/s", f"{now.pace.limits} limits"]
    if now.done < now.total and (left := now.pace.left(now.total - now.done)) is not None:
        told.append(f"{clock(left)} left")
    return ", ".join(told)


def rows(now: Progress) -> dict[str, str]:
    """What a board says below its bar, by the name of the line."""
    tally, pace = now.tally, now.pace
    told = {"rows": f"{tally.rows:,} in, {tally.kept:,} kept"}
    if tally.rows:
        told["rows"] += f" ({tally.kept / tally.rows:.1%})"
    dropped = sorted(tally.dropped.items(), key=lambda item: -item[1])
    if dropped:
        others = sum(count for _, count in dropped[_REASONS:])
        parts = [f"{reason} {count:,}" for reason, count in dropped[:_REASONS]]
        told["dropped"] = ", ".join([*parts, *([f"others {others:,}"] if others else [])])
    if noise := list(_noise(now)):
        told["noise"] = ", ".join(noise)
    if (rate := pace.steady or pace.images_s) is not None:
        told["speed"] = f"{rate:.3g} images/s; {pace.limits} limits; faster: {pace.advice}"
    else:
        told["speed"] = "the models are loading" if pace.first is None and now.done < now.total else "nothing to do"
    return told


def clock(seconds: float) -> str:
    """Hours, minutes and seconds; days before them where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{f'{days} days ' if days else ''}{hours}:{minutes:02}:{rest:02}"


def _noise(now: Progress) -> Iterator[str]:
    for origin in now.tally.texts:
        ratio = now.tally.noise_ratio(origin)
        if ratio is not None:
            yield f"{origin} {ratio:.1%}"


class _Board:
    """Drawn anew several times a second, so that the clock moves between parts."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.now: Progress | None = None
        self.began = self.told = time.monotonic()

    def update(self, now: Progress) -> None:
        """Takes what is to be shown."""
        self.now, self.told = now, time.monotonic()

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        time_now = time.monotonic()
        elapsed = f"elapsed {clock(time_now - self.began)}"
        head = Table.grid(padding=(0, 2))
        head.add_column(width=8)
        if self.now is None:
            head.add_row(Text(self.label), Text("looking at source and destination"), Text(elapsed, style="dim"))
            return Group(head)
        now = self.now
        left = now.pace.left(now.total - now.done) if now.done < now.total else None
        # The pace is that of the last part told: what has passed since then is part of what was left.
        remaining = "" if left is None else f"left {clock(max(0.0, left - (time_now - self.told)))}"
        head.add_row(
            Text(self.label),
            ProgressBar(total=max(1, now.total), completed=now.done, width=_BAR),
            Text(f"{now.done:,}/{now.total:,}"),
            Text(elapsed, style="dim"),
            Text(remaining, style="cyan"),
        )
        body = Table.grid(padding=(0, 2))
        body.add_column(width=8)
        body.add_column(overflow="fold")
        for name, text in rows(now).items():
            body.add_row(Text(name), Text(text))
        return Group(head, body)

"""``capfilt report`` and ``capfilt verify``: what a destination holds, to look at and to check."""

from __future__ import annotations

from typing import Annotated

import typer

from capfilt.cli.errors import ExitCode
from capfilt.errors import DestinationError

Dest = Annotated[str, typer.Argument(metavar="DEST", help="A destination of `capfilt bootstrap`.")]


def report(
    dest: Dest,
    gallery: Annotated[int, typer.Option(min=0, max=120, help="Pictures shown of each verdict.")] = 48,
    seed: Annotated[int, typer.Option(help="Chooses which ones.")] = 0,
) -> None:
    """Write DEST/report.html: what happened, to look at.

    Counts by reason, noise ratios, kept and rejected captions. Prints the page's path.
    """
    from capfilt.report.page import write_report
    from capfilt.storage import Store

    typer.echo(write_report(Store(dest), gallery=gallery, seed=seed))


def verify(dest: Dest) -> None:
    """Check a data set against its books.

    Counts, digests, and that each row is there once. Prints one line for each problem and exits 1 if there is any.
    """
    from capfilt.shards.verify import verify as problems_of
    from capfilt.storage import Store

    store = Store(dest)
    if not store.names("parts"):
        raise DestinationError(
            "there is nothing to verify: no part of a run is finished here",
            where=store.url,
            mend="Name the DEST of a `capfilt bootstrap` run.",
        )
    problems = problems_of(store)
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(ExitCode.UNEXPECTED)
    typer.echo("ok: the books balance, and every file is as it was written")

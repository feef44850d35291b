"""``capfilt report``, ``verify`` and ``dedup``: what a destination holds, to look at, to check and to thin."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from capfilt.cli.errors import ExitCode
from capfilt.cli.options import JsonOption, QuietOption
from capfilt.cli.terminal import meter, table
from capfilt.errors import DestinationError

if TYPE_CHECKING:
    from capfilt.report.comparison import AtThreshold

Dest = Annotated[str, typer.Argument(metavar="DEST", help="A destination of `capfilt bootstrap`.")]


def report(
    dest: Dest,
    gallery: Annotated[int, typer.Option(min=0, max=80, help="Pictures shown in each gallery.")] = 48,
    seed: Annotated[int, typer.Option(help="Chooses which ones.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print books, noise ratios and thresholds as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the page's path only.")] = False,
) -> None:
    """Write DEST/report.html: what happened, to look at.

    Counts by reason, noise ratios, kept and rejected captions. Prints what other thresholds would keep, and the page's
    path.
    """
    from capfilt.report.comparison import compare
    from capfilt.report.gather import gather
    from capfilt.report.page import write_page
    from capfilt.storage import Store

    store = Store(dest)
    data = gather(store, gallery=gallery, seed=seed)
    path = write_page(store, data)
    lines = compare(data)
    if as_json:
        told = {
            "report": path,
            "finished": data.finished,
            "totals": data.tally.to_json(),
            "noise_ratio": {facts.origin: facts.noise_ratio for facts in data.origins},
            "threshold": data.threshold,
            "thresholds": [dataclasses.asdict(line) for line in lines],
        }
        typer.echo(json.dumps(told, indent=1))
        return
    if quiet:
        typer.echo(path)
        return
    if lines:
        _compared(lines)
    typer.echo(f"report  {path}")


def _compared(lines: list[AtThreshold]) -> None:
    head = ["threshold", "pictures", *(column for name in lines[0].texts for column in (f"{name} texts", "noise"))]
    rows = [
        [
            f"{line.threshold:g}{' (this run)' if line.own else ''}",
            f"{line.pictures:,}{'*' if line.absent else ''}",
            *(cell for name, kept in line.texts.items() for cell in (f"{kept:,}", f"{line.noise[name]:.1%}")),
        ]
        for line in lines
    ]
    table("What each threshold would keep; `capfilt refilter` writes it, with no model run", head, rows)
    if any(line.absent for line in lines):
        typer.echo("* some of them were dropped with their bytes: those need a new bootstrap")


def dedup(
    dest: Dest,
    near: Annotated[
        int, typer.Option(min=-1, max=8, help="Bits of 64 in which hashes of like pictures may differ; -1: equal only.")
    ] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count; change nothing.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every duplicate and what it is one of, as JSON.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Drop pictures of DEST that are there twice, or look like another.

    Of each group the largest stays. The others become drops with the reason duplicate, in the ledger with the place of
    the one that stays, and leave the shards.
    """
    from capfilt.dedup import dedup as run

    with meter("parts", quiet=quiet or as_json or dry_run) as progress:
        result = run(dest, near=near, dry_run=dry_run, on_part=progress.update)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(result), indent=1, sort_keys=True))
        return
    found = len(result.duplicates)
    typer.echo(f"{result.pictures:,} pictures: {result.equal:,} equal another, {result.near:,} more look like another")
    if result.unhashed:
        typer.echo(f"{result.unhashed:,} have no perceptual hash and were compared byte by byte only")
    typer.echo(f"{found:,} {'would be' if dry_run else 'were'} dropped as duplicates")


def verify(
    dest: Dest,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take away what is broken; the next bootstrap does it again.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a data set against its books.

    Counts, digests, and that each row is there once. Prints one line for each problem and exits 1 if there is any.
    """
    from capfilt.shards.verify import repair as take_away
    from capfilt.shards.verify import verify as problems_of
    from capfilt.storage import Store

    store = Store(dest)
    if not store.names("parts"):
        raise DestinationError(
            "there is nothing to verify: no part of a run is finished here",
            where=store.url,
            mend="Name the DEST of a `capfilt bootstrap` run.",
        )
    with meter("parts", quiet=quiet or as_json) as progress:
        problems = list(problems_of(store, on_part=progress.update))
    parts = take_away(store) if problems and repair else []
    if as_json:
        typer.echo(json.dumps({"ok": not problems, "problems": problems, "taken_away": parts}, indent=1))
        raise typer.Exit(ExitCode.UNEXPECTED if problems else ExitCode.OK)
    for problem in problems:
        typer.echo(problem)
    if problems and repair:
        told = f"{len(parts)} part{'s' if len(parts) != 1 else ''}" if parts else "the manifest"
        typer.echo(f"taken away: {told}; the same command as before makes them anew, and nothing else")
    if problems:
        raise typer.Exit(ExitCode.UNEXPECTED)
    typer.echo("ok: the books balance, and every file is as it was written")

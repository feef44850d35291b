"""``capfilt preview``: a random few rows of a source through the models, as a page to look at before a run.

Knows how it is asked for and shown; the work is ``capfilt.preview``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from capfilt.cli.options import QuietOption, RecipeOption, SetOption
from capfilt.cli.terminal import meter, table

if TYPE_CHECKING:
    from capfilt.report.trial import Looked


def command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="As `capfilt bootstrap` takes it.")],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The page.")] = "preview.html",
    rows: Annotated[int, typer.Option("-n", "--rows", metavar="N", min=1, max=300, help="Rows that are tried.")] = 64,
    seed: Annotated[int, typer.Option(help="Chooses which ones.")] = 0,
    price: Annotated[
        float | None, typer.Option("--price", metavar="USD", min=0, help="Of an hour of such a machine, for the cost.")
    ] = None,
    recipe: RecipeOption = None,
    sets: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON, and no progress.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Try a few rows of SOURCE: pictures, captions and scores, and what would be kept at which threshold.

    Fetches, captions and judges N random rows on this machine and writes one page, FILE, to look at. Says how fast
    that was and what all of SOURCE would take. Writes no data set.
    """
    from capfilt.errors import DestinationError
    from capfilt.preview import preview
    from capfilt.recipe import load
    from capfilt.report.trial import render
    from capfilt.storage import Store

    made = load(recipe, sets or (), source=source)
    folder, _, name = out.rpartition("/")
    store = Store(folder or ("/" if out.startswith("/") else "."))
    if not name:
        raise DestinationError("it names a folder", where=f"--out {out}", mend=f"Say {out}preview.html.")
    store.check_writable()
    with meter("rows", quiet=quiet or as_json) as progress:
        looked = preview(made, rows=rows, seed=seed, on_rows=progress.update)
    store.write(name, render(looked).encode())
    page = store.path(name)
    if as_json:
        typer.echo(json.dumps(looked.to_json() | {"page": page}, indent=1))
        return
    show(looked, price)
    typer.echo(f"page     {Path(page) if store.is_local else page}")


def show(looked: Looked, price: float | None) -> None:
    """What was tried, what thresholds would keep, how fast it was."""
    for line in _tried(looked):
        typer.echo(line)
    if looked.lines:
        head = ["threshold", "pictures", *(f"{origin} texts" for origin in looked.texts)]
        rows = [
            [
                f"{line.threshold:g}{' (the recipe)' if line.own else ''}",
                *(f"{kept:,}" for kept in (line.pictures, *(line.texts[origin] for origin in looked.texts))),
            ]
            for line in looked.lines
        ]
        table(f"Of {looked.seen:,} pictures, each threshold would keep", head, rows)
    for line in _speed(looked, price):
        typer.echo(line)


def _tried(looked: Looked) -> Iterator[str]:
    rows = "unknown" if looked.rows is None else f"{'' if looked.exact else 'about '}{looked.rows:,}"
    yield f"sample   {looked.sampled:,} of {rows} rows, drawn from {looked.drawn_from} (seed {looked.seed})"
    if looked.dropped:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in looked.dropped.items())
        yield f"dropped  {sum(looked.dropped.values()):,}: {reasons}"


def _speed(looked: Looked, price: float | None) -> Iterator[str]:
    from capfilt.report.rendering import hours

    speed = looked.speed
    if speed.images_s is None:
        yield "speed    no picture reached the models"
        return
    yield f"speed    {speed.images_s:.3g} images/s through the models, on this machine"
    rows = 1_000_000 if looked.rows is None else looked.rows
    took = speed.hours(rows)
    cost = "" if price is None else f", {took * price:,.2f} USD at {price:g} an hour"
    held = "the models hold" if speed.limits == "models" else "fetching holds"
    yield f"estimate {rows:,} rows: about {hours(took)} on one such machine{cost}; {held} it up"

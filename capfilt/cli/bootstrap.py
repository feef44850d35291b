"""``capfilt bootstrap``: the main job, from a source to a finished data set.

Knows how the job is asked for and shown; the job itself is ``capfilt.bootstrap``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capfilt.cli import summary
from capfilt.cli.options import (
    QuietOption,
    RecipeOption,
    Runner,
    RunnerOption,
    SetOption,
    VerboseOption,
    WorkersOption,
)
from capfilt.cli.terminal import meter

if TYPE_CHECKING:
    from capfilt.bootstrap import Progress, Result
    from capfilt.cli.terminal import Meter
    from capfilt.recipe import Recipe

PLACES = {"shards": "shards/", "ledger": "pairs/", "books": "manifest.json", "report": "report.html"}


def command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A table of URLs, tars, img2dataset's folder, pictures or annotations (docs/sources.md).",
        ),
    ],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Folder or URL (s3://...) that the data set goes to.")],
    recipe: RecipeOption = None,
    sets: SetOption = None,
    runner: RunnerOption = Runner.RAY,
    workers: WorkersOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; fetch and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and no progress.")] = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn SOURCE into a clean, captioned data set at DEST.

    One file, a folder or a glob; `capfilt inspect SOURCE` shows what it is understood to be. Run again with the same
    SOURCE and DEST, it goes on where it stopped.
    """
    from capfilt.recipe import load

    result = run(
        source,
        dest,
        load(recipe, sets or (), source=source),
        runner=runner,
        workers=workers,
        dry_run=dry_run,
        verbose=verbose,
        quiet=quiet or as_json,
    )
    show(result, as_json=as_json)


def run(
    source: str,
    dest: str,
    recipe: Recipe,
    *,
    runner: Runner,
    workers: int | None,
    dry_run: bool = False,
    verbose: bool = False,
    quiet: bool = False,
) -> Result:
    """The main job with its progress on stderr."""
    from capfilt.bootstrap import bootstrap
    from capfilt.flow.config import RunConfig

    config = RunConfig(runner="local" if runner is Runner.LOCAL else "ray", workers=workers, verbose=verbose)
    with meter("parts", quiet=quiet or dry_run) as progress:
        return bootstrap(
            source, dest, recipe=recipe, run=config, on_progress=lambda now: _tell(progress, now), dry_run=dry_run
        )


def show(result: Result, *, as_json: bool = False) -> None:
    """The end of a run: its plan if it was only planned, else its books and where things are."""
    if as_json:
        typer.echo(json.dumps(_json(result), indent=1, sort_keys=True))
    elif result.manifest is None:
        typer.echo(result.plan)
    else:
        summary.show(result.manifest)
        places(result)


def places(result: Result) -> None:
    """Where the data set, its ledger and its report are."""
    for name, what in (
        ("shards", "shards/"),
        ("ledger", "pairs/"),
        ("books", "manifest.json"),
        ("report", "report.html"),
    ):
        typer.echo(f"{name:<7} {result.dest}/{what}")


def _json(result: Result) -> dict[str, Any]:
    return {"dest": result.dest, "plan": result.plan, "manifest": result.manifest}


def _tell(progress: Meter, now: Progress) -> None:
    rows, kept = now.tally.rows, now.tally.kept
    progress.update(now.done, now.total, f"{rows:,} rows, {kept:,} kept")

"""``capfilt bootstrap``: the main job, from a source to a finished data set.

Knows how the job is asked for and shown; the job itself is ``capfilt.bootstrap``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capfilt.cli import summary
from capfilt.cli.errors import UsageError
from capfilt.cli.live import watching
from capfilt.cli.options import (
    AddressOption,
    MaxWorkersOption,
    QuietOption,
    RecipeOption,
    Runner,
    RunnerOption,
    SetOption,
    VerboseOption,
    WaitOption,
    WorkersOption,
)

if TYPE_CHECKING:
    from capfilt.bootstrap import Result
    from capfilt.recipe import Recipe

_REASONS = {"timeout": "timed_out", "not_found": "http_status"}
"""What people call them."""
PLACES = {"shards": "shards/", "ledger": "pairs/", "books": "manifest.json", "report": "report.html"}


def command(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="A table of URLs, tars, img2dataset's folder, pictures or annotations (docs/sources.md); several are "
            "joined; none takes the recipe's.",
            default_factory=list,
        ),
    ],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Folder or URL (s3://...) that the data set goes to.")],
    recipe: RecipeOption = None,
    sets: SetOption = None,
    runner: RunnerOption = Runner.RAY,
    workers: WorkersOption = None,
    max_workers: MaxWorkersOption = None,
    address: AddressOption = None,
    wait: WaitOption = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; fetch and write nothing.")] = False,
    retry: Annotated[
        str,
        typer.Option(
            metavar="REASONS",
            help="Try rows again that were dropped for these reasons, as unreachable,timed_out; all others stay.",
        ),
    ] = "",
    with_changes: Annotated[
        bool,
        typer.Option(
            "--continue-with-changes",
            help="Go on in DEST with another recipe, model or source; what is done stays, the manifest tells.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and no progress.")] = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn SOURCE into a clean, captioned data set at DEST.

    One file, a folder or a glob; `capfilt inspect SOURCE` shows what it is understood to be. Run again with the same
    SOURCE and DEST, it goes on where it stopped. Several SOURCEs are joined; where they need settings of their own
    (human captions beside scraped ones), name the others in a recipe, as source.also.
    """
    from capfilt.recipe import load

    if not source and recipe is None:
        # The parser gives what there is to DEST, and would call SOURCE missing.
        raise UsageError(f"SOURCE and DEST are needed, and there is only '{dest}'.")
    result = run(
        source or None,
        dest,
        load(recipe, sets or (), source=source[0] if source else None),
        runner=runner,
        workers=workers,
        max_workers=max_workers,
        address=address,
        wait_s=wait,
        dry_run=dry_run,
        with_changes=with_changes,
        retry=[_REASONS.get(reason, reason) for reason in retry.replace(",", " ").split()],
        verbose=verbose,
        quiet=quiet or as_json,
    )
    show(result, as_json=as_json)


def run(
    source: str | Sequence[str] | None,
    dest: str,
    recipe: Recipe,
    *,
    runner: Runner,
    workers: int | None,
    max_workers: int | None = None,
    address: str | None = None,
    wait_s: float = 0.0,
    dry_run: bool = False,
    retry: Sequence[str] = (),
    with_changes: bool = False,
    verbose: bool = False,
    quiet: bool = False,
) -> Result:
    """The main job with its progress on stderr."""
    from capfilt.bootstrap import bootstrap
    from capfilt.flow.config import RunConfig

    config = RunConfig(
        runner="local" if runner is Runner.LOCAL else "ray",
        workers=workers,
        max_workers=max_workers,
        address=address,
        verbose=verbose,
        wait_s=wait_s,
    )
    with watching(quiet=quiet or dry_run) as tell:
        return bootstrap(
            source or recipe.source,
            dest,
            recipe=recipe,
            run=config,
            on_progress=tell,
            dry_run=dry_run,
            retry=retry,
            with_changes=with_changes,
        )


def show(result: Result, *, as_json: bool = False) -> None:
    """The end of a run: its plan if it was only planned, else its books and where things are."""
    if as_json:
        typer.echo(json.dumps(_json(result), indent=1, sort_keys=True))
    elif result.manifest is None:
        typer.echo(result.plan)
    else:
        summary.show(result.manifest)
        summary.speed(result.pace)
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
    pace = result.pace.to_json() if result.pace.stages else None
    return {"dest": result.dest, "plan": result.plan, "manifest": result.manifest, "pace": pace}

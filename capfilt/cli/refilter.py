"""``capfilt refilter``: another data set from the scores that one has, with no model run.

Knows how it is asked for and shown; the job itself is ``capfilt.refilter``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from capfilt.cli.errors import UsageError
from capfilt.cli.options import QuietOption
from capfilt.cli.terminal import meter, table

if TYPE_CHECKING:
    from capfilt.records import Tally
    from capfilt.refilter import Refiltered


def command(
    dest: Annotated[str, typer.Argument(metavar="DEST", help="A finished data set; it is only read.")],
    new: Annotated[str, typer.Argument(metavar="NEWDEST", help="Folder or URL that the new data set goes to.")],
    itm: Annotated[
        float | None, typer.Option("--itm", metavar="P", min=0, max=1, help="Keep texts of at least this P(match).")
    ] = None,
    itc: Annotated[
        float | None,
        typer.Option("--itc", metavar="C", min=-1, max=1, help="Keep texts of at least this cosine, instead of --itm."),
    ] = None,
    best: Annotated[
        int | None,
        typer.Option("--best", metavar="N", min=1, max=64, help="Keep at most the N best texts of a picture."),
    ] = None,
    origins: Annotated[
        str, typer.Option("--origins", metavar="LIST", help="Keep texts of these only, as web,synthetic,human.")
    ] = "",
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Parts at once. Default: one a core, 8 at most.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be kept; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the books as JSON, and no progress.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Write NEWDEST with the pictures and scores of DEST, and other verdicts. No model runs, nothing is fetched.

    What is not given stays as DEST has it. Human texts are kept whatever their score. What DEST dropped has no picture
    any more: a rule that would keep it is refused. `capfilt report DEST` compares thresholds. Run again with the same
    values, it goes on where it stopped.
    """
    if itm is None and itc is None and best is None and not origins:
        raise UsageError("Nothing is asked for: give --itm, --itc, --best or --origins.")
    from capfilt.refilter import refilter

    with meter("parts", quiet=quiet or as_json or dry_run) as progress:
        result = refilter(
            dest,
            new,
            itm=itm,
            itc=itc,
            best=best,
            origins=origins.replace(",", " ").split() or None,
            workers=workers,
            dry_run=dry_run,
            on_part=lambda done, total, tally: progress.update(
                done, total, f"{tally.rows:,} rows, {tally.kept:,} kept"
            ),
        )
    if as_json:
        typer.echo(json.dumps(_json(result), indent=1, sort_keys=True))
    else:
        show(result)


def show(result: Refiltered) -> None:
    """What was kept before and what is kept now."""
    rows = [["pictures", *(f"{tally.kept:,}" for tally in (result.before, result.after))]]
    rows += [
        [f"{origin} texts", *(_texts(tally, origin) for tally in (result.before, result.after))]
        for origin in result.before.texts
    ]
    table(f"Kept: {result.rule.told()}", ["", "before", "would be" if result.manifest is None else "now"], rows)
    if result.manifest is not None:
        typer.echo(f"data    {result.dest}")
        typer.echo(f"report  {result.dest}/report.html")


def _texts(tally: Tally, origin: str) -> str:
    kept, ratio = tally.texts_kept.get(origin, 0), tally.noise_ratio(origin)
    return f"{kept:,}" if ratio is None else f"{kept:,} (noise {ratio:.1%})"


def _json(result: Refiltered) -> dict[str, object]:
    return {
        "dest": result.dest,
        "rule": result.rule.told(),
        "before": result.before.to_json(),
        "after": result.after.to_json(),
        "parts": result.parts,
        "done_before": result.done_before,
        "manifest": result.manifest,
    }

"""``capfilt doctor``: whether this machine can do the work, and what to mend.

Knows how it is asked for and shown; looking is ``capfilt.doctor``.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated

import typer

from capfilt.cli.errors import ExitCode
from capfilt.cli.options import RecipeOption, SetOption
from capfilt.cli.terminal import coloured, hanging

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def command(
    dest: Annotated[
        str | None, typer.Option("--dest", metavar="DEST", help="Also try whether a data set could be written there.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also load torch, try each device, and start or join Ray; some seconds.")
    ] = False,
    recipe: RecipeOption = None,
    sets: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only what is to be mended.")] = False,
) -> None:
    """Check this machine: Python, packages, torch, GPUs, Ray, memory, disks, credentials, models.

    A line for each: ok, warn (it works, but not well or not for every job) or fail, with the mend below. Of credentials
    it tells where they are found, never what they are. Exits 1 if anything fails.
    """
    from capfilt.doctor.check import Status
    from capfilt.doctor.examine import examine

    found = []
    for check in examine(_models(recipe, sets), dest=dest, full=full):
        found.append(check)
        if not as_json and (check.status is not Status.OK or not quiet):
            status = coloured(f"{check.status:<4}", _COLOURS[check.status], sys.stdout)
            typer.echo(f"{status}  {check.name:<29}  {hanging(check.found, 37, sys.stdout)}")
            if check.mend:
                typer.echo(f"        mend: {hanging(check.mend, 14, sys.stdout)}")
    failed = sum(check.status is Status.FAIL for check in found)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(check) for check in found], indent=1))
    elif not quiet:
        warned = sum(check.status is Status.WARN for check in found)
        typer.echo(f"{len(found)} checks: {failed} failed, {warned} with a warning")
    if failed:
        raise typer.Exit(ExitCode.UNEXPECTED)


def _models(recipe: str | None, sets: list[str] | None) -> dict[str, str | None]:
    if recipe is None and not sets:
        # The defaults; reading a recipe takes longer than all of the checks.
        return {"captioner": "med-mini/captioner", "filter": "med-mini/filter"}
    from capfilt.recipe import load

    stage = load(recipe, sets or (), source=".").capfilt
    return {"captioner": stage.captioner, "filter": stage.filter}

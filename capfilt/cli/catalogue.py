"""``capfilt recipes``: the recipes that come with the project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from capfilt.cli import completing
from capfilt.cli.help import epilog
from capfilt.cli.options import HELP_NAMES, JsonOption

recipes = typer.Typer(
    help="List the recipes, or print one to copy.",
    context_settings=HELP_NAMES,
)


@recipes.callback(invoke_without_command=True)
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the recipes that come with the project."""
    if context.invoked_subcommand is not None:
        return
    from capfilt import catalog

    if as_json:
        told = [{"name": name, "about": _first_comment(catalog.recipe_file(name))} for name in catalog.recipes()]
        typer.echo(json.dumps(told, indent=1))
        return
    width = max((len(name) for name in catalog.recipes()), default=0)
    for name in catalog.recipes():
        typer.echo(f"{name.ljust(width)}  {_first_comment(catalog.recipe_file(name))}".rstrip())


@recipes.command("show", epilog=epilog("recipes show"))
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name of the list, or a file.", autocompletion=completing.recipes)
    ],
) -> None:
    """Print a recipe, to copy into a file of your own."""
    from capfilt import catalog

    typer.echo(catalog.recipe_file(name).read_text(encoding="utf-8"), nl=False)


def _first_comment(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ")
    return ""

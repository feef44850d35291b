"""``capfilt recipes``: the recipes that come with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capfilt.cli.options import HELP_NAMES

recipes = typer.Typer(
    help="List the recipes, or print one to copy.",
    context_settings=HELP_NAMES,
)


@recipes.callback(invoke_without_command=True)
def list_(context: typer.Context) -> None:
    """List the recipes that come with the project."""
    if context.invoked_subcommand is not None:
        return
    from capfilt import catalog

    width = max((len(name) for name in catalog.recipes()), default=0)
    for name in catalog.recipes():
        typer.echo(f"{name.ljust(width)}  {_first_comment(catalog.recipe_file(name))}".rstrip())


@recipes.command("show")
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="A name of the list, or a file.")]) -> None:
    """Print a recipe, to copy into a file of your own: capfilt recipes show bootstrap > mine.yaml."""
    from capfilt import catalog

    typer.echo(catalog.recipe_file(name).read_text(encoding="utf-8"), nl=False)


def _first_comment(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ")
    return ""

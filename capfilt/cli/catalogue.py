"""``capfilt models`` and ``capfilt recipes``: what comes with the project, and where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from capfilt.cli.options import HELP_NAMES
from capfilt.cli.terminal import table

recipes = typer.Typer(
    help="List the recipes, or print one to copy.",
    context_settings=HELP_NAMES,
)


def models() -> None:
    """List the models of the catalogue. Wherever a model is asked for, a folder does as well as a name."""
    from capfilt import catalog
    from capfilt.med.config import MEDConfig

    rows = []
    for name in catalog.models():
        folder = catalog.model_folder(name)
        config = MEDConfig.load(folder)
        vision, text = config.vision, config.text
        picture = f"{vision.image_size} px, {vision.width} x {vision.depth}"
        rows.append([name, picture, f"{text.width} x {text.depth}", _weights(folder)])
    table("Models", ["name", "vision", "text", "weights"], rows)


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


def _weights(folder: Path) -> str:
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return f"{size / 1e6:.1f} MB" if size else "none: an architecture to train"


def _first_comment(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            return line.lstrip("# ")
    return ""

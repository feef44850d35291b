"""``capfilt corpora``: the training corpora and the bundled sample, built from package registries."""

from __future__ import annotations

from typing import Annotated

import typer

from capfilt.cli.options import HELP_NAMES

app = typer.Typer(
    help="Build the corpora that the embedded model is trained on.",
    context_settings=HELP_NAMES,
)


@app.callback()
def corpora() -> None:
    """Build the corpora that the embedded model is trained on."""


@app.command("build")
def build(
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Folder for the shards and their splits.")],
    cache: Annotated[
        str, typer.Option("--cache", metavar="FOLDER", help="Where fetched packages are kept between runs.")
    ] = ".cache/packages",
) -> None:
    """Build the corpora from package registries.

    Fetches icon sets and clip art from the Debian and npm registries, draws and splits them, and writes shards.
    Needs the extra `corpora` (pip install 'capfilt[corpora]').
    """
    from capfilt.corpora.build import build as build_corpora

    build_corpora(dest, cache=cache)

"""``capfilt corpora``: the training corpora and the bundled sample, built from package registries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from capfilt.cli.help import epilog
from capfilt.cli.options import HELP_NAMES

if TYPE_CHECKING:
    from capfilt.train.log import StepReport

app = typer.Typer(
    help="Build the corpora that the embedded model is trained on.",
    context_settings=HELP_NAMES,
)


@app.callback()
def corpora() -> None:
    """Build the corpora that the embedded model is trained on."""


@app.command("build", epilog=epilog("corpora build"))
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


@app.command("train", epilog=epilog("corpora train"))
def train(
    shards: Annotated[str, typer.Argument(metavar="SHARDS", help="What `capfilt corpora build` wrote.")],
    work: Annotated[str, typer.Argument(metavar="WORK", help="Folder of the training runs.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Model folder to write, e.g. models/med-mini.")],
) -> None:
    """Train the embedded model.

    Pretrain, finetune captioner and filter, measure on what was held out.

    Each run goes on where it stopped. Hours on two cores.
    """
    from pathlib import Path

    from capfilt import embedded

    def tell(report: StepReport) -> None:
        losses = "  ".join(f"{name} {loss:.3f}" for name, loss in report.losses.items())
        typer.echo(f"step {report.step} of {report.steps}  {losses}  {report.images_per_s:.0f} images/s")

    embedded.make(Path(shards), Path(work), Path(target), on_step=tell)

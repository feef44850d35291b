"""Options that several commands share, worded once."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from capfilt.cli import completing

HELP_NAMES = {"help_option_names": ["-h", "--help"]}


class Runner(StrEnum):
    """Where a plan runs."""

    RAY = "ray"
    LOCAL = "local"


_SET = "Sets one field of the recipe; may be repeated."

RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="Recipe: a file, or a name of `capfilt recipes`.",
        autocompletion=completing.recipes,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=V", help=_SET, autocompletion=completing.fields("capfilt.recipe", "Recipe")),
]
TrainSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="A.B=V", help=_SET, autocompletion=completing.fields("capfilt.train.config", "TrainConfig")
    ),
]
# Fields of the rounds' recipe are not completed: its classes load torch, for which nobody waits at a prompt.
RoundsSetOption = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=V", help=_SET)]
ServiceSetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=V",
        help="Sets one field of the service's settings; may be repeated.",
        autocompletion=completing.fields("capfilt.service.config", "ServiceConfig"),
    ),
]
RunnerOption = Annotated[Runner, typer.Option("--runner", help="`ray` joins or starts Ray; `local` does without.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", min=1, help="Workers that hold the models. Default: what fits.")
]
MaxWorkersOption = Annotated[
    int | None,
    typer.Option(
        "--max-workers",
        metavar="N",
        min=1,
        help="Workers may grow to so many, as the cluster does. Default: none.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="A Ray cluster: HEAD:6379, or `auto` on a node of it. Default: RAY_ADDRESS.",
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        max=86_400,
        help="Wait so long where another run works; a dead one lets go in two minutes.",
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Stop at what cannot be read, instead of counting and passing over it.")
]
TrainWorkersOption = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, help="Share each batch among N processes, on Ray. Default: no Ray."),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Ray's own logs too.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and no progress.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]

"""``capfilt rounds``: the whole loop, several times over.

Knows how the loop is asked for and shown; the loop itself is ``capfilt.rounds``.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from capfilt.cli.live import line
from capfilt.cli.options import (
    AddressOption,
    QuietOption,
    RecipeOption,
    RoundsSetOption,
    Runner,
    RunnerOption,
    VerboseOption,
    WorkersOption,
)
from capfilt.cli.terminal import meter, table

if TYPE_CHECKING:
    from capfilt.cli.terminal import Meter
    from capfilt.rounds.loop import Told
    from capfilt.rounds.run import RoundsResult

RECIPE = "rounds"


def command(
    count: Annotated[
        int, typer.Argument(metavar="N", min=1, max=99, help="Rounds in all; more may be asked for later.")
    ],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The web source, as in `capfilt bootstrap`.")],
    human: Annotated[
        list[str], typer.Argument(metavar="HUMAN...", help="Clean human pairs: shards, folders of shards, data sets.")
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder for all rounds and their report.")],
    recipe: RecipeOption = None,
    sets: RoundsSetOption = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", metavar="DATA", help="Pairs that each round is measured on; may be repeated."),
    ] = None,
    runner: RunnerOption = Runner.RAY,
    workers: WorkersOption = None,
    train_workers: Annotated[
        int | None,
        typer.Option(
            "--train-workers",
            metavar="N",
            min=1,
            help="Share each batch of the trainings among N processes, on Ray. Default: in this process.",
        ),
    ] = None,
    address: AddressOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, and no progress.")] = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Finetune captioner and filter, bootstrap SOURCE with them, pretrain anew: N times.

    The model that a round pretrains is what the next one finetunes. Run again with the same OUT, it goes on where it
    stopped, and with a larger N it does the further rounds.
    """
    from capfilt.flow.config import RunConfig
    from capfilt.recipe import load_config
    from capfilt.rounds.config import RoundsConfig

    given = {"bootstrap.source.path": source, "human": human} | ({"held_out.data": held_out} if held_out else {})
    config = load_config(RoundsConfig, recipe or RECIPE, sets or (), given=given)
    from capfilt.rounds.run import rounds  # torch, only now: a mistake in the recipe is told of at once

    run = RunConfig(
        runner="local" if runner is Runner.LOCAL else "ray", workers=workers, address=address, verbose=verbose
    )
    training = RunConfig(workers=train_workers, address=address, verbose=verbose) if train_workers else None
    with ExitStack() as stack:
        result = rounds(
            count, config, out, run=run, training=training, on_progress=_Meters(stack, quiet=quiet or as_json)
        )
    if as_json:
        typer.echo(json.dumps({"out": result.out, "rounds": list(result.rounds)}, indent=1, sort_keys=True))
    else:
        show(result)


def show(result: RoundsResult) -> None:
    """The rounds side by side, and where things are."""
    from capfilt.report.rounds import sections
    from capfilt.rounds.loop import round_name

    columns = ["", *(f"round {figures['round']}" for figures in result.rounds)]
    for section in sections(result.rounds):
        table(section.name, columns, [[row.name, *(cell.text for cell in row.cells)] for row in section.rows])
    last = round_name(len(result.rounds))
    typer.echo(f"model   {result.out}/{last}/pretrain/model")
    typer.echo(f"data    {result.out}/{last}/data")
    typer.echo(f"report  {result.out}/report.html")


class _Meters:
    """A meter for each step, the last one closed when the next begins."""

    def __init__(self, stack: ExitStack, *, quiet: bool) -> None:
        self.stack, self.quiet = stack, quiet
        self.meter: Meter | None = None

    def __call__(self, told: Told) -> None:
        """Opens the step's meter, or moves it."""
        from capfilt.bootstrap import Progress
        from capfilt.train.log import StepReport

        label = f"round {told.round} {told.step}"
        if told.now is None:
            self.stack.close()
            every = {} if told.step == "data" else {"every": 0.0}
            self.meter = self.stack.enter_context(meter(label, quiet=self.quiet, **every))
        elif self.meter is None:
            return
        elif isinstance(told.now, StepReport):
            losses = "  ".join(f"{name} {value:.3f}" for name, value in told.now.losses.items())
            self.meter.update(told.now.step, told.now.steps, f"{losses}  {told.now.images_per_s:.1f} images/s")
        elif isinstance(told.now, Progress):
            self.meter.update(told.now.done, told.now.total, line(told.now))
        elif not self.quiet:
            typer.echo(f"{label} {told.now} ...", err=True)

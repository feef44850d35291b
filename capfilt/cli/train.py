"""``capfilt pretrain`` and ``capfilt finetune``: from shards to a model.

Knows how a training run is asked for and shown; the run itself is ``capfilt.train``.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capfilt.cli.help import epilog
from capfilt.cli.options import (
    HELP_NAMES,
    AddressOption,
    JsonOption,
    QuietOption,
    RecipeOption,
    StrictOption,
    TrainSetOption,
    TrainWorkersOption,
    VerboseOption,
)
from capfilt.cli.terminal import meter

if TYPE_CHECKING:
    from capfilt.cli.terminal import Meter
    from capfilt.med.encoders import Begun
    from capfilt.train.config import Task
    from capfilt.train.log import StepReport
    from capfilt.train.run import TrainResult

Data = Annotated[
    list[str], typer.Argument(metavar="DATA...", help="Data sets of `capfilt bootstrap`, folders of shards, or shards.")
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="Folder for the model, its checkpoints and its log.")]
finetune = typer.Typer(
    help="Finetune a captioner or a filter on clean pairs.",
    context_settings=HELP_NAMES,
)


def pretrain(
    data: Data,
    out: Out,
    recipe: RecipeOption = None,
    sets: TrainSetOption = None,
    strict: StrictOption = False,
    workers: TrainWorkersOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Pretrain a model on shards (ITC, ITM and LM).

    Run again with the same OUT, it goes on from its last checkpoint.
    """
    all_sets = _sets(sets, strict=strict)
    still = quiet or as_json
    done = run(
        "pretrain",
        recipe or "pretrain",
        data,
        out,
        all_sets,
        workers=workers,
        address=address,
        verbose=verbose,
        quiet=still,
    )
    show(done, as_json=as_json)


@finetune.command("captioner", epilog=epilog("finetune captioner"))
def captioner(
    data: Data,
    out: Out,
    recipe: RecipeOption = None,
    sets: TrainSetOption = None,
    strict: StrictOption = False,
    workers: TrainWorkersOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Finetune a captioner on clean pairs (LM)."""
    all_sets = _sets(sets, strict=strict)
    still, recipe = quiet or as_json, recipe or "finetune-captioner"
    done = run("captioner", recipe, data, out, all_sets, workers=workers, address=address, verbose=verbose, quiet=still)
    show(done, as_json=as_json)


@finetune.command("filter", epilog=epilog("finetune filter"))
def filter_(
    data: Data,
    out: Out,
    recipe: RecipeOption = None,
    sets: TrainSetOption = None,
    strict: StrictOption = False,
    workers: TrainWorkersOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Finetune a filter on clean pairs (ITC and ITM)."""
    all_sets = _sets(sets, strict=strict)
    still, recipe = quiet or as_json, recipe or "finetune-filter"
    done = run("filter", recipe, data, out, all_sets, workers=workers, address=address, verbose=verbose, quiet=still)
    show(done, as_json=as_json)


def _sets(sets: list[str] | None, *, strict: bool) -> list[str]:
    return [*(sets or []), *(["data.strict=true"] if strict else [])]


def run(
    task: Task,
    recipe: str,
    data: list[str],
    out: str,
    sets: list[str],
    *,
    workers: int | None = None,
    address: str | None = None,
    verbose: bool = False,
    quiet: bool = False,
) -> TrainResult:
    """One training run from its command line; on Ray if it says how many workers, or where.

    Raises:
        RecipeError: the recipe is for another task, or a field of it does not hold.
    """
    from capfilt.api.training import configure

    config = configure(task, recipe, data, out, sets)
    start, here = None if quiet else _show_start, workers is None and address is None
    if here:
        from capfilt.train.pairs import Pairs

        Pairs(config.data)  # a wrong path is told of before a bar stands there, and before torch loads
    with meter(config.task, quiet=quiet, every=0) as progress:
        if here:
            from capfilt.train.run import train

            return train(config, lambda report: _tell(progress, report), start)
        from capfilt.flow.config import RunConfig
        from capfilt.flow.training import train_on_ray

        settings = RunConfig(workers=workers, address=address, verbose=verbose)
        return train_on_ray(config, settings, lambda report: _tell(progress, report), start)


def to_json(result: TrainResult) -> dict[str, Any]:
    """The end of a run, as plain JSON values."""
    return {
        "model": str(result.folder),
        "steps": result.steps,
        "first_loss": result.first_loss,
        "last_loss": result.last_loss,
        "best_step": result.best_step,
        "skipped": result.skipped,
    }


def show(result: TrainResult, *, as_json: bool = False) -> None:
    """The end of a run, in two lines; of torchrun's processes the first says them."""
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        typer.echo(json.dumps(to_json(result), indent=1))
        return
    typer.echo(f"loss   {result.first_loss:.3f} -> {result.last_loss:.3f} in {result.steps} steps")
    if result.skipped:
        typer.echo(f"passed over: {result.skipped} unreadable, see {result.folder.parent / 'skipped.csv'}")
    if result.best_step is not None:
        typer.echo(f"best   {result.folder.parent / 'best'}, of step {result.best_step}")
    typer.echo(f"model  {result.folder}")


def _show_start(begun: list[Begun]) -> None:
    from capfilt.med.encoders import SCRATCH

    if {row.source for row in begun} == {SCRATCH}:
        typer.echo("start  all of the model from random weights", err=True)
        return
    for row in begun:
        typer.echo(f"start  {row.part}: {row.parameters:,} from {row.source}", err=True)


def _tell(progress: Meter, report: StepReport) -> None:
    losses = "  ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
    note = f"{losses}  lr {report.lr:.1e}  {report.images_per_s:.1f} images/s  {_time(report.eta_s)} left"
    progress.update(report.step, report.steps, note)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"

"""Training from Python: pretraining and the two finetunings, each by its recipe. Knows no command line and no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from capfilt.errors import DestinationError, RecipeError
from capfilt.recipe import load_config
from capfilt.train.config import Task, TrainConfig

if TYPE_CHECKING:
    from capfilt.train.run import OnStep, TrainResult


def pretrain(
    data: str | Sequence[str],
    out: str | Path,
    *,
    recipe: str = "pretrain",
    settings: Sequence[str] = (),
    on_step: OnStep | None = None,
) -> TrainResult:
    """Pretrains a model on shards (ITC, ITM and LM). The same call goes on from its last checkpoint.

    >>> import capfilt
    >>> done = capfilt.pretrain("clean", "model", recipe="quickstart-pretrain",
    ...                         settings=["steps=2", "batch_size=4", "log_every=1"])
    >>> done.steps, done.folder.name
    (2, 'model')
    >>> capfilt.MED.load(done.folder).config.vision.image_size
    128

    Args:
        data: data sets of :func:`capfilt.bootstrap`, folders of shards, shards, or globs.
        out: the folder of the model, its checkpoints and its log.
        recipe: a file, or a name of ``capfilt recipes``; its task must be ``pretrain``.
        settings: fields of the recipe, as ``optim.lr=1e-4``; they win over the file.
        on_step: told of every ``log_every``-th step.

    Raises:
        CapfiltError: a mistake in recipe, data or model; or training that cannot go on.
    """
    config = configure("pretrain", recipe, data, out, settings)
    from capfilt.train.run import train  # noqa: PLC0415 torch, seconds of it: mistakes are told before

    return train(config, on_step)


def finetune(
    role: Literal["captioner", "filter"],
    data: str | Sequence[str],
    out: str | Path,
    *,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    on_step: OnStep | None = None,
) -> TrainResult:
    """Finetunes a captioner (LM) or a filter (ITC and ITM) on clean pairs. The same call goes on where it stopped.

    >>> import capfilt
    >>> done = capfilt.finetune("captioner", "clean", "captioner",
    ...                         settings=["steps=2", "batch_size=4", "init=med-mini/captioner",
    ...                                   "data.origins=[web, synthetic]"])
    >>> done.steps
    2

    Args:
        role: what becomes of the model.
        data: as :func:`pretrain`'s.
        out: as :func:`pretrain`'s.
        recipe: a file, or a name of ``capfilt recipes``; None takes ``finetune-captioner`` or ``finetune-filter``.
        settings: fields of the recipe, as ``optim.lr=1e-5``; they win over the file.
        on_step: told of every ``log_every``-th step.

    Raises:
        CapfiltError: as :func:`pretrain`.
    """
    config = configure(role, recipe or f"finetune-{role}", data, out, settings)
    from capfilt.train.run import train  # noqa: PLC0415

    return train(config, on_step)


def configure(
    task: Task, recipe: str, data: str | Sequence[str], out: str | Path, settings: Sequence[str]
) -> TrainConfig:
    """The settings of a run: the recipe's, with ``data`` and ``out`` in their places.

    Raises:
        RecipeError: the recipe is for another task, or a field of it does not hold.
        DestinationError: ``out`` is no folder of a file system.
    """
    config = load_config(TrainConfig, recipe, settings)
    if config.task != task:
        raise RecipeError(
            f"the recipe's task is {config.task}, and {task} was asked for",
            where=recipe,
            mend=f"Give a recipe whose task is {task}, or call the command of {config.task}.",
        )
    out = str(out)
    if "://" in out or ":/" in out:
        raise DestinationError(
            "a model and its checkpoints are written to a folder", where=out, mend="Name one; copy it afterwards."
        )
    shards = (data,) if isinstance(data, str) else tuple(data)
    return replace(config, out=out, data=replace(config.data, shards=shards))

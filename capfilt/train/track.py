"""Where a run's numbers are told of beside its CSV files: TensorBoard, Weights & Biases, MLflow.

Knows these services' writers; knows no model. TensorBoard comes along, the others are taken where installed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from capfilt.errors import TrainingError
from capfilt.train.config import Tracker as Name


class Tracker(Protocol):
    """One of the services."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Tell of a step."""
        ...

    def close(self) -> None:
        """Tell all that is left to tell."""
        ...


def trackers(names: Sequence[Name], out: Path, settings: Mapping[str, Any], start: int) -> list[Tracker]:
    """The services that the settings name, opened.

    Args:
        names: which. out: the run's folder. settings: of the run. start: the step that it goes on with.

    Raises:
        TrainingError: one is not installed, or cannot be opened.
    """
    return [_KINDS[name](out, settings, start) for name in names]


def check_installed(names: Sequence[Name]) -> None:
    """Before hours of computing.

    Raises:
        TrainingError: one is not installed.
    """
    for name in names:
        _module(name)


class _TensorBoard:
    def __init__(self, out: Path, settings: Mapping[str, Any], start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  takes a second

        # What an interrupted run told of steps that are done again is not shown.
        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1 if start else None)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _WandB:
    def __init__(self, out: Path, settings: Mapping[str, Any], start: int) -> None:
        wandb = _module("wandb")
        file = out / "wandb.id"
        known = file.read_text(encoding="utf-8").strip() if start and file.exists() else None
        try:
            self.run = wandb.init(
                dir=str(out),
                id=known,
                resume="allow",
                name=out.name,
                project=os.environ.get("WANDB_PROJECT", "capfilt"),
                config=dict(settings),
            )
        except Exception as error:  # a remote service: its client may raise anything
            raise TrainingError(
                f"Weights & Biases cannot be reached: {error}",
                where="track",
                mend="Log in with `wandb login`, set WANDB_MODE=offline, or leave wandb out.",
            ) from error
        file.write_text(str(self.run.id), encoding="utf-8")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()


class _MLflow:
    def __init__(self, out: Path, settings: Mapping[str, Any], start: int) -> None:
        self.mlflow = _module("mlflow")
        file = out / "mlflow.id"
        known = file.read_text(encoding="utf-8").strip() if start and file.exists() else None
        try:
            if not os.environ.get("MLFLOW_TRACKING_URI"):
                self.mlflow.set_tracking_uri(f"sqlite:///{(out / 'mlflow.db').absolute()}")
            self.mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "capfilt"))
            self.run = self.mlflow.start_run(run_id=known, run_name=out.name)
            if known is None:
                self.mlflow.log_params(_flat(settings))
        except Exception as error:  # a remote service: its client may raise anything
            raise TrainingError(
                f"MLflow cannot be reached: {error}",
                where="track",
                mend="Check MLFLOW_TRACKING_URI, or leave mlflow out.",
            ) from error
        file.write_text(str(self.run.info.run_id), encoding="utf-8")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        self.mlflow.end_run()


_KINDS: dict[Name, Any] = {"tensorboard": _TensorBoard, "wandb": _WandB, "mlflow": _MLflow}


def _module(name: Name) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrainingError(
            f"{name} is not installed", where="track", mend=f"pip install {name}, or leave it out of track."
        ) from error


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in settings.items():
        out |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return out

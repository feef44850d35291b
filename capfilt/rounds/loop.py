"""The steps of a round, each done once: what is handed on from one to the next. Each step is another room's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from capfilt.bootstrap import Progress, bootstrap
from capfilt.catalog import model_folder
from capfilt.errors import TrainingError
from capfilt.evaluate.references import Referenced
from capfilt.evaluate.run import Asked, Measure, Results, evaluate
from capfilt.flow.config import RunConfig
from capfilt.med.device import device_of
from capfilt.records import Origin
from capfilt.report.gather import gather
from capfilt.rounds.config import ROLES, RoundsConfig
from capfilt.storage import Store
from capfilt.train.config import Task, TrainConfig
from capfilt.train.log import StepReport
from capfilt.train.run import OnStep, TrainResult, train

Step = Literal["captioner", "filter", "data", "pretrain", "held-out"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """Where the loop is."""

    round: int
    """From 1."""
    step: Step
    now: StepReport | Progress | Measure | None
    """What the step tells of itself; None when it begins."""


class Loop:
    """The steps of a round, each done once.

    Args:
        held: the held-out pairs; empty measures nothing.
    """

    def __init__(
        self,
        store: Store,
        config: RoundsConfig,
        run: RunConfig,
        training: RunConfig | None,
        tell: Callable[[Told], None],
        held: Sequence[Referenced],
    ) -> None:
        self.store, self.config, self.tell, self.held = store, config, tell, held
        self.run, self.training = run, training
        self.number = 0

    def round(self, number: int) -> None:
        """All steps of one round that are not done, then its figures."""
        self.number = number
        start = self.config.start.model if number == 1 else f"{round_name(number - 1)}/pretrain/model"
        figures: dict[str, Any] = {"round": number, "start": start}
        models: dict[str, str] = {}
        for role in ROLES:
            if start is None:
                models[role] = str(getattr(self.config.start, role))
                figures[role] = {"given": models[role]}
            else:
                init = start if number == 1 else self.store.path(start)
                figures[role] = self._train(role, self.config.human, init)
                models[role] = self._path(f"{role}/model")
        figures["data"] = self._step("data", lambda: self._bootstrap(models))
        figures["pretrain"] = self._train(
            "pretrain", (self._path("data"), *self.config.human), self.config.pretrain.init
        )
        models["pretrain"] = self._path("pretrain/model")
        figures["held_out"] = self._step("held-out", lambda: self._measure(models)) if self.held else None
        self.store.write_json(f"{round_name(number)}/round.json", figures)

    def _path(self, name: str) -> str:
        return self.store.path(f"{round_name(self.number)}/{name}")

    def _step(self, step: Step, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A step's figures: out of its JSON if it is done, else done and written there."""
        file = f"{round_name(self.number)}/{step}.json"
        if not self.store.exists(file):
            self._tell(step, None)
            self.store.write_json(file, work())
        figures: dict[str, Any] = self.store.read_json(file)
        return figures

    def _tell(self, step: Step, now: StepReport | Progress | Measure | None) -> None:
        self.tell(Told(round=self.number, step=step, now=now))

    def _train(self, task: Task, shards: tuple[str, ...], init: str | None) -> dict[str, Any]:
        config: TrainConfig = getattr(self.config, task)
        out = self._path(task)
        config = replace(config, init=init, out=out, data=replace(config.data, shards=shards))

        def work() -> dict[str, Any]:
            done = self._trained(config, lambda report: self._tell(task, report))
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # Ray's workers are other processes, and want the same memory
            return {"steps": done.steps, "first_loss": done.first_loss, "last_loss": done.last_loss}

        figures = self._step(task, work)
        # Nothing goes on from them any more, and of a large model they are by far the most that a round writes.
        shutil.rmtree(Path(out) / "checkpoints", ignore_errors=True)
        return figures

    def _trained(self, config: TrainConfig, on_step: OnStep) -> TrainResult:
        if self.training is None:
            return train(config, on_step)
        from capfilt.flow.training import train_on_ray  # noqa: PLC0415 only who trains on Ray loads it

        return train_on_ray(config, self.training, on_step)

    def _bootstrap(self, models: Mapping[str, str]) -> dict[str, Any]:
        recipe = self.config.bootstrap
        recipe = replace(
            recipe, capfilt=replace(recipe.capfilt, captioner=models["captioner"], filter=models["filter"])
        )
        data = self._path("data")
        done = bootstrap(
            recipe.source, data, recipe=recipe, run=self.run, on_progress=lambda now: self._tell("data", now)
        )
        books = done.manifest or {}
        if not books["totals"]["kept"]:
            raise TrainingError(
                f"round {self.number} kept no picture, so there is nothing new to pretrain on",
                where=data,
                mend="Its report.html says why. Train the filter longer, in another folder.",
            )
        origins = {facts.origin: facts for facts in gather(Store(data), gallery=0).origins}
        made = origins.get(Origin.SYNTHETIC)
        synthetic = made and {
            "texts": made.worded,
            "vocabulary": made.words,
            "unique": made.distinct / max(1, made.worded),
            "median_words": made.median_length,
        }
        return {"totals": books["totals"], "noise_ratio": books["noise_ratio"], "synthetic": synthetic}

    def _measure(self, models: Mapping[str, str]) -> dict[str, Any]:
        config = self.config.held_out
        asked = Asked(
            prompt=self.config.bootstrap.capfilt.prompt,
            rerank=config.rerank,
            batch_size=config.batch_size,
            device=device_of(config.device),
        )
        measured: tuple[tuple[Measure, str], ...] = (
            ("captioning", "captioner"),
            ("filtering", "filter"),
            ("retrieval", "pretrain"),
        )
        told: dict[str, Any] = {}
        for measure, model in measured:
            self._tell("held-out", measure)
            told |= evaluate(model_folder(models[model]), self.held, replace(asked, measures=(measure,)))
        Results(Path(self._path("held-out"))).save(told)
        long = ("thresholds", "histogram")
        separation = {name: value for name, value in told["filtering"].items() if name not in long}
        kept = {name: value for name, value in told.items() if name not in ("captions", "unfinished")}
        return kept | {"filtering": separation}


def round_name(number: int) -> str:
    """The folder of a round, from 1."""
    return f"round-{number:02d}"

"""The paper's whole loop, N times: finetune captioner and filter, bootstrap the source with them, pretrain anew.

    OUT/recipe.yaml           what was asked, written by the first run
    OUT/round-01/captioner/   finetuned on human pairs          OUT/round-01/captioner.json    its figures
    OUT/round-01/filter/      the same, apart                   OUT/round-01/filter.json
    OUT/round-01/data/        the source, bootstrapped          OUT/round-01/data.json
    OUT/round-01/pretrain/    pretrained anew on data and human OUT/round-01/pretrain.json
    OUT/round-01/held-out/    what they are worth               OUT/round-01/held-out.json
    OUT/round-01/round.json   the round's figures, written last
    OUT/rounds.json           those of all rounds               OUT/report.html   the same, side by side

The model that a round pretrains is what the next one finetunes. A step's JSON is written after the step: with it the
step is not done again, without it training goes on from its checkpoint and the bootstrap does the parts that are left.
Knows the order of things and what is handed on; each step is another room's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from capfilt.bootstrap import Progress, absolute, bootstrap, claim_models, digests
from capfilt.catalog import model_folder
from capfilt.errors import (
    DataError,
    DestinationError,
    EngineError,
    ModelError,
    RecipeError,
    TrainingError,
    require_within,
)
from capfilt.evaluate.filtering import shuffled
from capfilt.evaluate.references import Referenced, read
from capfilt.evaluate.run import Asked, Measure, Results, evaluate
from capfilt.flow.config import RunConfig
from capfilt.flow.plan import plan
from capfilt.med.config import MEDConfig
from capfilt.med.device import device_of
from capfilt.med.tokenizer import MEDTokenizer
from capfilt.recipe import Recipe, resolved, to_json
from capfilt.records import Origin
from capfilt.report.gather import gather
from capfilt.report.rounds import render
from capfilt.shards.claim import claim
from capfilt.sources.opening import open_source
from capfilt.stages.config import CapFiltConfig
from capfilt.storage import Store
from capfilt.train.config import Task, TrainConfig
from capfilt.train.log import StepReport
from capfilt.train.pairs import Pairs
from capfilt.train.run import FREE, OnStep, TrainResult, train

Step = Literal["captioner", "filter", "data", "pretrain", "held-out"]
_TRAININGS: tuple[Task, ...] = ("captioner", "filter", "pretrain")
_ROLES: tuple[Literal["captioner", "filter"], ...] = ("captioner", "filter")


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """What round 1 begins with: ``model``, or both of the others."""

    model: str | None = None
    """A whole pretrained MED, a name of the catalogue or a folder: captioner and filter are finetuned from it."""
    captioner: str | None = None
    """Round 1's captioner as it is: nothing is finetuned in that round."""
    filter: str | None = None
    """Round 1's filter as it is."""

    def __post_init__(self) -> None:
        mend = "Give start.model, or both start.captioner and start.filter."
        pair = [name for name in (self.captioner, self.filter) if name is not None]
        if self.model is not None and pair:
            raise RecipeError("a model is finetuned, and a captioner or filter is given", where="start", mend=mend)
        if self.model is None and len(pair) < 2:
            raise RecipeError("round 1 has nothing to begin with", where="start", mend=mend)


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """Pairs that nothing is trained on, and how each round's models are measured on them."""

    data: tuple[str, ...] = ()
    """Shards, data sets or ``.json`` annotations; without any, nothing is measured."""
    pictures: int = 5000
    """At most so many, the first ones, 2 or more."""
    rerank: int = 256
    """Candidates of a query that ITM ranks again in retrieval, 0 for none."""
    batch_size: int = 64
    """Pictures at once, 1 or more."""
    device: str = "auto"
    """``auto`` takes a GPU where there is one."""

    def __post_init__(self) -> None:
        require_within("held_out.pictures", self.pictures, 2, 10**7)
        require_within("held_out.rerank", self.rerank, 0, 10**6)
        require_within("held_out.batch_size", self.batch_size, 1, 10**5)


@dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    """Everything that decides what the rounds write, but their number."""

    start: StartConfig
    """What round 1 begins with."""
    human: tuple[str, ...]
    """Clean human pairs: shards, folders of shards, data sets or globs. Finetuning takes them alone, and pretraining
    beside the bootstrapped ones."""
    captioner: TrainConfig = field(default_factory=lambda: TrainConfig(task="captioner"))
    """How the captioner is finetuned; what it starts from, its data and its folder are the round's."""
    filter: TrainConfig = field(default_factory=lambda: TrainConfig(task="filter"))
    """How the filter is finetuned, apart from the captioner: with shared weights it forgives the captioner's mistakes
    (paper, table 3)."""
    bootstrap: Recipe
    """How the web source is bootstrapped; captioner and filter are the round's."""
    pretrain: TrainConfig = field(default_factory=TrainConfig)
    """How the next model is pretrained, each round anew: to go on from the old weights does not help (paper, section
    4.5). ``init``, ``init_vision`` and ``init_text`` are the same in each round."""
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    """What each round is measured on."""

    def __post_init__(self) -> None:
        if not self.human:
            raise RecipeError("it is empty", where="human", mend="Name shards with human captions.")
        plain, default = TrainConfig(), CapFiltConfig()
        for task in _TRAININGS:
            config: TrainConfig = getattr(self, task)
            if config.task != task:
                raise RecipeError(f"it is {config.task}", where=f"{task}.task", mend=f"Write {task}.task: {task}.")
            _leave(f"{task}.data.shards", config.data.shards, ())
            for name in ("out", *(("model", "init", "init_vision", "init_text") if task != "pretrain" else ())):
                _leave(f"{task}.{name}", getattr(config, name), getattr(plain, name))
        for name in _ROLES:
            _leave(f"bootstrap.capfilt.{name}", getattr(self.bootstrap.capfilt, name), getattr(default, name))


def _leave(name: str, value: object, default: object) -> None:
    if value != default:
        raise RecipeError("each round sets it", where=name, mend="Leave it out.")


@dataclass(frozen=True, kw_only=True)
class Told:
    """Where the loop is."""

    round: int
    """From 1."""
    step: Step
    now: StepReport | Progress | Measure | None
    """What the step tells of itself; None when it begins."""


@dataclass(frozen=True, kw_only=True)
class RoundsResult:
    """What the rounds came to."""

    out: str
    """The folder, absolute."""
    rounds: tuple[dict[str, Any], ...]
    """The figures of each finished round, as ``round.json`` has them."""
    done_before: int
    """Rounds that earlier runs had finished."""


def rounds(
    count: int,
    config: RoundsConfig,
    out: str,
    *,
    run: RunConfig | None = None,
    training: RunConfig | None = None,
    on_progress: Callable[[Told], None] | None = None,
) -> RoundsResult:
    """Does what is not done yet of the first ``count`` rounds, then the report on all that are.

    Args:
        count: rounds in all, 1 or more; a later run may ask for more.
        config: the settings, which must be those that ``out`` was begun with.
        out: a folder of this machine.
        run: where the bootstrap runs; None starts Ray here.
        training: by how many processes of Ray each training is done, and where; None trains in this process. Then
            ``out`` and all data must be at the same path for all of them.
        on_progress: told when a step begins and of its progress.

    Raises:
        CapfiltError: a mistake in settings, models or data, where possible before anything is written; or a step's
            failure, and then a later run goes on.
    """
    require_within("N", count, 1, 99)
    store, config = _folder(out), _placed(config)
    planned = plan(open_source(config.bootstrap.source), config.bootstrap.plan)
    models = digests({**asdict(config.start), "init": config.pretrain.init})
    before = _finished(store)
    held = _checked(config) if len(before) < count else []
    claim(store, _identity(config), planned.digest, job="rounds")
    claim_models(store, models)
    loop = _Loop(store, config, run or RunConfig(), training, on_progress or _nobody, held)
    for number in range(len(before) + 1, count + 1):
        loop.round(number)
    figures = [store.read_json(f"{_name(number)}/round.json") for number in _finished(store)]
    store.write_json("rounds.json", {"rounds": figures})
    store.write(
        "report.html", render(figures, links=[f"{_name(n)}/data/report.html" for n in _finished(store)]).encode()
    )
    return RoundsResult(out=store.url, rounds=tuple(figures), done_before=len(before))


class _Loop:
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
        start = self.config.start.model if number == 1 else f"{_name(number - 1)}/pretrain/model"
        figures: dict[str, Any] = {"round": number, "start": start}
        models: dict[str, str] = {}
        for role in _ROLES:
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
        self.store.write_json(f"{_name(number)}/round.json", figures)

    def _path(self, name: str) -> str:
        return self.store.path(f"{_name(self.number)}/{name}")

    def _step(self, step: Step, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A step's figures: out of its JSON if it is done, else done and written there."""
        file = f"{_name(self.number)}/{step}.json"
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
        asked = Asked(rerank=config.rerank, batch_size=config.batch_size, device=device_of(config.device))
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


def _nobody(_: Told) -> None:
    pass


def _name(number: int) -> str:
    return f"round-{number:02d}"


def _finished(store: Store) -> list[int]:
    """Rounds with their figures, from the first on without a gap."""
    number = 1
    while store.exists(f"{_name(number)}/round.json"):
        number += 1
    return list(range(1, number))


def _folder(out: str) -> Store:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise EngineError(
            "the rounds run in one process", where="WORLD_SIZE", mend="Start them without torchrun, or step by step."
        )
    store = Store(out)
    if not store.is_local:
        raise DestinationError("training writes to a folder of this machine", where=out, mend="Name one.")
    store.check_writable()
    return store


def _placed(config: RoundsConfig) -> RoundsConfig:
    """With absolute paths: a later run may stand elsewhere, and so do workers."""
    start = StartConfig(**{role: absolute(name) for role, name in asdict(config.start).items()})
    pretrain = replace(config.pretrain, init=absolute(config.pretrain.init))
    held = replace(config.held_out, data=tuple(map(_entry, config.held_out.data)))
    return replace(config, start=start, human=tuple(map(_entry, config.human)), pretrain=pretrain, held_out=held)


def _entry(url: str) -> str:
    return url if "://" in url else str(Path(url).expanduser().absolute())


def _identity(config: RoundsConfig) -> dict[str, Any]:
    """The settings without those of speed and place, and without what each round sets; as plain JSON values."""
    told = to_json(config)
    told["bootstrap"] = resolved(config.bootstrap)
    for role in _ROLES:
        del told["bootstrap"]["capfilt"][role]
    for task in _TRAININGS:
        for name in FREE:
            del told[task][name]
    for name in ("batch_size", "device"):
        del told["held_out"][name]
    return told


def _checked(config: RoundsConfig) -> list[Referenced]:
    """The held-out pairs, after a look at what would else be found out hours later.

    Raises:
        CapfiltError: a model is not what its step needs, or human or held-out pairs are not there.
    """
    for name in (config.start.model, config.pretrain.init):
        if name is not None and (holds := MEDConfig.load(model_folder(name)).holds) != "both":
            raise ModelError(
                f"the model holds a {holds} only",
                where=name,
                mend="Name a whole model, or give start.captioner and start.filter.",
            )
    if config.pretrain.init is None:
        architecture = model_folder(config.pretrain.model)
        MEDConfig.load(architecture)
        MEDTokenizer.load(architecture)
    for task in _TRAININGS:
        training: TrainConfig = getattr(config, task)
        device_of(training.device)
        pairs = Pairs(replace(training.data, shards=config.human))
        if all(next(pairs.read(source), None) is None for source in pairs.sources):
            raise TrainingError(
                f"no human caption there that training wants ({task})",
                where=", ".join(config.human),
                mend=f"Check {task}.data.origins; captions of plain tars count as web.",
            )
    if not config.held_out.data:
        return []
    device_of(config.held_out.device)
    held = list(islice(read(config.held_out.data), config.held_out.pictures))
    if not held:
        raise DataError("no picture with a text to measure on", where=", ".join(config.held_out.data))
    shuffled([item.texts[0] for item in held], 0)
    return held

"""All rounds of a folder: what would go wrong is looked for first, then what is not done yet is done."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from capfilt.catalog import absolute, model_folder
from capfilt.errors import DataError, DestinationError, EngineError, ModelError, TrainingError, require_within
from capfilt.evaluate.filtering import shuffled
from capfilt.evaluate.references import Referenced, read
from capfilt.flow.config import RunConfig
from capfilt.flow.plan import plan
from capfilt.med.config import MEDConfig
from capfilt.med.device import device_of
from capfilt.med.digests import digests
from capfilt.med.tokenizer import MEDTokenizer
from capfilt.recipe import resolved, to_json
from capfilt.report.rounds import render
from capfilt.rounds.config import ROLES, TRAININGS, RoundsConfig, StartConfig
from capfilt.rounds.loop import Loop, Told, round_name
from capfilt.shards.claim import claim, claim_models
from capfilt.shards.lease import leased
from capfilt.sources.opening import open_source
from capfilt.storage import Store
from capfilt.train.config import TrainConfig
from capfilt.train.pairs import Pairs
from capfilt.train.run import FREE


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
        CapfiltError: a mistake in settings, models or data, where possible before anything is written; another run
            works there; or a step's failure, and then a later run goes on.
    """
    require_within("N", count, 1, 99)
    store, config = _folder(out), _placed(config)
    planned = plan(open_source(config.bootstrap.source), config.bootstrap.plan)
    models = digests({**asdict(config.start), "init": config.pretrain.init})
    before = _finished(store)
    held = _checked(config) if len(before) < count else []
    run = run or RunConfig()
    with leased(store, wait_s=run.wait_s) as lease:
        claim(store, _identity(config), planned.digest, job="rounds")
        claim_models(store, models)
        before = _finished(store)  # another run may have worked here until now
        loop = Loop(store, config, run, training, on_progress or _nobody, held)
        for number in range(len(before) + 1, count + 1):
            loop.round(number)
            lease.check()
        figures = [store.read_json(f"{round_name(number)}/round.json") for number in _finished(store)]
        store.write_json("rounds.json", {"rounds": figures})
        links = [f"{round_name(number)}/data/report.html" for number in _finished(store)]
        store.write("report.html", render(figures, links=links).encode())
    return RoundsResult(out=store.url, rounds=tuple(figures), done_before=len(before))


def _nobody(_: Told) -> None:
    pass


def _finished(store: Store) -> list[int]:
    """Rounds with their figures, from the first on without a gap."""
    number = 1
    while store.exists(f"{round_name(number)}/round.json"):
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
    held = replace(config.held_out, data=tuple(map(_entry, config.held_out.data)))
    config = replace(config, start=start, human=tuple(map(_entry, config.human)), held_out=held)
    captioner, judge, pretrain = map(_training_placed, (config.captioner, config.filter, config.pretrain))
    return replace(config, captioner=captioner, filter=judge, pretrain=pretrain)


def _training_placed(config: TrainConfig) -> TrainConfig:
    data = replace(
        config.data,
        mix=tuple(replace(one, shards=tuple(map(_entry, one.shards))) for one in config.data.mix),
        boilerplate=config.data.boilerplate and _entry(config.data.boilerplate),
    )
    config = replace(config, data=data, held_out=tuple(map(_entry, config.held_out)))
    if config.task != "pretrain":
        return config  # each round sets what the others begin with
    return replace(
        config,
        model=absolute(config.model) or config.model,
        init=absolute(config.init),
        init_vision=_there(config.init_vision),
        init_text=_there(config.init_text),
    )


def _there(name: str | None) -> str | None:
    """A file's or folder's absolute path; an id or a URL as it is."""
    return str(Path(name).expanduser().absolute()) if name and Path(name).expanduser().exists() else name


def _entry(url: str) -> str:
    return url if "://" in url else str(Path(url).expanduser().absolute())


def _identity(config: RoundsConfig) -> dict[str, Any]:
    """The settings without those of speed and place, and without what each round sets; as plain JSON values."""
    told = to_json(config)
    told["bootstrap"] = resolved(config.bootstrap)
    for role in ROLES:
        del told["bootstrap"]["capfilt"][role]
    for task in TRAININGS:
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
    for task in TRAININGS:
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

"""Stages run on Ray Data, on this machine or a cluster.

One part is one block from beginning to end and comes back as one row of tallies, so that the driver holds
numbers and never pictures. Plain stages are tasks, stateful ones a pool of long-lived workers, and the two are
never fused: else a worker with a model on its GPU would wait for the network.

A :class:`CapfiltError` travels through the pipeline as a block of its own, since Ray keeps of a worker's exception
only its text. Knows sources and stages; knows not what they do.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from capfilt import errors
from capfilt.errors import CapfiltError, EngineError
from capfilt.flow import placement
from capfilt.flow.cluster import DIED, cores, machines, running
from capfilt.flow.config import RunConfig
from capfilt.flow.pace import notes_from_json, notes_to_json, spent
from capfilt.flow.part import Finished, apply, read
from capfilt.flow.plan import TASK_CPUS
from capfilt.records import Tally
from capfilt.sources.base import Source
from capfilt.sources.parts import Part
from capfilt.stages.base import Needs, Stage, Work

RESTARTS = 4
"""How often a cluster gives a worker that died another start."""
WAVE = 10_000
"""Parts that are given to Ray at a time: it keeps something of each, and a corpus may have millions."""
_ERROR = "capfilt_error"
_WHOLE: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow"}
"""A stage sees a block, that is a part, as one Arrow table."""


def run_ray(
    source: Source,
    parts: Sequence[Part],
    stages: Sequence[Stage],
    on_part: Callable[[Finished], None],
    config: RunConfig | None = None,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Runs every part through the stages.

    Args:
        source: where the parts come from.
        parts: what is to be done.
        stages: in order; the last one's tables are counted.
        on_part: told of each finished part, here in the driver.
        config: where to run and with how many workers.
        on_ready: told once, when Ray is up, of the number of workers that will hold the models.

    Raises:
        EngineError: Ray cannot be reached, has no room for the workers, or loses one for good.
        CapfiltError: whatever a stage raised, as it was raised.
    """
    config = config or RunConfig()
    places, spare = _local_cpus(stages, config)
    with running(places + spare, config, without="with --runner local") as started:
        workers = placement.workers(machines(), stages, config.workers, spare=spare if started else 0)
        if on_ready:
            on_ready(workers)
        with _settings(config):
            # On one machine a worker dies for want of memory, and would again; in a cluster its machine may have gone.
            restarts = 0 if len(machines()) == 1 else RESTARTS
            for first in range(0, len(parts), WAVE):
                dataset = pipeline(
                    source, parts[first : first + WAVE], stages, workers, restarts=restarts, most=config.max_workers
                )
                for done in _rows(dataset):
                    on_part(done)


def placed(stages: Sequence[Stage], config: RunConfig) -> str:
    """Where the stages would go on the cluster that the config or RAY_ADDRESS names, in words.

    Raises:
        EngineError: it cannot be reached.
    """
    with running(1, config, without="with --runner local"):
        return "\n".join(placement.describe(machines(), stages, config.workers, config.max_workers))


def pipeline(
    source: Source,
    parts: Sequence[Part],
    stages: Sequence[Stage],
    workers: int,
    *,
    restarts: int = 0,
    most: int | None = None,
) -> ray.data.Dataset:
    """The lazy data set whose blocks are finished parts: one row ``tally`` and ``spent`` (JSON) each, or an error.

    Args:
        source: where the parts come from.
        parts: 1 or more.
        stages: in order.
        workers: of each stateful stage, 1 or more.
        restarts: how often one of them that died is started again.
        most: workers that each pool may grow to; None leaves them as they are.
    """
    workers = min(workers, len(parts))  # Ray warns of a worker that no part is left for
    items = [{"part": json.dumps(dataclasses.asdict(part))} for part in parts]
    dataset: ray.data.Dataset = ray.data.from_items(items, override_num_blocks=len(items))
    pools = {stage.needs.cpus for stage in stages if stage.needs.stateful}
    reading = Needs(cpus=TASK_CPUS)
    dataset = _tasks(dataset, _reading(source), reading, pools)
    for stage in stages:
        if stage.needs.stateful:
            dataset = _pool(dataset, stage, (workers, max(workers, most or 0)), restarts)
        else:
            dataset = _tasks(dataset, _staging(stage), stage.needs, pools)
    last = stages[-1].needs if stages and not stages[-1].needs.stateful else reading
    # The same needs as the last stage: Ray joins the two, and no picture is stored between them.
    return _tasks(dataset, _count, last, pools)


def _tasks(dataset: ray.data.Dataset, work: Work, needs: Needs, pools: set[float]) -> ray.data.Dataset:
    cpus = needs.cpus
    while cpus in pools:
        # Ray fuses tasks into the pool behind them when both ask for the same.
        cpus = round(cpus + 0.01, 4)
    return dataset.map_batches(work, **_WHOLE, **_asked(dataclasses.replace(needs, cpus=cpus)))


def _pool(dataset: ray.data.Dataset, stage: Stage, workers: tuple[int, int], restarts: int) -> ray.data.Dataset:
    low, high = workers
    pool = ray.data.ActorPoolStrategy(min_size=low, max_size=high)
    with warnings.catch_warnings():
        # Ray means to give this argument another place and has none yet. Without it a worker that runs out of
        # memory is started again for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return dataset.map_batches(
            _class_of(stage), compute=pool, max_restarts=restarts, **_WHOLE, **_asked(stage.needs)
        )


def _asked(needs: Needs) -> dict[str, Any]:
    asked = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "memory": needs.memory_gb * 2**30}
    return {name: value for name, value in asked.items() if value or name == "num_cpus"}


def _reading(source: Source) -> Work:
    def part_of(batch: pa.Table) -> pa.Table:
        part = Part(**json.loads(batch.column("part")[0].as_py()))
        return read(source, part)

    return _guarded(part_of, "read")


def _staging(stage: Stage) -> Work:
    return _guarded(lambda table: apply(stage.open(), table, stage=stage.name), stage.name)


def _class_of(stage: Stage) -> type:
    class Pool:
        """Opens the stage once and keeps it. A failure to open is told with the first part, not by dying."""

        def __init__(self) -> None:
            self.error: CapfiltError | None = None
            try:
                work = stage.open()
            except CapfiltError as error:
                self.error = error
            else:
                self.work = _guarded(lambda table: apply(work, table, stage=stage.name), stage.name)

        def __call__(self, table: pa.Table) -> pa.Table:
            return self.work(table) if self.error is None else _failed(self.error)

    Pool.__name__ = Pool.__qualname__ = stage.name
    return Pool


def _count(table: pa.Table) -> pa.Table:
    if _ERROR in table.column_names:
        return table
    return pa.table({"tally": [json.dumps(Tally.of(table).to_json())], "spent": [notes_to_json(spent(table))]})


def _guarded(work: Work, name: str) -> Work:
    """The work, with errors passed on as blocks."""

    def guarded(table: pa.Table) -> pa.Table:
        if _ERROR in table.column_names:
            return table
        try:
            return work(table)
        except CapfiltError as error:
            return _failed(error)

    guarded.__name__ = guarded.__qualname__ = name
    return guarded


def _failed(error: CapfiltError) -> pa.Table:
    told: dict[str, str | bool] = {"kind": type(error).__name__, "passing": error.passing}
    told |= {"what": error.what, "where": error.where, "mend": error.mend}
    return pa.table({_ERROR: [json.dumps(told)]})


def _raised(told: str) -> CapfiltError:
    data = json.loads(told)
    kind: type[CapfiltError] = getattr(errors, data.pop("kind"), CapfiltError)
    return kind(data.pop("what"), **data)


def _rows(dataset: ray.data.Dataset) -> Iterator[Finished]:
    batches: Iterable[Any] = dataset.iter_batches(prefetch_batches=0, **_WHOLE)
    try:
        for table in batches:
            if _ERROR in table.column_names:
                raise _raised(table.column(_ERROR)[0].as_py())
            for row in table.to_pylist():
                yield Finished(Tally.from_json(json.loads(row["tally"])), notes_from_json(row["spent"]))
    except DIED as error:
        raise EngineError(
            f"Ray lost a worker and did not get it back ({type(error).__name__})",
            where="ray",
            mend="Run again to go on; if memory ran out, with fewer --workers or a smaller capfilt.batch_size.",
        ) from error


def _local_cpus(stages: Sequence[Stage], config: RunConfig) -> tuple[int, int]:
    """Cores for the pools, and more for the tasks, of a Ray that is started here.

    Ray's CPUs are places in a queue, not cores. Fetching mostly waits, so its tasks get places beside the cores:
    models may then take every core, and the pipeline never waits for itself.
    """
    asked = sum(stage.needs.cpus for stage in stages if stage.needs.stateful) * (config.workers or 0)
    tasks = max([0.0, *(stage.needs.cpus for stage in stages if not stage.needs.stateful)])
    return max(cores(), round(asked + 0.5)), max(1, cores() // 2, round(tasks + 0.5))


@contextmanager
def _settings(config: RunConfig) -> Iterator[None]:
    with warnings.catch_warnings():
        if not config.verbose:
            # Making a context warns of Ray's own deprecated fields.
            warnings.simplefilter("ignore", DeprecationWarning)
        context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = None  # a block is a part, however large
    context.enable_progress_bars = config.verbose
    context.print_on_execution_start = config.verbose
    with ray.data.DataContext.current(context), nullcontext() if config.verbose else _muted():
        yield


@contextmanager
def _muted() -> Iterator[None]:
    """Ray Data's log goes to its file only."""
    handlers = [h for h in logging.getLogger("ray.data").handlers if isinstance(h, logging.StreamHandler)]
    levels = [h.level for h in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)

"""The main job: from a scraped source to a clean, captioned data set, going on where it stopped.

Everything that can be wrong is looked at before anything is written. What is to do is the plan less the parts with
a marker; a finished destination is told at once, with no engine started. Knows the order of things; each of them
is another room's.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capfilt.catalog import absolute
from capfilt.errors import DestinationError, RecipeError, meant
from capfilt.flow.config import RunConfig
from capfilt.flow.local import run_local
from capfilt.flow.pace import Pace
from capfilt.flow.part import Finished
from capfilt.flow.plan import Plan, describe, plan, todo
from capfilt.inputs import found_in
from capfilt.med.digests import digests
from capfilt.recipe import Recipe, load, resolved
from capfilt.records import Tally
from capfilt.report.page import write_report
from capfilt.shards import passes
from capfilt.shards.card import write_cards
from capfilt.shards.claim import (
    MODELS,
    changed_models,
    claim_models,
    record_changes,
    recorded_changes,
    refuse_strangers,
)
from capfilt.shards.commit import (
    PartMarker,
    claim,
    committed,
    recorded_dedup,
    remove_manifest,
    remove_strangers,
    write_manifest,
)
from capfilt.shards.lease import Lease, leased
from capfilt.shards.verify import of_manifest
from capfilt.sources.base import Source, SourceConfig
from capfilt.sources.opening import open_source
from capfilt.sources.parts import Part, Some
from capfilt.stages.base import Stage
from capfilt.stages.capfilt import CapFilt
from capfilt.stages.fetch import FetchImages
from capfilt.stages.retry import RETRIED, HoldRows
from capfilt.stages.sink import WriteShards
from capfilt.storage import Store

_log = logging.getLogger(__name__)
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What Linux shows of GPUs: NVIDIA's, AMD's, and those of Windows around it."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    done: int
    """Parts committed, earlier runs' included."""
    total: int
    """Parts of the plan."""
    tally: Tally
    """The books of all committed parts."""
    pace: Pace
    """How fast this run is, without earlier ones."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run found and did."""

    dest: str
    """The destination, absolute."""
    plan: str
    """The plan in words."""
    manifest: dict[str, Any] | None
    """The finished data set's books; None after a dry run."""
    parts: int
    """Parts of the plan."""
    done_before: int
    """Parts that earlier runs had committed."""
    pace: Pace = field(default_factory=Pace)
    """How fast this run was; without stages if there was nothing to do."""


def bootstrap(
    source: str | Sequence[str] | SourceConfig,
    dest: str,
    *,
    recipe: Recipe | None = None,
    run: RunConfig | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    dry_run: bool = False,
    retry: Sequence[str] = (),
    with_changes: bool = False,
) -> Result:
    """Fetches, captions, filters and writes what is not done yet, then manifest, card and report.

    >>> import capfilt
    >>> result = capfilt.bootstrap("pictures", "clean", run=capfilt.RunConfig(runner="local"))
    >>> totals = result.manifest["totals"]
    >>> totals["rows"] == totals["kept"] + sum(totals["dropped"].values())
    True

    Args:
        source: where rows come from; a path takes the recipe's other settings of sources, and further paths join it
            with the same settings.
        dest: a local folder or any URL fsspec knows.
        recipe: None takes the defaults.
        run: where it runs; None starts Ray here.
        on_progress: told at the start and after each part.
        dry_run: only look at everything and plan, and where it would go on the cluster of ``run``, if it names one;
            write nothing.
        retry: rows of parts that were done before and dropped for these reasons are tried again, alone; values of
            :data:`capfilt.stages.retry.RETRIED`.
        with_changes: go on also with another recipe, model or source than the destination was begun with: parts that
            are done stay as they are, unless their rows have changed, and the manifest tells what changed, and when.

    Raises:
        CapfiltError: a mistake in source, destination, recipe or models, before anything is written; or the
            engine's or the machine's failure, and then a later run goes on.
    """
    _check_reasons(retry)
    recipe, store = _with_source(recipe, source), Store(dest)
    _check_apart(store, recipe.source)
    opened = open_source(recipe.source)
    planned = plan(opened, recipe.plan)
    models = digests({"captioner": recipe.capfilt.captioner, "filter": recipe.capfilt.filter})
    store.check_writable()
    stages = _Stages(recipe, store, planned, tuple(retry))
    if dry_run:
        if with_changes:
            done = {at: marker for at, marker in committed(store).items() if _still(planned, at, marker)}
        else:
            _claim(store, recipe, planned, models, dry_run=True)
            done = committed(store)
        told = _told(planned, stages(), todo(planned, done), _failed(store, planned, done, retry))
        if run and run.runner == "ray" and run.cluster:
            from capfilt.flow.ray import placed  # noqa: PLC0415 Ray takes seconds, and only a cluster is asked

            told = f"{told}\n{placed(stages(), run)}"
        return Result(dest=store.url, plan=told, manifest=None, parts=len(planned.parts), done_before=len(done))
    with leased(store, wait_s=run.wait_s if run else 0.0) as lease:
        store.remove_temporaries()
        if with_changes:
            _adopt(store, recipe, planned, models)
        else:
            _claim(store, recipe, planned, models, dry_run=False)
        done = committed(store)
        left, failed = todo(planned, done), _failed(store, planned, done, retry)
        meter = _Meter(on_progress, planned, done, lease)
        _run(opened, left, stages, run or RunConfig(), meter)
        if failed:
            remove_manifest(store)
            passes.begin(store, retry, done)
            meter.again(done[part.index] for part in failed)
            _run(opened, failed, stages.again, run or RunConfig(), meter)
        lease.check()
        worked = time.monotonic()
        anew = bool(left or failed) or _is_stale(store, done)
        manifest = _finish(store, recipe, opened, models, planned, anew=anew)
        passes.end(store)
    pace = replace(meter.pace, finish=time.monotonic() - worked)
    count = len(planned.parts)
    return Result(dest=store.url, plan="", manifest=manifest, parts=count, done_before=len(done), pace=pace)


def _with_source(recipe: Recipe | None, source: str | Sequence[str] | SourceConfig) -> Recipe:
    if isinstance(source, SourceConfig):
        return replace(recipe, source=source) if recipe else Recipe(source=source)
    first, *more = [source] if isinstance(source, str) else source
    recipe = recipe or load(source=first)
    config = replace(recipe.source, path=first)
    joined = [replace(config, path=path, also=()) for path in more]
    return replace(recipe, source=replace(config, also=(*joined, *config.also)))


def _check_apart(store: Store, config: SourceConfig) -> None:
    """Passes where what is written is not read as the source by the next run."""
    for path in (config.path, *(one.path for one in config.also)):
        if found_in(store.url, path):
            raise DestinationError(
                f"it lies in the source {path}, whose rows would change with what is written",
                where=store.url,
                mend="Choose a folder beside the source, or begin its name with a dot or _.",
            )


@dataclass(frozen=True)
class _Stages:
    """The three stages."""

    recipe: Recipe
    store: Store
    planned: Plan
    retry: tuple[str, ...] = ()

    def again(self) -> list[Stage]:
        """Those that try again what failed."""
        fetch, capfilt, write = self()
        return [HoldRows(dest=self.store.url, reasons=self.retry), fetch, capfilt, replace(write, again=True)]

    def __call__(self) -> tuple[FetchImages, Stage, WriteShards]:
        c = self.recipe.capfilt
        placed = replace(c, captioner=absolute(c.captioner), filter=absolute(c.filter))
        if c.device == "auto" and not c.gpus and _gpu_here():
            # An engine gives GPUs to those who ask: else as many workers as there are cores would share the first.
            placed = replace(placed, gpus=1.0)
        return (
            FetchImages(fetch=self.recipe.fetch),
            CapFilt(capfilt=placed),
            WriteShards(dest=self.store.url, sink=self.recipe.sink, parts=self.planned.parts, judge_by=c.judge_by),
        )


def _gpu_here() -> bool:
    """Whether torch finds a GPU; it is not asked, which takes seconds, where the system has none."""
    if sys.platform == "linux" and not any(Path(name).exists() for name in _GPU_DEVICES):
        return False
    from capfilt.med.device import device_of  # noqa: PLC0415 torch

    return device_of("auto") != "cpu"


class _Meter:
    """Adds up the parts that are told of and tells the caller."""

    def __init__(
        self, tell: Callable[[Progress], None] | None, planned: Plan, done: dict[int, PartMarker], lease: Lease
    ) -> None:
        self.tell, self.total, self.lease = tell, len(planned.parts), lease
        self.done, self.tally = len(done), sum((marker.tally for marker in done.values()), Tally())
        self.began, self.pace = time.monotonic(), Pace()

    def again(self, markers: Iterable[PartMarker]) -> None:
        """Takes parts back that are done once more."""
        for marker in markers:
            self.done, self.tally = self.done - 1, self.tally - marker.tally
        self.start()

    def start(self) -> None:
        """Tells what earlier runs did."""
        if self.tell:
            self.tell(Progress(done=self.done, total=self.total, tally=self.tally, pace=self.pace))

    def ready(self, workers: int, gpus: float) -> None:
        """The engine is up."""
        if not self.pace.stages:
            self.pace = Pace(ready=time.monotonic() - self.began, workers=workers, gpus=gpus)

    def __call__(self, part: Finished) -> None:
        self.lease.check()
        self.done, self.tally = self.done + 1, self.tally + part.tally
        self.pace = self.pace.plus(part.spent, wall=time.monotonic() - self.began)
        self.start()


def _check_reasons(retry: Sequence[str]) -> None:
    for reason in retry:
        if reason not in RETRIED:
            raise RecipeError(
                f"{reason!r} is no reason that another try could take away",
                where="--retry",
                mend=f"{meant(reason, RETRIED)}Use some of: {', '.join(RETRIED)}.",
            )


def _failed(store: Store, planned: Plan, done: Mapping[int, PartMarker], retry: Sequence[str]) -> Sequence[Part]:
    """The parts that were done before and have rows to try again; not those that a stopped try has been over."""
    failed = [at for at, marker in done.items() if any(marker.tally.dropped.get(reason) for reason in retry)]
    return Some(planned.parts, passes.left_of(store, retry, failed, done) if failed else [])


def _told(planned: Plan, stages: Sequence[Stage], left: Sequence[Part], failed: Sequence[Part]) -> str:
    told = describe(planned, stages, left=len(left))
    return f"{told}\nretry   {len(failed):,} parts have rows to try again" if failed else told


def _run(
    source: Source, left: Sequence[Part], stages: Callable[[], Sequence[Stage]], run: RunConfig, meter: _Meter
) -> None:
    meter.start()
    if not left:
        return
    opened = stages()
    gpus = max((stage.needs.gpus for stage in opened), default=0.0)

    def ready(workers: int) -> None:
        meter.ready(workers, gpus)

    if run.runner == "local":
        ready(run.workers or 1)  # before torch is loaded, which is no engine
        from capfilt.med.device import threads_kept  # noqa: PLC0415 torch, which the first part would load

        with threads_kept():  # this process is the caller's
            run_local(source, left, opened, meter, run.workers or 1)
        return
    from capfilt.flow.ray import run_ray  # noqa: PLC0415 Ray takes seconds; neither a finished DEST nor `local` needs it

    run_ray(source, left, opened, meter, run, ready)


def _is_stale(store: Store, done: Mapping[int, PartMarker]) -> bool:
    """Whether the manifest speaks of other parts than are there, as after a `capfilt dedup` that was cut off."""
    stale = store.exists("manifest.json") and any(of_manifest(store, done))
    if stale:
        _log.warning("the manifest at %s was not that of its parts, and is written anew", store.url)
    return stale


def _finish(
    store: Store, recipe: Recipe, source: Source, models: dict[str, Any], planned: Plan, *, anew: bool
) -> dict[str, Any]:
    """Manifest, card and report: ``anew`` after parts were done or where no manifest is, else what is missing."""
    markers = None
    if anew := anew or not store.exists("manifest.json"):
        markers = committed(store)
        remove_strangers(store, markers)
        books, parts = resolved(recipe), len(planned.parts)
        earlier = {"changes": recorded_changes(store), "dedup": recorded_dedup(store)}
        told = {name: value for name, value in earlier.items() if value}
        described = source.describe()
        write_manifest(
            store, recipe=books, source=described, models=models, parts_planned=parts, more=told, markers=markers
        )
    manifest = write_cards(store, anew=anew)
    if anew or not store.exists("report.html"):
        write_report(store, markers=markers)
    return manifest


def _claim(store: Store, recipe: Recipe, planned: Plan, models: dict[str, Any], *, dry_run: bool) -> None:
    claimed = store.exists("recipe.yaml")
    # A wrong model is found by the first worker: the mend that it names may be a change of the recipe.
    begun = bool(store.names("parts") or store.names("shards") or store.exists("manifest.json"))
    if dry_run and not (claimed and begun):
        if not claimed:
            refuse_strangers(store)
        return
    claim(store, resolved(recipe), planned.digest, begun=begun)
    claim_models(store, models, dry_run=dry_run, begun=begun)


def _adopt(store: Store, recipe: Recipe, planned: Plan, models: dict[str, Any]) -> None:
    """Makes a destination this run's own, whatever it was begun with, and writes down what changed."""
    others = changed_models(store, models)
    done = committed(store)
    said: list[str] = []

    def record(changes: list[str]) -> None:
        remove_manifest(store)
        record_changes(store, [*changes, *others], len(done))
        said.extend(changes)

    claim(store, resolved(recipe), planned.digest, on_changes=record)
    if others and not said:
        record([])
    store.write_json(MODELS, models)
    for at, marker in done.items():
        if not _still(planned, at, marker):
            # Its files are written over, or swept away in the end.
            store.remove(f"parts/{at:05d}.json")


def _still(planned: Plan, at: int, marker: PartMarker) -> bool:
    """Whether a part that is done is of this plan."""
    return 0 <= at < len(planned.parts) and planned.parts[at].digest == marker.digest

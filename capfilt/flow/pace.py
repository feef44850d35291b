"""How fast a run is, which stage holds it up, and what would help.

Each stage notes on the part that leaves it how long it worked; the driver adds that up. Seconds are those of work in a
worker, not of waiting for other stages. Knows names of stages and seconds; knows no engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

READ, FETCH, CAPFILT, SINK = "read", "fetch", "capfilt", "sink"
START = "the start"
"""No stage: getting ready took most of the time of a short run."""
BUSY = 0.8
"""Workers with models that worked for so much of the time were waited for, not waiting."""
_KEY = b"capfilt.spent"
_ADVICE = {
    READ: "smaller parts (plan.part_rows) are read side by side by more cores",
    FETCH: "raise fetch.concurrency, give Ray more CPUs, or fetch from closer by",
    SINK: "a faster disk or store, or more CPUs",
}
_MODELS = (
    "a GPU, more --workers, fewer captions an image, a smaller model, or on a CPU without bfloat16 capfilt.dtype: int8"
)
_MORE_GPUS = "more GPUs, fewer captions an image, or a smaller model"


@dataclass(frozen=True, slots=True)
class Spent:
    """What a stage spent on a part, or on many."""

    seconds: float = 0.0
    """Of work in its workers, all of them together."""
    rows: int = 0
    """Rows that came in and were not dropped before."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.seconds + other.seconds, self.rows + other.rows)


def live(table: pa.Table) -> int:
    """Rows of a part that are not dropped yet."""
    return int(pc.sum(pc.is_null(table.column("drop"))).as_py() or 0)


def spent(table: pa.Table) -> dict[str, Spent]:
    """What the stages noted on a part, in their order; nothing where the notes are lost."""
    told = (table.schema.metadata or {}).get(_KEY)
    return {name: Spent(*values) for name, values in json.loads(told).items()} if told else {}


def noted(table: pa.Table, notes: Mapping[str, Spent]) -> pa.Table:
    """The part with these notes on it."""
    return table.replace_schema_metadata({_KEY: notes_to_json(notes).encode()})


def notes_to_json(notes: Mapping[str, Spent]) -> str:
    """Notes as they travel."""
    return json.dumps({name: [one.seconds, one.rows] for name, one in notes.items()})


def notes_from_json(told: str) -> dict[str, Spent]:
    """The inverse of :func:`notes_to_json`."""
    return {name: Spent(*values) for name, values in json.loads(told).items()}


@dataclass(frozen=True, kw_only=True)
class Pace:
    """A run so far; grows by :meth:`plus`."""

    wall: float = 0.0
    """Seconds since the engine was asked to work."""
    ready: float = 0.0
    """Of them, seconds until the engine was up."""
    first: float | None = None
    """Of them, seconds until the first part was done, with loading the models."""
    finish: float = 0.0
    """Seconds after that for manifest, card and report."""
    first_images: int = 0
    """Pictures of the first part."""
    workers: int = 1
    """Workers that hold the models."""
    gpus: float = 0.0
    """GPUs of each of them."""
    stages: Mapping[str, Spent] = field(default_factory=dict)
    """By name of the stage."""
    parts: int = 0
    """Parts that are done."""

    def plus(self, notes: Mapping[str, Spent], *, wall: float) -> Pace:
        """With one more part."""
        stages = {name: self.stages.get(name, Spent()) + notes.get(name, Spent()) for name in {**self.stages, **notes}}
        more = replace(self, wall=wall, stages=stages, parts=self.parts + 1)
        return more if self.first is not None else replace(more, first=wall, first_images=more.images)

    @property
    def images(self) -> int:
        """Pictures that the models have seen."""
        return self.stages.get(CAPFILT, Spent()).rows

    @property
    def images_s(self) -> float | None:
        """Pictures a second through the whole pipeline, its start included; None before the first part."""
        return self.images / self.wall if self.wall > 0 and self.first is not None else None

    @property
    def steady(self) -> float | None:
        """Pictures a second since the first part was done; None before the second."""
        if self.first is None or self.images == self.first_images or self.wall <= self.first:
            return None
        return (self.images - self.first_images) / (self.wall - self.first)

    def left(self, parts: int) -> float | None:
        """Seconds that so many further parts will take, at the pace of those since the first; with the first alone
        at its own, which includes loading the models; None before it."""
        if self.first is None:
            return None
        if self.parts > 1:
            return parts * (self.wall - self.first) / (self.parts - 1)
        return parts * max(0.0, self.first - self.ready)

    @property
    def busy(self) -> float:
        """The share of the time since the engine was up, in [0, 1], that the workers with models worked."""
        seconds, up = self.stages.get(CAPFILT, Spent()).seconds, self.wall - self.ready
        return min(1.0, seconds / (up * self.workers)) if up > 0 else 0.0

    @property
    def limits(self) -> str | None:
        """What holds the run up: the models where they hardly wait, else the stage that works most beside them; of a
        run that is over, the start if that took most of its time."""
        if not self.stages:
            return None
        if self.finish and self.first is not None and self.first > self.wall / 2 and self.busy < BUSY / 2:
            return START
        others = {name: one.seconds for name, one in self.stages.items() if name != CAPFILT}
        models = self.stages.get(CAPFILT, Spent()).seconds / self.workers
        most = max(others, key=lambda name: others[name], default=CAPFILT)
        if self.busy >= BUSY or models >= others.get(most, 0.0):
            return CAPFILT
        return most

    @property
    def advice(self) -> str | None:
        """What would make it faster."""
        limits = self.limits
        if limits == START:
            return "more rows at once" + ("; so few are done sooner with --runner local" if self.ready >= 1 else "")
        if limits == CAPFILT:
            return _MORE_GPUS if self.gpus else _MODELS
        return _ADVICE.get(limits or "")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: seconds rounded to a millisecond."""
        rate, steady = self.images_s, self.steady
        return {
            "wall_s": round(self.wall, 3),
            "ready_s": round(self.ready, 3),
            "first_part_s": None if self.first is None else round(self.first, 3),
            "finish_s": round(self.finish, 3),
            "images": self.images,
            "images_s": None if rate is None else round(rate, 3),
            "steady_images_s": None if steady is None else round(steady, 3),
            "workers": self.workers,
            "busy": round(self.busy, 3),
            "limits": self.limits,
            "advice": self.advice,
            "stages": {name: {"seconds": round(s.seconds, 3), "rows": s.rows} for name, s in self.stages.items()},
        }

"""The plan: which parts there are, which of them are still to do, and whether the machines can take it.

Pure: reads what it is given, runs nothing. Knows parts, markers and needs; knows no rows, no files and no engine.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from capfilt.errors import DestinationError, EngineError, SourceError
from capfilt.flow.config import PlanConfig
from capfilt.sources.base import Source
from capfilt.sources.parts import Part, Parts, Some
from capfilt.stages.base import Needs, Stage

TASK_CPUS = 0.25
"""Logical CPUs that the engine's own reading task takes; see :func:`pool_size`."""


@dataclass(frozen=True)
class Plan:
    """All parts of a source, in order, numbered from 0."""

    parts: Parts

    @property
    def digest(self) -> str:
        """Identity of all content in hex: the same rows cut in the same way, wherever their files lie."""
        return self.parts.digest

    @property
    def rows(self) -> int:
        """Rows of the whole source."""
        return self.parts.rows


class Done(Protocol):
    """What must be known of a committed part."""

    @property
    def digest(self) -> str:
        """The digest of the part it was made from."""
        ...


@dataclass(frozen=True)
class Machine:
    """What one machine of the cluster offers."""

    cpus: float
    """Logical CPUs."""
    gpus: float = 0.0
    """GPUs."""


def plan(source: Source, config: PlanConfig) -> Plan:
    """Cuts a source into parts.

    Raises:
        SourceError: the source is missing, damaged, lacks a column or has no rows.
    """
    parts = source.parts(config.part_rows)
    if not parts:
        raise SourceError("the source has no rows", mend="Give one with rows in it.")
    return Plan(parts)


def todo(plan: Plan, committed: Mapping[int, Done]) -> Sequence[Part]:
    """The parts without a marker, in order.

    Raises:
        DestinationError: a marker is of a part that the plan does not have.
    """
    parts = plan.parts
    strange = [at for at, done in committed.items() if not 0 <= at < len(parts) or parts[at].digest != done.digest]
    if strange:
        raise DestinationError(
            f"part {strange[0]} there was made from other rows than the source has now",
            mend="Choose another folder, or bring back the source as it was.",
        )
    return Some(parts, array("q", (at for at in range(len(parts)) if at not in committed)))


def pool_size(machines: Sequence[Machine], needs: Needs, asked: int | None, *, tasks: float = TASK_CPUS) -> int:
    """How many workers of a stage to hold open, all there from the start.

    Workers that take every CPU leave none for the tasks that feed them, and then all wait for ever; so ``tasks``
    CPUs stay free somewhere.

    Args:
        machines: what the cluster offers.
        needs: of one worker.
        asked: as the user wants it, or None for as many as there is room for.
        tasks: CPUs that must stay free on one machine for the largest task.

    Raises:
        EngineError: there is no room for one worker, or not for as many as asked.
    """
    # A head node without CPUs keeps none free for anybody.
    feeders = [index for index, machine in enumerate(machines) if machine.cpus >= tasks]
    room = max((_room(machines, needs, feeder, tasks) for feeder in feeders), default=0)
    if room >= (asked or 1):
        return asked or room
    wanted = f"{asked or 1} worker{'s' if (asked or 1) > 1 else ''} of {told(needs)}"
    offered = ", ".join(told(Needs(cpus=m.cpus, gpus=m.gpus)) for m in machines[:4]) or "nothing"
    raise EngineError(
        f"{wanted} and the tasks that feed them do not fit: Ray offers {offered}",
        where="workers",
        mend=f"Ask for {room} with --workers, or for less with --set capfilt.cpus=."
        if room
        else "Ask for less with --set capfilt.cpus= or capfilt.gpus=, or take --runner local.",
    )


def describe(plan: Plan, stages: Sequence[Stage], *, left: int | None = None) -> str:
    """The plan in words, as ``--dry-run`` shows it."""
    files, count = plan.parts.files, len(plan.parts)
    left = count if left is None else left
    lines = [
        f"rows    {plan.rows:,} in {files:,} file{'s' if files > 1 else ''}",
        f"parts   {count:,} of {_range(plan.parts.sizes)} rows; {left:,} to do",
        "stages",
        *(
            f"  {stage.name:<10} {'pool' if stage.needs.stateful else 'tasks':<6} {told(stage.needs)}"
            for stage in stages
        ),
    ]
    return "\n".join(lines)


def _room(machines: Sequence[Machine], needs: Needs, feeder: int, tasks: float) -> int:
    """Workers that fit when machine number ``feeder`` keeps ``tasks`` CPUs free."""
    return sum(fit(m, needs, tasks if index == feeder else 0.0) for index, m in enumerate(machines))


def fit(machine: Machine, needs: Needs, kept: float = 0.0) -> int:
    """Workers or tasks that fit on a machine when ``kept`` of its CPUs stay free."""
    by_cpu = (machine.cpus - kept) / needs.cpus if needs.cpus else math.inf
    by_gpu = machine.gpus / needs.gpus if needs.gpus else math.inf
    room = min(by_cpu, by_gpu)
    # A sum of tenths may fall short of a whole number by rounding.
    return max(0, math.floor(room + 1e-9)) if math.isfinite(room) else 1


def told(needs: Needs) -> str:
    """Needs in words."""
    parts = [f"{needs.cpus:g} CPU{'s' if needs.cpus != 1 else ''}"]
    if needs.gpus:
        parts.append(f"{needs.gpus:g} GPU{'s' if needs.gpus != 1 else ''}")
    if needs.memory_gb:
        parts.append(f"{needs.memory_gb:g} GiB")
    return " and ".join(parts)


def _range(sizes: tuple[int, int]) -> str:
    low, high = sizes
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"

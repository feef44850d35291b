"""Where the stages of a run go: how many workers, and what each machine takes.

Pure: knows machines and needs; knows no engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from capfilt.errors import EngineError
from capfilt.flow.plan import TASK_CPUS, Machine, fit, pool_size, told
from capfilt.stages.base import Needs, Stage


def together(stages: Sequence[Stage]) -> Needs:
    """What one worker of each stateful stage takes."""
    pools = [stage.needs for stage in stages if stage.needs.stateful]
    return Needs(cpus=sum(n.cpus for n in pools), gpus=sum(n.gpus for n in pools), stateful=True)


def workers(machines: Sequence[Machine], stages: Sequence[Stage], asked: int | None, *, spare: float = 0.0) -> int:
    """How many workers of each stateful stage to begin with; 0 if there is none.

    Args:
        machines: what there is.
        stages: of the run.
        asked: as the user wants it, or None for what fits.
        spare: CPUs that a Ray of our own has for tasks alone.

    Raises:
        EngineError: they do not fit.
    """
    if not any(stage.needs.stateful for stage in stages):
        return 0
    tasks = max([TASK_CPUS, *(stage.needs.cpus for stage in stages if not stage.needs.stateful)])
    # Left to us, a whole CPU stays with the tasks; asked for more workers, as little as works.
    free = max(spare, tasks) if spare or asked else max(1.0, tasks)
    return pool_size(machines, together(stages), asked, tasks=free)


def describe(
    machines: Sequence[Machine], stages: Sequence[Stage], asked: int | None, most: int | None = None
) -> list[str]:
    """The placement in lines of words: machines by kind, then for each stage what it asks for, and where that fits.

    Args:
        machines: of the cluster.
        stages: of the run.
        asked: workers, or None for what fits.
        most: workers that the pool may grow to.
    """
    lines = [f"cluster {len(machines)} machine{'s' if len(machines) != 1 else ''}"]
    # Ray names its nodes in any order.
    by_size = sorted(machines, key=lambda machine: (machine.gpus, machine.cpus))
    kinds = Counter(told(Needs(cpus=machine.cpus, gpus=machine.gpus)) for machine in by_size)
    lines += [f"  {count} of {kind}" for kind, count in kinds.items()]
    lines += ["placement"]
    try:
        count, why = workers(machines, stages, asked), ""
    except EngineError as error:
        count, why = 0, f"cannot be placed: {error.what}. {error.mend}"
    for stage in stages:
        rooms = [fit(machine, stage.needs) for machine in machines]
        where = f"{sum(room > 0 for room in rooms)} of {len(machines)} machines"
        if stage.needs.stateful:
            grows = f", growing to {most}" if most else ""
            placed = why or f"{count} worker{'s' if count != 1 else ''}{grows}, on {where}"
        elif any(rooms):
            placed = f"up to {sum(rooms)} at once, on {where}"
        else:
            placed = f"cannot be placed: no machine has {told(stage.needs)}"
        lines.append(f"  {stage.name:<10} {placed}")
    return lines

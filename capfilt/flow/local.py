"""Stages run in this process: for tests, notebooks and small jobs. Starts no Ray.

Each worker is a thread that opens the stages once and takes whole parts. Knows sources and stages; knows not
what they do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from capfilt.flow.part import Finished, apply, read
from capfilt.sources.base import Source
from capfilt.sources.parts import Part
from capfilt.stages.base import Stage


def run_local(
    source: Source,
    parts: Sequence[Part],
    stages: Sequence[Stage],
    on_part: Callable[[Finished], None],
    workers: int = 1,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Runs every part through the stages.

    Args:
        source: where the parts come from.
        parts: what is to be done.
        stages: in order; the last one's tables are counted.
        on_part: told of each finished part, in this thread.
        workers: parts under way at once, 1 or more; each has its own opened stages.
        on_ready: told once of the number of workers.

    Raises:
        CapfiltError: whatever a stage raised; parts under way are finished first.
    """
    if on_ready:
        on_ready(workers)
    if workers == 1:
        worker = _Worker(source, stages)
        for part in parts:
            on_part(worker(part))
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
        mine = threading.local()

        def work(part: Part) -> Finished:
            worker: _Worker | None = getattr(mine, "worker", None)
            if worker is None:
                worker = mine.worker = _Worker(source, stages)
            return worker(part)

        futures = [pool.submit(work, part) for part in parts]
        try:
            for future in as_completed(futures):
                on_part(future.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Worker:
    def __init__(self, source: Source, stages: Sequence[Stage]) -> None:
        self.source = source
        self.works = [(stage.name, stage.open()) for stage in stages]

    def __call__(self, part: Part) -> Finished:
        table = read(self.source, part)
        for name, work in self.works:
            table = apply(work, table, stage=name)
        return Finished.of(table)

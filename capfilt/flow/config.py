"""The settings of the plan and of the run, apart from the runners so that reading a recipe starts nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from capfilt.errors import require_one_of, require_within

Runner = Literal["ray", "local"]


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """How a source is cut. One part is one block, one shard and one commit."""

    part_rows: int = 1000
    """Rows a part, 1 to 1,000,000: what is done again after a crash, and what a worker holds in memory at once."""

    def __post_init__(self) -> None:
        require_within("plan.part_rows", self.part_rows, 1, 1_000_000)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a plan runs. Nothing here changes a result, so it is no part of a recipe."""

    runner: Runner = "ray"
    """``ray`` joins a cluster or starts Ray here; ``local`` runs in this process."""
    workers: int | None = None
    """Workers that hold the models, 1 or more; null takes as many as the machine or cluster has room for."""
    max_workers: int | None = None
    """Workers that the pool may grow to while there is room, ``workers`` or more; null leaves it
    as it began."""
    address: str | None = None
    """A Ray cluster's address, or ``auto`` for the one this machine belongs to; null starts Ray on this machine
    unless the environment variable RAY_ADDRESS names a cluster."""
    verbose: bool = False
    """Whether Ray's own progress bars and logs are shown."""
    wait_s: float = 0.0
    """Seconds that a destination is waited for where another run works, 0 to 86,400. One whose machine is gone lets go
    in two minutes."""

    @property
    def cluster(self) -> str | None:
        """The cluster that is joined; None starts Ray on this machine."""
        return self.address or os.environ.get("RAY_ADDRESS")

    def __post_init__(self) -> None:
        require_one_of("run.runner", self.runner, Runner)
        if self.workers is not None:
            require_within("run.workers", self.workers, 1, 100_000)
        if self.max_workers is not None:
            require_within("run.max_workers", self.max_workers, self.workers or 1, 100_000)
        require_within("run.wait_s", self.wait_s, 0, 86_400)

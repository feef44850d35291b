"""What a stage is: a frozen dataclass that says what it needs and, opened on a worker, works on tables.

Knows no engine: ``flow`` decides where and how often a stage is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa

Work = Callable[[pa.Table], pa.Table]
"""What an opened stage does to one part: a table of ``records.SCHEMA`` in, one with as many rows out."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one worker of a stage takes from the machine."""

    cpus: float = 1.0
    """Logical CPUs, more than 0."""
    gpus: float = 0.0
    """GPUs, 0 or more; fractions share one."""
    memory_gb: float = 0.0
    """Memory in GiB that the engine reserves; 0 reserves nothing."""
    stateful: bool = False
    """Whether opening is dear (a model): then a pool of long-lived workers runs it, else plain tasks."""


@runtime_checkable
class Stage(Protocol):
    """A unit of work. Its fields are its config; it must pickle."""

    @property
    def name(self) -> str:
        """Short name, as logs and plans show it."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns it reads."""
        ...

    @property
    def writes(self) -> tuple[str, ...]:
        """Columns it changes."""
        ...

    @property
    def needs(self) -> Needs:
        """Resources of one worker."""
        ...

    def open(self) -> Work:
        """Runs once on each worker; loads what is dear and returns the work."""
        ...

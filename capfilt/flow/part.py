"""One part from its source through a stage, with the checks that keep the books: nothing is lost on the way.

What both runners share. Knows tables and stages; knows no engine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pyarrow as pa

from capfilt.errors import DataError
from capfilt.flow.pace import READ, Spent, live, noted, spent
from capfilt.records import Tally, conform
from capfilt.sources.base import Source
from capfilt.sources.parts import Part
from capfilt.stages.base import Work


@dataclass(frozen=True, slots=True)
class Finished:
    """A part that went through all stages."""

    tally: Tally
    spent: dict[str, Spent] = field(default_factory=dict)
    """By stage, in their order."""

    @classmethod
    def of(cls, table: pa.Table) -> Finished:
        """From the last stage's table."""
        return cls(Tally.of(table), spent(table))


def read(source: Source, part: Part) -> pa.Table:
    """The rows of a part.

    Raises:
        DataError: the source gave other rows than planned.
    """
    where, start = f"part {part.index} of {part.file}", time.perf_counter()
    table = conform(source.read(part), where=where)
    if table.num_rows != part.stop - part.start:
        raise DataError(
            f"{table.num_rows} rows were read, {part.stop - part.start} were planned",
            where=where,
            mend="Do not change the source while it is read; run again.",
        )
    return noted(table, {READ: Spent(time.perf_counter() - start, live(table))})


def apply(work: Work, table: pa.Table, *, stage: str) -> pa.Table:
    """The part after one stage.

    Raises:
        DataError: the stage lost or added rows, or left another schema.
    """
    notes, rows, start = spent(table), live(table), time.perf_counter()
    done = conform(work(table), where=f"stage {stage}")
    if done.num_rows != table.num_rows:
        raise DataError(f"{table.num_rows} rows went in and {done.num_rows} came out", where=f"stage {stage}")
    return noted(done, {**notes, stage: Spent(time.perf_counter() - start, rows)})

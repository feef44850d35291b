"""One part from its source through a stage, with the checks that keep the books: nothing is lost on the way.

What both runners share. Knows tables and stages; knows no engine.
"""

from __future__ import annotations

import pyarrow as pa

from capfilt.errors import DataError
from capfilt.records import conform
from capfilt.sources.base import Source
from capfilt.sources.parts import Part
from capfilt.stages.base import Work


def read(source: Source, part: Part) -> pa.Table:
    """The rows of a part.

    Raises:
        DataError: the source gave other rows than planned.
    """
    where = f"part {part.index} of {part.file}"
    table = conform(source.read(part), where=where)
    if table.num_rows != part.stop - part.start:
        raise DataError(
            f"{table.num_rows} rows were read, {part.stop - part.start} were planned",
            where=where,
            mend="Do not change the source while it is read; run again.",
        )
    return table


def apply(work: Work, table: pa.Table, *, stage: str) -> pa.Table:
    """The part after one stage.

    Raises:
        DataError: the stage lost or added rows, or left another schema.
    """
    done = conform(work(table), where=f"stage {stage}")
    if done.num_rows != table.num_rows:
        raise DataError(f"{table.num_rows} rows went in and {done.num_rows} came out", where=f"stage {stage}")
    return done

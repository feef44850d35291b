"""A random few rows of a source, drawn without planning all of it.

Where the rows of every file can be counted cheaply, any row may be drawn; else the first rows of a few files, and the
sample says so. Rows come from a few blocks of neighbours, so that little is read. Knows the sources; fetches nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from capfilt.errors import SourceError, require_within
from capfilt.records import SCHEMA
from capfilt.records import replace as replaced
from capfilt.sources.base import Source, SourceConfig, of_each
from capfilt.sources.opening import open_source
from capfilt.sources.parts import cut
from capfilt.sources.sizes import files_of, first_rows, rows_of

MOST = 300
"""Most rows of a sample."""
_BLOCKS = 16
"""Blocks that rows are drawn from."""
_BLOCK_ROWS = 500
_BLOCK_ROWS_WITH_BYTES = 100
"""Rows of a block where each brings its picture; they are in memory together."""
_FIRST_ROWS = 2000
"""Rows at the beginning of a file that are drawn from where counting all of it would read all of it."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Rows of a source, and how they were drawn."""

    table: pa.Table
    """``records.SCHEMA``; each row stands at the number that it has in its file, its part is the block it is from."""
    rows: int | None
    """Rows of the source; None if not even an estimate is known."""
    exact: bool
    """Whether that was counted."""
    drawn_from: str
    """What could have been drawn, in words."""
    carries: bool
    """Whether rows bring their pictures."""


def sample(config: SourceConfig, count: int, *, seed: int = 0) -> Sample:
    """Draws rows at random: with the same seed and the same files the same.

    Args:
        config: the source; of joined sources each gives its share.
        count: rows, 1 to :data:`MOST`; fewer where the source has fewer.
        seed: chooses them.

    Raises:
        SourceError: nothing is there, or no rows, or it is not what it says it is.
        RecipeError: ``count`` is out of range.
    """
    require_within("rows", count, 1, MOST)
    configs = [replace(config, also=()), *config.also]
    sources = [open_source(one) for one in configs]
    sizes = [rows_of(source, files_of(source)) for source in sources]
    counts = [one.count for one in sizes]
    known = None if None in counts else sum(number or 0 for number in counts)
    shares = _shares(count, counts)
    drawn = [
        _draw(source, files_of(source), one.each, share, random.Random(f"{seed}:{at}"))
        for at, (source, one, share) in enumerate(zip(sources, sizes, shares, strict=True))
    ]
    tables = [table for tables, _ in drawn for table in tables]
    if not sum(table.num_rows for table in tables):
        raise SourceError("the source has no rows", where=config.path, mend="Give one with rows in it.")
    # A part and a row name one row, whichever source it is of.
    numbered = [
        replaced(table, {"part": np.full(table.num_rows, at, np.int64).tolist()}) for at, table in enumerate(tables)
    ]
    return Sample(
        table=pa.concat_tables(numbered),
        rows=known,
        exact=all(one.exact for one in sizes),
        drawn_from="; ".join(dict.fromkeys(what for _, what in drawn)),
        carries=all(source.has_bytes for source in sources),
    )


def _shares(count: int, counts: Sequence[int | None]) -> list[int]:
    """How many of the rows each source gives: by its size where all are known, at least one."""
    sizes = [1 if None in counts else number or 0 for number in counts]
    whole = max(1, sum(sizes))
    return [max(1, round(count * size / whole)) if size else 0 for size in sizes]


def _draw(
    source: Source, files: Sequence[str], each: Sequence[int] | None, count: int, draw: random.Random
) -> tuple[list[pa.Table], str]:
    if each is None:
        files = sorted(draw.sample(files, min(len(files), _BLOCKS)))
        each = of_each(lambda file: first_rows(source, file, _FIRST_ROWS), files)
        told = f"{len(files):,} file{'s' if len(files) > 1 else ''}"
        drawn_from = f"the first {_FIRST_ROWS:,} rows of {told}, as counting all rows would read everything"
    else:
        drawn_from = "all rows"
    block = _BLOCK_ROWS_WITH_BYTES if source.has_bytes else _BLOCK_ROWS
    parts = cut(zip(files, each, [""] * len(files), strict=True), block)
    blocks = [parts[at] for at in sorted(draw.sample(range(len(parts)), min(len(parts), _BLOCKS)))]
    rows = sum(part.stop - part.start for part in blocks)
    chosen = sorted(draw.sample(range(rows), min(rows, count)))
    tables, first = [], 0
    for part in blocks:
        size = part.stop - part.start
        here = [at - first for at in chosen if first <= at < first + size]
        first += size
        if here:
            tables.append(source.read(part).take(here).cast(SCHEMA))
    return tables, drawn_from

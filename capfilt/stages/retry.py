"""A second try at what failed: of a committed part only the rows dropped for given reasons are worked on again.

The others are held: they pass every stage untouched, and before the part is committed anew they are what ledger and
shards say of them. Knows tables and ``shards``; knows no engine and no source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from capfilt.errors import DataError
from capfilt.inputs import open_read
from capfilt.records import Drop, replace, table_of
from capfilt.shards.marker import PartMarker, marker_of
from capfilt.shards.parquet import read_ledger
from capfilt.shards.rows import rows_of
from capfilt.stages.base import Needs, Work
from capfilt.storage import Store

RETRIED = tuple(drop for drop in Drop if drop not in (Drop.NO_URL, Drop.UNREADABLE_ROW, Drop.NO_CAPTION_KEPT))
"""Reasons that another try may take away: those of fetching and of pictures."""

_FETCHING = frozenset(RETRIED) - {Drop.PLACEHOLDER, Drop.DUPLICATE, Drop.QUARANTINED}
"""Those whose rows have brought no picture yet, which may be one that many addresses of the part give."""

_HELD = "held"
"""Stands for a reason while a row passes the stages; none of them works on a row that has one."""


@dataclass(frozen=True, kw_only=True)
class HoldRows:
    """Frees the rows that were dropped for a reason that is retried, and holds all others.

    Where a picture may come in, the part's placeholders are freed too, for they are told by their number. What the
    source itself drops stays dropped, for the reason that it has now.
    """

    dest: str
    """The destination that has the parts: a local folder or any URL fsspec knows."""
    reasons: tuple[str, ...]
    """Of :data:`RETRIED`."""

    @property
    def name(self) -> str:
        """Short name, as logs and plans show it."""
        return "hold"

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns it reads."""
        return ("id", "part", "row", "image", "drop", "detail")

    @property
    def writes(self) -> tuple[str, ...]:
        """Columns it changes."""
        return ("image", "drop", "detail")

    @property
    def needs(self) -> Needs:
        """A quarter of a CPU, no memory reserved: it reads a small file."""
        return Needs(cpus=0.25)

    def open(self) -> Work:
        """The work: a whole part in, the same rows out."""
        return partial(_hold, store=Store(self.dest), reasons=frozenset(self.reasons))


def _hold(table: pa.Table, *, store: Store, reasons: frozenset[str]) -> pa.Table:
    marker = marker_of(store, table.column("part")[0].as_py())
    drops = _ledger(store, marker, table).column("drop").to_pylist()
    if reasons & _FETCHING & set(drops):
        reasons |= {Drop.PLACEHOLDER}
    freed = [drop in reasons for drop in drops]
    images, now, details = table.column("image"), table.column("drop"), table.column("detail")
    return replace(
        table,
        {
            # A picture that came with the row is looked at again too.
            "image": [images[at].as_py() if free else None for at, free in enumerate(freed)],
            "drop": [now[at].as_py() if free else _HELD for at, free in enumerate(freed)],
            "detail": [details[at].as_py() if free else None for at, free in enumerate(freed)],
        },
    )


def with_held(store: Store, table: pa.Table, marker: PartMarker) -> pa.Table:
    """The table with every held row as it was committed.

    Args:
        store: the destination.
        table: all rows of the part (``records.SCHEMA``), as the stages left them.
        marker: the part's.

    Raises:
        DataError: the ledger has other rows, or a kept row's picture is in no shard.
    """
    _ledger(store, marker, table)
    return table_of(_row(table, at, old) for at, old in enumerate(rows_of(store, marker)))


def _row(table: pa.Table, at: int, old: dict[str, Any]) -> dict[str, Any]:
    if table.column("drop")[at].as_py() == _HELD:
        return old
    row: dict[str, Any] = {name: table.column(name)[at].as_py() for name in table.column_names}
    return row


def _ledger(store: Store, marker: PartMarker, table: pa.Table) -> pa.Table:
    with open_read(store.path(marker.ledger.name)) as file:
        ledger = read_ledger(file, ["id", "row", "drop"])
    if _places(ledger) != _places(table):
        raise DataError("its ledger has other rows than its source", where=f"part {marker.part}")
    return ledger


def _places(table: pa.Table) -> Sequence[tuple[int, str]]:
    return list(zip(table.column("row").to_pylist(), table.column("id").to_pylist(), strict=True))

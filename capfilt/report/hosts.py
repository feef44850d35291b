"""Which hosts lost most rows in fetching, of how many, and why: counted in constant memory.

Reads addresses and reasons of ledger rows; fetches nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from capfilt.report.gallery import shorten
from capfilt.report.meanings import DROPS, FETCH
from capfilt.report.sketches import Frequent

_HOST = r"^(?:[A-Za-z][A-Za-z0-9+.\-]*:)?//(?:[^/?#]*@)?(?P<host>\[[^\]/?#]*\]|[^:/?#]*)"
_LENGTH = 253
"""Of a name in the DNS at most."""
_FETCH_DROPS = [reason for reason, (stage, *_) in DROPS.items() if stage == FETCH]
_BETWEEN = "\x1f"


@dataclass(frozen=True, kw_only=True)
class HostLoss:
    """One host, and what of its rows could not be fetched."""

    host: str
    lost: int
    """Rows lost in fetching; a lower bound where there were thousands of hosts."""
    rows: int
    """Rows of the source that point there; a lower bound likewise, and never less than ``lost``."""
    reasons: tuple[tuple[str, int], ...]
    """Why, the most frequent first; values of ``records.Drop``."""


class HostLosses:
    """Gathers :class:`HostLoss`."""

    def __init__(self) -> None:
        self._rows, self._lost, self._reasons = Frequent(), Frequent(), Frequent()

    @property
    def exact(self) -> bool:
        """Whether counts are counts and not lower bounds."""
        return self._rows.exact and self._lost.exact and self._reasons.exact

    def add(self, table: pa.Table) -> None:
        """Adds rows of the ledger, whatever became of them."""
        hosts = hosts_of(table.column("url"))
        self._rows.add(_counted(hosts))
        fetched = pc.is_in(table.column("drop"), pa.array(_FETCH_DROPS))
        lost, reasons = hosts.filter(fetched), table.column("drop").filter(fetched)
        if len(lost):
            self._lost.add(_counted(lost))
            self._reasons.add(_counted(pc.binary_join_element_wise(lost, reasons, _BETWEEN)))

    def top(self, count: int) -> tuple[HostLoss, ...]:
        """The hosts that lost most."""
        rows = dict(self._rows.top(self._rows.size))
        reasons: dict[str, list[tuple[str, int]]] = {}
        for joined, times in self._reasons.top(self._reasons.size):
            host, _, reason = joined.partition(_BETWEEN)
            reasons.setdefault(host, []).append((reason, times))
        return tuple(
            HostLoss(
                host=shorten(host, 80),
                lost=lost,
                rows=max(lost, rows.get(host, 0)),
                reasons=tuple(reasons.get(host, ())),
            )
            for host, lost in self._lost.top(count)
        )


def hosts_of(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """The host of each address, lower-cased, user and port left out; null where there is none."""
    # Hundreds of thousands of addresses take some few hosts: all together, not one by one in Python.
    found = pc.struct_field(pc.extract_regex(pc.utf8_trim_whitespace(urls), _HOST), "host")
    found = pc.utf8_lower(pc.utf8_trim(pc.utf8_slice_codeunits(found, 0, _LENGTH), "[]"))
    return pc.if_else(pc.equal(found, ""), None, found)


def _counted(values: pa.ChunkedArray) -> Counter[str]:
    return Counter({pair["values"]: pair["counts"] for pair in pc.value_counts(values.drop_null()).to_pylist()})

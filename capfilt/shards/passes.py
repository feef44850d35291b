"""A pass over parts that are committed already, such as a second try: which of them it has done, over any stop.

A part that is committed anew gives its files the next number, so the numbers at the begin of the pass tell which parts
it has reached. Knows markers and one small file of a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from capfilt.shards.marker import PartMarker
from capfilt.storage import Store

FILE = "retry.json"


def left_of(store: Store, reasons: Iterable[str], parts: Iterable[int], markers: Mapping[int, PartMarker]) -> list[int]:
    """Those of the parts, in order, that an unfinished pass for the same reasons has not reached; all if there is none.

    Args:
        store: the destination.
        reasons: what the pass is for.
        parts: that it would go over, as they are now.
        markers: of all of them.
    """
    turns = _begun(store, reasons)
    return sorted(at for at in parts if turns is None or markers[at].turn <= turns.get(str(at), 0))


def begin(store: Store, reasons: Iterable[str], markers: Mapping[int, PartMarker]) -> None:
    """Lays down where a pass begins; one for the same reasons that is not finished goes on."""
    if _begun(store, reasons) is None:
        turns = {str(at): turn for at, marker in markers.items() if (turn := marker.turn)}
        store.write_json(FILE, {"reasons": sorted(set(reasons)), "turns": turns})


def end(store: Store) -> None:
    """The data set is finished, and so is whatever pass there was."""
    store.remove(FILE)


def _begun(store: Store, reasons: Iterable[str]) -> dict[str, int] | None:
    if not store.exists(FILE):
        return None
    told = store.read_json(FILE)
    return dict(told["turns"]) if told["reasons"] == sorted(set(reasons)) else None

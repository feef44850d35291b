"""Duplicates of a whole data set, marked: of pictures that are equal or look alike one stays, the others become drops.

A part that has some is committed anew as a second try commits it: new files, then the marker that decides between old
and new. Killed in between, the data set is whole, and the same call goes on. Knows a finished destination; runs no
model and reads no source.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from capfilt.errors import DataError, DestinationError
from capfilt.inputs import open_read
from capfilt.records import LEDGER_SCHEMA, Drop, Tally, table_of
from capfilt.report.page import write_report
from capfilt.shards.card import write_cards
from capfilt.shards.commit import SinkConfig, commit_part, remove_strangers, write_manifest
from capfilt.shards.duplicates import Duplicate, Pictures, find
from capfilt.shards.lease import Lease, leased
from capfilt.shards.marker import PartMarker, committed
from capfilt.shards.parquet import read_ledger
from capfilt.shards.rows import rows_of
from capfilt.storage import Store

NEAR = 2
"""Bits of 64 that may differ, where nothing else is asked for. More joins drawings that only have a shape in common."""

_COMPARED = ["part", "row", "sha256", "phash", "width", "height", "drop"]


@dataclass(frozen=True, kw_only=True)
class Deduplicated:
    """What was found."""

    dest: str
    """The destination, absolute."""
    pictures: int
    """Kept pictures that were compared."""
    equal: int
    """Of them, how many equal another byte by byte."""
    near: int
    """How many more look like another."""
    unhashed: int
    """How many have no perceptual hash, and were compared byte by byte only."""
    duplicates: tuple[Duplicate, ...]
    """All of them, by part and row."""


def dedup(
    dest: str, *, near: int = NEAR, dry_run: bool = False, on_part: Callable[[int, int], None] | None = None
) -> Deduplicated:
    """Finds duplicates among the kept pictures of a data set and drops all but one of each (``Drop.DUPLICATE``).

    >>> import capfilt
    >>> capfilt.dedup("clean", dry_run=True).pictures == sum(1 for _ in capfilt.read("clean"))
    True

    Rows that come in later (by a second try, by changes, in a repaired part) were not compared: call it again.

    Args:
        dest: a finished destination of the main job.
        near: most bits of 64 in which two perceptual hashes may differ, 0 to 8; -1 finds equal pictures only.
        dry_run: only find; write nothing.
        on_part: told (parts done, parts in all) while parts are written.

    Raises:
        DestinationError: it is no finished data set.
        DataError: a ledger is missing or damaged.
        RecipeError: ``near`` is out of range.
    """
    store = Store(dest)
    if not store.exists("manifest.json"):
        raise DestinationError(
            "there is no finished data set there",
            where=store.url,
            mend="Let `capfilt bootstrap` come to its end first.",
        )
    with nullcontext() if dry_run else leased(store) as lease:
        markers = committed(store)
        pictures = Pictures(_kept(store, markers))
        found = sorted(find(pictures, near), key=lambda one: (one.part, one.row))
        if not dry_run:
            _drop(store, markers, found, near, lease, on_part or (lambda done, total: None))
    equal = sum(one.bits is None for one in found)
    return Deduplicated(
        dest=store.url,
        pictures=len(pictures),
        equal=equal,
        near=len(found) - equal,
        unhashed=int((~pictures.hashed).sum()) if len(pictures) else 0,
        duplicates=tuple(found),
    )


def _kept(store: Store, markers: Mapping[int, PartMarker]) -> Iterator[pa.Table]:
    """The kept rows of each part, in order."""
    contents = store.read_each([marker.ledger.name for marker in markers.values()])
    for marker in markers.values():
        try:
            ledger = read_ledger(io.BytesIO(next(contents)), _COMPARED)
        except FileNotFoundError as error:
            mend = "Run `capfilt verify --repair` there, and the bootstrap again; only what is broken is redone."
            raise DataError(
                "the ledger of a finished part is gone", where=store.path(marker.ledger.name), mend=mend
            ) from error
        yield ledger.filter(pc.is_null(ledger.column("drop")))


def _drop(
    store: Store,
    markers: Mapping[int, PartMarker],
    found: Sequence[Duplicate],
    near: int,
    lease: Lease | None,
    on_part: Callable[[int, int], None],
) -> None:
    manifest: dict[str, Any] = store.read_json("manifest.json")
    by_part: defaultdict[int, dict[int, Duplicate]] = defaultdict(dict)
    for one in found:
        by_part[one.part][one.row] = one
    sink = SinkConfig(**manifest["recipe"]["sink"])
    for done, (part, rows) in enumerate(by_part.items()):
        on_part(done, len(by_part))
        if lease:
            lease.check()
        commit_part(store, _without(store, markers[part], rows), markers[part], sink, over=markers[part])
    _recount(store, {part: marker for part, marker in markers.items() if part not in by_part})
    on_part(len(by_part), len(by_part))
    markers = committed(store)
    remove_strangers(store, markers)
    # Also when nothing was found: the run before may have been cut off before it came here.
    told = {name: manifest[name] for name in ("recipe", "source", "models")}
    more = {name: manifest[name] for name in ("changes", "refilter") if name in manifest} | {"dedup": {"near": near}}
    write_manifest(store, **told, parts_planned=manifest["parts"], more=more, markers=markers)
    write_cards(store, anew=True)
    write_report(store, markers=markers)


def _recount(store: Store, markers: Mapping[int, PartMarker]) -> None:
    """Counts anew what an earlier version counted with the texts of duplicates; the files stay."""
    for part, marker in markers.items():
        if not marker.tally.dropped.get(Drop.DUPLICATE):
            continue
        with open_read(store.path(marker.ledger.name)) as file:
            ledger = read_ledger(file, LEDGER_SCHEMA.names)
        if marker.tally == Tally.with_duplicates(ledger):
            store.write_json(f"parts/{part:05d}.json", replace(marker, tally=Tally.of(ledger)).to_json())


def _without(store: Store, marker: PartMarker, gone: Mapping[int, Duplicate]) -> pa.Table:
    """The part's rows with their pictures, those of ``gone`` dropped."""
    return table_of(_marked(row, gone.get(row["row"])) for row in rows_of(store, marker))


def _marked(row: dict[str, Any], twin: Duplicate | None) -> dict[str, Any]:
    return row | {"image": None, "drop": str(Drop.DUPLICATE), "detail": _detail(twin)} if twin else row


def _detail(one: Duplicate) -> str:
    where = f"the picture of part {one.of_part}, row {one.of_row}"
    if one.bits is None:
        return f"It equals {where}, byte by byte."
    return f"It looks like {where}: their hashes differ in {one.bits} of 64 bits."

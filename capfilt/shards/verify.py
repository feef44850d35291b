"""Whether a data set is what its books say: digests, counts, each row once, each kept row in its shard.

Reads everything it checks, in memory of one part. Knows a store and the formats, and how to take away what is broken.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from capfilt.errors import CapfiltError, DestinationError, is_of_store
from capfilt.inputs import open_read
from capfilt.records import Tally
from capfilt.shards.commit import remove_manifest, remove_strangers
from capfilt.shards.lease import leased
from capfilt.shards.marker import PartMarker, StoredFile, committed, marker_of
from capfilt.shards.parquet import read_ledger
from capfilt.shards.read import OWN_TEXT_BYTES, samples
from capfilt.shards.sample import key_of
from capfilt.storage import Store

_CHUNK = 1 << 20
_TOGETHER = 256
"""Parts whose problems are awaited at a time."""
_READERS = 4 * (os.cpu_count() or 1)
"""Parts that are read at once: from a store far away, reading mostly waits."""


def verify(store: Store, *, on_part: Callable[[int, int], None] | None = None) -> list[str]:
    """The problems of a data set, one sentence each; empty if there is none.

    Checks that every file is there with its size and sha256 and none is there that no marker knows; that each
    part's ledger holds each row once, with none left out between, adds up to its marker, and agrees with its shards
    sample by sample; that the manifest is the sum of its parts.

    Args:
        store: the destination of a run.
        on_part: told of parts that were read: (how many, of how many).
    """
    try:
        markers = committed(store)
    except CapfiltError as error:
        _raise_if_of_store(error)
        return [str(error).replace("\n", " ")]
    if not markers:
        return [f"{store.url}: no part is committed there"]
    problems = [problem for _, found in _of_parts(store, list(markers.values()), on_part) for problem in found]
    return [*problems, *_strangers(store, markers), *of_manifest(store, markers)]


def repair(store: Store) -> list[int]:
    """Takes away what is broken, so that the main job's next run does it anew and nothing else: parts whose marker,
    files or books are damaged, files that no marker knows, and a manifest that is not the sum of its parts.

    Returns:
        The parts that are to be done again, in order.

    Raises:
        DestinationError: another run works there.
        StoreError: the store fails; nothing was removed.
    """
    with leased(store):
        whole, broken = _readable(store)
        broken |= {f"{marker.part:05d}.json" for marker, found in _of_parts(store, whole) if found}
        for name in broken:
            # The marker first: without it, whatever is left of the part is nothing but leftovers.
            store.remove(f"parts/{name}")
        left = committed(store)
        remove_strangers(store, left)
        again = sorted(int(stem) for name in broken if (stem := PurePosixPath(name).stem).isdigit())
        if again or any(of_manifest(store, left)):
            remove_manifest(store)
    return again


def _readable(store: Store) -> tuple[list[PartMarker], set[str]]:
    """The markers that can be read, and the names of the other files that lie there."""
    markers, broken = [], set()
    for name in store.names("parts"):
        stem = PurePosixPath(name).stem
        try:
            marker = marker_of(store, int(stem)) if stem.isdigit() else None
        except DestinationError as error:
            _raise_if_of_store(error)
            marker = None
        if marker is None:
            broken.add(name)
        else:
            markers.append(marker)
    return markers, broken


def _raise_if_of_store(error: Exception) -> None:
    if is_of_store(error):
        raise error


def _of_parts(
    store: Store, markers: Sequence[PartMarker], on_part: Callable[[int, int], None] | None = None
) -> Iterator[tuple[PartMarker, list[str]]]:
    """Each part with its problems, in order."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="verify") as pool:
        for first in range(0, len(markers), _TOGETHER):
            some = markers[first : first + _TOGETHER]
            yield from zip(some, pool.map(lambda marker: list(_of_part(store, marker)), some), strict=True)
            if on_part:
                on_part(first + len(some), len(markers))


def _of_part(store: Store, marker: PartMarker) -> Iterator[str]:
    damaged = [problem for stored in (marker.ledger, *marker.shards) for problem in _of_file(store, stored)]
    if damaged:
        # What is inside a damaged file says no more.
        yield from damaged
        return
    try:
        with open_read(store.path(marker.ledger.name)) as file:
            ledger = read_ledger(file)
        yield from _of_ledger(ledger, marker)
        for shard in marker.shards:
            yield from _of_shard(store, shard, ledger)
    except CapfiltError as error:
        _raise_if_of_store(error)
        yield f"{marker.ledger.name}: {error.what}"


def _of_file(store: Store, stored: StoredFile) -> Iterator[str]:
    digest, size = hashlib.sha256(), 0
    try:
        with open_read(store.path(stored.name)) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except CapfiltError as error:
        _raise_if_of_store(error)
        yield f"{stored.name}: {error.what}"
        return
    if size != stored.size:
        yield f"{stored.name}: has {size} bytes, {stored.size} were written"
    elif digest.hexdigest() != stored.sha256:
        yield f"{stored.name}: its bytes are not those that were written (sha256 differs)"


def _of_ledger(ledger: pa.Table, marker: PartMarker) -> Iterator[str]:
    name = marker.ledger.name
    if set(pc.unique(ledger.column("part")).to_pylist()) - {marker.part}:
        yield f"{name}: holds rows of another part"
    rows = ledger.column("row")
    if pc.count_distinct(rows).as_py() != ledger.num_rows:
        yield f"{name}: a row is there twice"
    elif ledger.num_rows and pc.max(rows).as_py() - pc.min(rows).as_py() + 1 != ledger.num_rows:
        yield f"{name}: rows between its first and its last are missing"
    tally = Tally.of(ledger)
    if marker.tally not in (tally, Tally.with_duplicates(ledger)):
        yield f"{name}: its rows do not add up to the marker's tallies"
    if not tally.balanced:
        yield f"{name}: {tally.rows} rows are not {tally.kept} kept and {sum(tally.dropped.values())} dropped"
    if bool(marker.shards) != bool(tally.kept):
        yield f"{name}: {tally.kept} rows are kept, but {len(marker.shards)} shards are there"


def _of_shard(store: Store, shard: StoredFile, ledger: pa.Table) -> Iterator[str]:
    kept = ledger.filter(pc.is_null(ledger.column("drop"))).select(["id", "part", "row", "sha256"]).to_pylist()
    expected = {key_of(row["part"], row["row"]): row for row in kept}
    bad: list[tuple[str, str]] = []
    told = samples(
        [store.path(shard.name)],
        on_bad=lambda name, reason: bad.append((name, reason)),
        max_text_bytes=OWN_TEXT_BYTES,
    )
    for sample in told:
        row = expected.pop(sample.key, None)
        if row is None:
            yield f"{shard.name}: sample {sample.key} is there twice or is no kept row"
        elif sample.meta.get("id") != row["id"]:
            yield f"{shard.name}: sample {sample.key} has another id than its row"
        elif hashlib.sha256(sample.image).hexdigest() != row["sha256"]:
            yield f"{shard.name}: sample {sample.key} has another picture than its row"
    yield from (f"{name}: {reason}" for name, reason in bad)
    if expected:
        yield f"{shard.name}: {len(expected)} kept rows are missing, first {min(expected)}"


def _strangers(store: Store, markers: Mapping[int, PartMarker]) -> Iterator[str]:
    known = {stored.name for marker in markers.values() for stored in (marker.ledger, *marker.shards)}
    for folder in ("shards", "pairs"):
        for name in store.names(folder):
            if f"{folder}/{name}" not in known:
                yield f"{folder}/{name}: no commit marker knows this file; its part was not finished, run again"


def of_manifest(store: Store, markers: Mapping[int, PartMarker]) -> Iterator[str]:
    """Where the manifest is not the sum of the parts, a sentence each; it reads no other file.

    Args:
        store: the destination.
        markers: all that are there.
    """
    if not store.exists("manifest.json"):
        yield f"manifest.json: is not there; {len(markers)} parts are done, run again to finish"
        return
    try:
        manifest = store.read_json("manifest.json")
        told, parts = _files(manifest), int(manifest["parts"])
        totals = Tally.from_json(manifest["totals"])
    except (CapfiltError, KeyError, TypeError, ValueError) as error:
        _raise_if_of_store(error)
        yield "manifest.json: cannot be read as a manifest"
        return
    if parts != len(markers) or set(markers) != set(range(parts)):
        yield f"manifest.json: speaks of {parts} parts, {len(markers)} are committed"
    if totals != sum((marker.tally for marker in markers.values()), Tally()):
        yield "manifest.json: its totals are not the sum of the parts"
    found = [stored.to_json() for marker in markers.values() for stored in (marker.ledger, *marker.shards)]
    if told != {stored["name"]: stored for stored in found}:
        yield "manifest.json: its files are not those of the commit markers"


def _files(manifest: Any) -> dict[str, Any]:
    return {stored["name"]: stored for stored in (*manifest["ledgers"], *manifest["shards"])}

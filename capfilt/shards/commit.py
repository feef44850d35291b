"""The commit: a part's files, then its marker; and at the end the manifest.

    recipe.yaml           what was asked, written by the first run      plan.json   the digest of its parts
    shards/00042.tar      the kept pictures                             pairs/00042.parquet   every row, no bytes
    parts/00042.json      the marker: tallies and digests, written after them
    manifest.json         written last: totals, digests, shards

Every name is deterministic and every write atomic, so committing a part again is harmless, and what is done is
what has a marker. Knows a store and rows; knows no engine and no source.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO, Literal, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc

from capfilt.errors import DataError, DestinationError, is_of_store, require_one_of
from capfilt.records import META, Origin, Tally, conform, replace
from capfilt.shards.claim import claim, digest_of, plain
from capfilt.shards.marker import FORMAT_VERSION, PartMarker, StoredFile, committed
from capfilt.shards.parquet import write_ledger, write_parquet
from capfilt.shards.sample import Sample, key_of
from capfilt.shards.tar import write_tar
from capfilt.storage import HashingWriter, Store

__all__ = ["PartMarker", "SinkConfig", "claim", "commit_part", "committed", "kept_samples", "write_manifest"]

DEDUP = "dedup.json"
"""What the manifest told of duplicates, while it is away."""

ShardFormat = Literal["webdataset", "parquet", "both"]
ShardImages = Literal["jpeg", "as_is"]


@dataclass(frozen=True, kw_only=True)
class SinkConfig:
    """What a committed part looks like."""

    format: ShardFormat = "webdataset"
    """Shards as ``webdataset`` tars, ``parquet``, or ``both``."""
    images: ShardImages = "jpeg"
    """``jpeg`` makes PNG and WebP into JPEG (quality 92), so that all samples have one extension, without which
    `datasets` refuses or loses pictures of tars; ``as_is`` keeps bytes as they were captioned."""
    keep_rejected_text: bool = True
    """Whether rejected captions keep their text in shards and ledger; else only their scores stay."""

    def __post_init__(self) -> None:
        for name, kind in (("format", ShardFormat), ("images", ShardImages)):
            require_one_of(f"sink.{name}", getattr(self, name), kind)


class Planned(Protocol):
    """What the commit must know of a part of the plan."""

    @property
    def index(self) -> int:
        """Its number in the plan, from 0."""
        ...

    @property
    def digest(self) -> str:
        """Identity of the content it was cut from, in hex."""
        ...


def commit_part(
    store: Store, table: pa.Table, part: Planned, config: SinkConfig, *, over: PartMarker | None = None
) -> PartMarker:
    """Writes a finished part: shards, ledger, then the marker. Again with the same rows, the same bytes.

    Args:
        store: the destination.
        table: all rows of the part (``records.SCHEMA``); a row without ``drop`` has an image and a kept caption.
        part: its place in the plan and the digest of its content.
        config: formats.
        over: the marker of the same part that this commit takes the place of. Files get other names then, so that the
            new marker, a single write, decides between old and new; the old files go last.

    Raises:
        DataError: rows of another part, a row twice, or one neither dropped nor whole.
        DestinationError: the store refuses.
    """
    table = _forget_rejected(_checked(table, part), config)
    tally = Tally.of(table)
    wanted = _formats(config) if tally.kept else ()
    shards = []
    base = f"{part.index:05d}" if over is None else _next_name(part.index, over)
    for kind, (ending, write) in _WRITERS.items():
        name = f"shards/{base}.{ending}"
        if kind in wanted:
            shards.append(_write(store, name, tally.kept, partial(write, samples=kept_samples(table))))
        else:
            # An attempt that died before its marker may have left one, and no marker will vouch for it.
            store.remove(name)
    ledger = _write(store, f"pairs/{base}.parquet", tally.rows, partial(write_ledger, table=table))
    marker = PartMarker(part=part.index, digest=part.digest, tally=tally, ledger=ledger, shards=tuple(shards))
    store.write_json(f"parts/{part.index:05d}.json", marker.to_json())
    for old in (over.ledger, *over.shards) if over else ():
        store.remove(old.name)
    return marker


def remove_strangers(store: Store, markers: Mapping[int, PartMarker] | None = None) -> list[str]:
    """Removes what attempts left that died: shards and ledgers that no marker knows, whose names are returned, and
    files that were being written.

    Args:
        store: the destination, which nobody else may be writing.
        markers: all that are there, as :func:`committed` has just read them; None reads them.

    Raises:
        DestinationError: a marker is damaged.
    """
    store.remove_temporaries()
    markers = committed(store) if markers is None else markers
    known = {stored.name for marker in markers.values() for stored in (marker.ledger, *marker.shards)}
    there = [f"{folder}/{name}" for folder in ("shards", "pairs") for name in store.names(folder)]
    strangers = [name for name in there if name not in known]
    for name in strangers:
        store.remove(name)
    return strangers


def kept_samples(table: pa.Table) -> Iterator[Sample]:
    """The kept rows of a table as samples, one at a time."""
    for at in range(table.num_rows):
        if table.column("drop")[at].is_valid:
            continue
        row = {name: table.column(name)[at].as_py() for name in table.column_names}
        meta = {name: row[name] for name in META}
        yield Sample(key_of(row["part"], row["row"]), row["image"], row["captions"], meta)


def _now() -> datetime:
    """The time that goes into books: SOURCE_DATE_EPOCH, where somebody wants equal runs to be equal byte for byte."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(fixed), UTC) if fixed.isdecimal() else datetime.now(UTC)


def write_manifest(
    store: Store,
    *,
    recipe: Mapping[str, Any],
    source: Mapping[str, Any],
    models: Mapping[str, Any],
    parts_planned: int,
    more: Mapping[str, Any] | None = None,
    markers: Mapping[int, PartMarker] | None = None,
) -> dict[str, Any]:
    """Writes and returns ``manifest.json``, the last file of a run: what was done, to how much, with what result.

    Args:
        store: the destination.
        recipe: the resolved recipe, JSON values.
        source: the source's ``describe()``.
        models: what captioned and filtered: from role to name, digest, ...
        parts_planned: parts in the plan, all of which must be committed.
        more: what else was done to the data set, JSON values by name.
        markers: all that are there, as :func:`committed` has just read them; None reads them.

    Raises:
        DestinationError: a part is missing or too many, or the books do not balance.
    """
    markers = committed(store) if markers is None else markers
    _check_complete(store, markers, parts_planned)
    totals = sum((marker.tally for marker in markers.values()), Tally())
    if not totals.balanced:
        raise DestinationError(
            f"{totals.rows} rows in are not {totals.kept} kept and {sum(totals.dropped.values())} dropped",
            where=store.url,
            mend="Run `capfilt verify` there, remove the markers it names, and run again.",
        )
    manifest = {
        "format": FORMAT_VERSION,
        "capfilt": _capfilt_version(),
        "created": _now().isoformat(timespec="seconds"),
        "recipe": plain(recipe),
        "recipe_digest": digest_of(recipe),
        "source": plain(source),
        "models": plain(models),
        "parts": parts_planned,
        "totals": totals.to_json(),
        "noise_ratio": {str(origin): totals.noise_ratio(origin) for origin in Origin},
        "ledgers": [marker.ledger.to_json() for marker in markers.values()],
        "shards": [shard.to_json() for marker in markers.values() for shard in marker.shards],
        **(more or {}),
    }
    store.write_json("manifest.json", manifest)
    store.remove(DEDUP)
    return manifest


def remove_manifest(store: Store) -> None:
    """Takes the manifest away while parts change: without it, a run that is cut off is seen to be unfinished.

    What `capfilt dedup` did to the data set stands nowhere else, so it is laid down in ``dedup.json`` before, until
    the next manifest has it.
    """
    if told := recorded_dedup(store):
        store.write_json(DEDUP, told)
    store.remove("manifest.json")


def recorded_dedup(store: Store) -> dict[str, Any] | None:
    """How duplicates were last looked for, by the manifest or by what was left of it; None if they never were."""
    try:
        return dict(store.read_json("manifest.json")["dedup"])
    except (DestinationError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
        if is_of_store(error):
            raise
        # A manifest that is damaged tells nothing, and is written anew.
        return dict(store.read_json(DEDUP)) if store.exists(DEDUP) else None


_WRITERS: dict[str, tuple[str, Callable[..., int]]] = {
    "webdataset": ("tar", write_tar),
    "parquet": ("parquet", write_parquet),
}


def _formats(config: SinkConfig) -> tuple[str, ...]:
    return tuple(_WRITERS) if config.format == "both" else (config.format,)


def _next_name(index: int, over: PartMarker) -> str:
    """00042, then 00042-1, 00042-2, ..."""
    return f"{index:05d}-{over.turn + 1}"


def _write(store: Store, name: str, rows: int, write: Callable[[BinaryIO], object]) -> StoredFile:
    with store.write_file(name) as file:
        hashing = HashingWriter(file)
        write(cast("BinaryIO", hashing))
    return StoredFile(name=name, sha256=hashing.sha256, size=hashing.size, rows=rows)


def _checked(table: pa.Table, part: Planned) -> pa.Table:
    where = f"part {part.index}"
    table = conform(table, where=where)
    if pc.unique(table.column("part")).to_pylist() not in ([part.index], []):
        raise DataError("rows of another part", where=where)
    if pc.count_distinct(table.column("row")).as_py() != table.num_rows:
        raise DataError("a row is there twice", where=where)
    # Column by column: filtering would copy every picture.
    kept = pc.is_null(table.column("drop")).to_pylist()
    whole = pc.is_valid(table.column("image")).to_pylist()
    for at, captions in enumerate(table.column("captions").to_pylist()):
        if kept[at] and not (whole[at] and any(caption["kept"] for caption in captions)):
            row = table.column("row")[at].as_py()
            raise DataError("neither dropped nor whole (an image and a kept caption)", where=f"{where}, row {row}")
    return table


def _forget_rejected(table: pa.Table, config: SinkConfig) -> pa.Table:
    if config.keep_rejected_text:
        return table
    rows = table.column("captions").to_pylist()
    told = [[c if c["kept"] else {**c, "text": ""} for c in captions] for captions in rows]
    return replace(table, {"captions": told})


def _check_complete(store: Store, markers: Mapping[int, PartMarker], planned: int) -> None:
    missing = [index for index in range(planned) if index not in markers]
    if missing:
        some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise DestinationError(
            f"{len(missing)} of {planned} parts are not done: {some}", where=store.url, mend="Run again to go on."
        )
    if len(markers) > planned:
        raise DestinationError(
            f"{len(markers)} parts are done, but {planned} are planned", where=store.url, mend="Choose another folder."
        )


def _capfilt_version() -> str:
    try:
        return version("capfilt")
    except PackageNotFoundError:
        return "unknown"

"""Samples out of shards: ours (tar or Parquet) and anybody's WebDataset tars, as a stream.

A stranger's shard is as hostile as the web: nothing is unpacked, unpickled or run, members are bounded, and what
cannot be read is counted. Knows the formats; decodes no image.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from capfilt.archive import Group, OnBad, groups, members
from capfilt.errors import CapfiltError, DataError, SourceError, StoreError
from capfilt.inputs import expand, is_folder, open_read
from capfilt.records import CAPTION, META, Caption, Origin, web_caption
from capfilt.shards.marker import committed
from capfilt.shards.sample import Sample
from capfilt.storage import Store

__all__ = ["Sample", "samples", "shards_of"]

_IMAGES = ("jpg", "jpeg", "png", "webp")
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
_SHARDS = (*_TARS, ".parquet")
_TEXT_BYTES = 1 << 20
OWN_TEXT_BYTES = 64 << 20
"""What those take who read a data set that its books vouch for: once, sources bounded no text."""
_BATCH_ROWS = 64
_ORIGINS = frozenset(Origin)
_CAPTIONS = pa.list_(pa.struct([pa.field(field.name, field.type) for field in CAPTION]))
"""Captions that may lack anything: a null is told of its row, where a column that has none fails as a whole."""


def shards_of(entry: str) -> list[str]:
    """The shards that a file, a glob, a folder, or a data set written by ``capfilt bootstrap`` names.

    Of a data set that was written as tars and as tables the tars are taken, so that each sample is there once. While
    parts of it are written anew, and after that was cut off, the shards are those that its parts' markers vouch for.

    Raises:
        SourceError: there is none, or a run has not finished the data set.
    """
    if is_folder(entry) and _made_here(store := Store(entry)):
        found = _of_data_set(store)
        if not found and store.exists("manifest.json"):
            raise SourceError(
                "no picture of this data set was kept",
                where=entry,
                mend="See its report.html: choose a rule with `capfilt refilter`, or a filter that knows them.",
            )
        found = [url for url in found if url.endswith(_TARS)] or found
    else:
        found = [url for url in expand(entry) if url.lower().endswith(_SHARDS)]
    if not found:
        raise SourceError("no shards there", where=entry, mend="Name .tar or .parquet shards, or a folder of them.")
    return found


def _made_here(store: Store) -> bool:
    return store.exists("manifest.json") or (store.exists("recipe.yaml") and store.exists("parts"))


def _of_data_set(store: Store) -> list[str]:
    if not store.exists("manifest.json"):
        raise SourceError(
            "the run that writes it has not finished",
            where=store.url,
            mend="Run the same command again to go on, or name its `shards` folder for what is there.",
        )
    there = {f"shards/{name}" for name in store.names("shards")}
    told = {shard["name"] for shard in store.read_json("manifest.json")["shards"]}
    if there != told:
        # Old files and new ones lie side by side while dedup works, or after it died; or it is a copy of some shards.
        markers = committed(store).values()
        told = {shard.name for marker in markers for shard in marker.shards} if markers else there
    return [store.path(name) for name in sorted(told & there) if name.lower().endswith(_SHARDS)]


def samples(
    urls: Sequence[str],
    *,
    origin: str = Origin.WEB,
    on_bad: OnBad | None = None,
    max_image_bytes: int = 64 << 20,
    max_text_bytes: int = _TEXT_BYTES,
) -> Iterator[Sample]:
    """The samples of shards, in order, in memory of a few samples.

    Args:
        urls: files ending in ``.tar``, ``.tar.gz``, ``.tgz``, ``.tar.zst`` or ``.parquet``; local or fsspec URLs.
        origin: whose captions those of plain (image and text) tars are; nobody rejected them, so they are kept.
        on_bad: told (``url``, ``url#member`` or ``url#key``) and the reason of what is passed over: a bad member, a
            sample without image or text, the rest of a damaged file. None: the first such thing is an error.
        max_image_bytes: a larger image is bad; at least 1.
        max_text_bytes: a larger ``.txt`` or ``.json`` of a tar is bad; at least 1.

    Yields:
        Samples with at least one caption; ``meta`` of our own shards has ``records.META``.

    Raises:
        DataError: something is bad and ``on_bad`` is None, or a file is neither a tar nor Parquet by name.
        SourceError: a file is not there and ``on_bad`` is None.
        StoreError: a store fails; whatever ``on_bad`` is, no shard is passed over for that.
    """
    origin = str(Origin(origin))
    for url in urls:
        name = url.lower()
        if name.endswith(".parquet"):
            read = _parquet(url, on_bad or _refuse, max_image_bytes)
        elif name.endswith(_TARS):
            read = _tar(url, origin, on_bad or _refuse, max_image_bytes, max_text_bytes)
        else:
            raise DataError("a shard is a .tar or .parquet file", where=url, mend="Name shards only.")
        yield from _guarded(url, read, on_bad)


def _guarded(url: str, read: Iterator[Sample], on_bad: OnBad | None) -> Iterator[Sample]:
    try:
        yield from read
    except StoreError:
        raise  # it says nothing of the shard
    except (CapfiltError, OSError, EOFError, UnicodeDecodeError, zlib.error, pa.ArrowException) as error:
        if on_bad is None:
            if isinstance(error, CapfiltError) and error.where:
                raise
            what = error.what if isinstance(error, CapfiltError) else str(error)
            raise DataError(what, where=url, mend="Make this shard again, or leave it out.") from error
        on_bad(url, error.what if isinstance(error, CapfiltError) else str(error))


def _refuse(name: str, reason: str) -> None:
    raise DataError(reason, where=name, mend="Make this shard again, or leave it out.")


def _tar(url: str, origin: str, on_bad: OnBad, max_image_bytes: int, max_text_bytes: int) -> Iterator[Sample]:
    def bad(name: str, reason: str) -> None:
        on_bad(f"{url}#{name}" if name else url, reason)

    limits = {**dict.fromkeys(_IMAGES, max_image_bytes), "txt": max_text_bytes, "json": max_text_bytes}
    with open_read(url, decompress=True) as file:
        for group in groups(members(file, limits, bad), bad):
            sample = _of_group(group, origin)
            if isinstance(sample, str):
                bad(group.key, sample)
            else:
                yield sample


def _of_group(group: Group, origin: str) -> Sample | str:
    image = next((group.members[kind] for kind in _IMAGES if kind in group.members), None)
    if not image:
        return "no image of a known extension"
    meta = _json(group.members["json"]) if "json" in group.members else {}
    if meta is None:
        return "its .json is not a JSON object"
    captions = _captions(meta.get("captions"))
    if captions is not None:
        meta.pop("captions")
    else:
        text = _plain_text(group.members.get("txt"), meta)
        if not text:
            return "no caption: neither .txt nor a caption in .json"
        captions = [{**web_caption(text, origin), "kept": True}]
    return Sample(group.key, image, captions, meta)


def _plain_text(data: bytes | None, meta: Mapping[str, Any]) -> str:
    if data is not None:
        return data.decode("utf-8", "replace").strip()
    caption = meta.get("caption")
    return _sound(caption).strip() if isinstance(caption, str) else ""


def _json(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _captions(value: Any) -> list[Caption] | None:
    """Our own captions if that is what they are; a stranger's field of this name may be anything."""
    if not isinstance(value, list):
        return None
    captions = [_caption(item) for item in value]
    return None if None in captions or not captions else cast("list[Caption]", captions)


def _caption(item: Any) -> Caption | None:
    if not isinstance(item, dict) or not isinstance(item.get("text"), str) or not isinstance(item.get("kept"), bool):
        return None
    if not isinstance(item.get("origin"), str) or item["origin"] not in _ORIGINS:
        return None
    return Caption(
        text=_sound(item["text"]),
        origin=item["origin"],
        itm=_score(item.get("itm")),
        itc=_score(item.get("itc")),
        kept=item["kept"],
    )


def _sound(text: str) -> str:
    # JSON may spell lone surrogates, which no UTF-8 column can hold.
    return text.encode("utf-8", "replace").decode()


def _score(value: Any) -> float | None:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return float(value) if value in (0, 1) else None


def _parquet(url: str, on_bad: OnBad, max_image_bytes: int) -> Iterator[Sample]:
    with open_read(url) as file:
        shard = pq.ParquetFile(file)
        names = shard.schema_arrow.names
        missing = [name for name in ("key", "image", "captions") if names.count(name) != 1]
        if missing:
            raise DataError(f"not a shard: it has no column {', '.join(missing)}, or several of that name", where=url)
        wanted = ["key", "image", "captions", *(name for name in META if names.count(name) == 1)]
        first = 0
        for batch in shard.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            columns = {name: batch.column(name) for name in wanted}
            columns["captions"] = columns["captions"].cast(_CAPTIONS)
            columns["image"] = _image_bytes(columns["image"], url)
            for number, row in enumerate(_plain(pa.table(columns)), first):
                sample = "a text in its row is no UTF-8" if row is None else _of_row(row, max_image_bytes)
                if isinstance(sample, str):
                    on_bad(f"{url}#{f'row {number}' if row is None or row['key'] is None else row['key']}", sample)
                else:
                    yield sample
            first += batch.num_rows


def _plain(table: pa.Table) -> list[dict[str, Any] | None]:
    """The rows as plain values; None for one with a text that is no UTF-8."""
    try:
        rows: list[dict[str, Any] | None] = table.to_pylist()
    except UnicodeDecodeError:
        if table.num_rows == 1:
            return [None]
        return [row for at in range(table.num_rows) for row in _plain(table.slice(at, 1))]
    return rows


def _of_row(row: Mapping[str, Any], max_image_bytes: int) -> Sample | str:
    if row["key"] is None:
        return "it has no key"
    image = row["image"]
    if not image:
        return "no image bytes"
    if len(image) > max_image_bytes:
        return f"{len(image)} bytes of image are more than the {max_image_bytes} allowed"
    captions = _captions(row["captions"])
    if captions is None:
        return "no captions, or one of them has no text, no known origin or no verdict"
    return Sample(str(row["key"]), image, captions, {name: row[name] for name in META if name in row})


def _image_bytes(column: pa.Array, url: str) -> pa.Array:
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError("not a shard: its column image holds no bytes", where=url)
    return column

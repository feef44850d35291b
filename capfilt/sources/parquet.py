"""Parquet files: counted by their metadata, read by row ranges, damage told for the rows it costs.

Knows Parquet and Arrow types; knows no columns by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from capfilt.errors import SourceError
from capfilt.inputs import open_read

_BATCH_ROWS = 8192
_PICTURE_ROWS = 32
"""Rows held at once where they may have pictures of megabytes."""


@dataclass(frozen=True)
class Footer:
    """What a file's end says of it."""

    rows: int
    names: tuple[str, ...]
    """All columns."""
    pictures: tuple[str, ...]
    """Columns that can hold pictures: bytes, or structs of bytes and path."""


def footer(file: str) -> Footer:
    """What the file says of itself; its rows are not read.

    Raises:
        SourceError: it is no Parquet.
    """
    with _opened(file) as table:
        schema = table.schema_arrow
        pictures = tuple(field.name for field in schema if _holds_pictures(field.type))
        return Footer(table.metadata.num_rows, tuple(schema.names), pictures)


def cells(
    file: str, names: Sequence[str], start: int, stop: int, *, pictures: bool = False
) -> Iterator[tuple[Any, ...] | str]:
    """Of rows [start, stop), the cells of the named columns, or a sentence where the file is damaged.

    Text cells are bytes: what is no UTF-8 could not be shown otherwise.

    Args:
        file: the file.
        names: columns, each once.
        start: first row.
        stop: one after the last; beyond the end of the file there are none.
        pictures: whether columns hold pictures, so that few rows are held at once.

    Raises:
        SourceError: it is no Parquet.
    """
    with _opened(file) as table:
        begin = 0
        for group in range(table.metadata.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            first, last = max(start, begin) - begin, min(stop, begin + rows) - begin
            if first < last:
                yield from _group(table, group, names, range(first, last), _PICTURE_ROWS if pictures else _BATCH_ROWS)
            begin += rows


def _group(
    table: pq.ParquetFile, group: int, names: Sequence[str], rows: range, at_once: int
) -> Iterator[tuple[Any, ...] | str]:
    done = 0
    try:
        for found in _batches(table, group, names, rows, at_once):
            yield found
            done += 1
    except (OSError, ValueError, pa.ArrowException) as error:
        # Part of the file is damaged: its rows are counted, and other row groups go on.
        for _ in rows[done:]:
            yield f"The table is damaged there: {error}"[:300]


def _batches(
    table: pq.ParquetFile, group: int, names: Sequence[str], rows: range, at_once: int
) -> Iterator[tuple[Any, ...]]:
    # In batches: a row group of a million rows is usual, and a part needs a thousand of them.
    at = 0
    for batch in table.iter_batches(at_once, row_groups=[group], columns=list(names)):
        wanted = batch.slice(max(0, rows.start - at), max(0, min(rows.stop, at + batch.num_rows) - max(rows.start, at)))
        yield from zip(*(_values(wanted.column(name)) for name in names), strict=True)
        at += batch.num_rows
        if at >= rows.stop:
            return
    raise ValueError(f"{at} rows are there")


@contextmanager
def _opened(file: str) -> Iterator[pq.ParquetFile]:
    with open_read(file) as stream:
        try:
            table = pq.ParquetFile(stream)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(
                f"it is not readable as Parquet: {error}",
                where=file,
                mend="Give the file its right extension, or make it again.",
            ) from error
        yield table


def _values(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    # As bytes first: a string column with bytes that are no UTF-8 cannot be turned into Python strings.
    if _is_text(kind):
        column = column.cast(pa.large_binary())
    elif (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type):
        column = column.cast(pa.large_list(pa.large_binary()))
    return list(column.to_pylist())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)

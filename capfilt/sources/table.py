"""Tables of picture addresses and texts: Parquet, CSV, TSV and JSON lines, also compressed; one file or many.

Planning reads metadata (Parquet) or streams once over the records (text). Knows tables; fetches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from capfilt.errors import SourceError
from capfilt.inputs import expand, open_read
from capfilt.records import table_of
from capfilt.sources import lines
from capfilt.sources.base import (
    Counted,
    Mark,
    SourceConfig,
    changed,
    described,
    identities,
    row_of,
    unreadable,
)
from capfilt.sources.columns import find_columns, text_of
from capfilt.sources.lines import TextKind, TextRecord
from capfilt.sources.parts import Part, Parts, cut

_KINDS = {"parquet": "parquet", "csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "ndjson": "jsonl"}
_BATCH_ROWS = 8192
_PACKED = {".gz", ".zst"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def table_kind(file: str) -> str | None:
    """``parquet``, ``csv``, ``tsv`` or ``jsonl`` by the file's name; None for any other."""
    name = PurePosixPath(file.lower())
    packed = name.suffix in _PACKED
    kind = _KINDS.get(PurePosixPath(name.stem if packed else name.name).suffix.removeprefix("."))
    return None if packed and kind == "parquet" else kind


@dataclass(frozen=True)
class TableSource:
    """Rows of tables, without pictures: those are fetched."""

    config: SourceConfig

    @property
    def has_bytes(self) -> bool:
        """Never: addresses only."""
        return False

    @property
    def origin(self) -> str:
        """Whose captions they are."""
        return self.config.origin

    def parts(self, part_rows: int) -> Parts:
        """The plan, as :class:`capfilt.sources.base.Source` has it.

        Raises:
            SourceError: no table is there, one is damaged or lacks a column, or there are no rows.
        """
        if not sum(item.rows for item in self._counted):
            raise SourceError("the table has no rows", where=self.config.path, mend="Give a table with rows in it.")
        return cut(((item.file, item.rows, self._digests[item.file]) for item in self._counted), part_rows)

    def read(self, part: Part) -> pa.Table:
        """The part's rows, numbered as they stand in the file.

        Raises:
            SourceError: the file is gone or has fewer rows than planned.
        """
        kind = table_kind(part.file)
        read = self._parquet_rows(part) if kind == "parquet" else self._text_rows(part, cast("TextKind", kind))
        rows = list(read)
        if len(rows) != part.stop - part.start:
            raise changed(part)
        return table_of(rows)

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        first = self._files[0]
        names = _columns(first)
        url, caption = find_columns(names, self.config, first)
        used = {"url": url, "caption": caption}
        return described(
            "table", self._counted, self._digests, path=self.config.path, columns=names, used=used, origin=self.origin
        )

    @cached_property
    def _files(self) -> list[str]:
        found = expand(self.config.path)
        tables = [file for file in found if table_kind(file)]
        if not tables:
            raise SourceError(
                "it is no table by its name",
                where=found[0] if len(found) == 1 else self.config.path,
                mend="Tables end in .parquet, .csv, .tsv or .jsonl (the last three also with .gz or .zst).",
            )
        return tables

    @cached_property
    def _counted(self) -> list[Counted]:
        for file in self._files:
            find_columns(_columns(file), self.config, file)
        return [_count(file) for file in self._files]

    @cached_property
    def _digests(self) -> dict[str, str]:
        return identities(self._files)

    def _text_rows(self, part: Part, kind: TextKind) -> Iterator[dict[str, Any]]:
        url, caption = find_columns(lines.columns(part.file, kind), self.config, part.file)
        mark = self._mark(part)
        records = lines.records(part.file, kind, mark, skip=part.start - (mark.row if mark else 0))
        for row, record in enumerate(islice(records, part.stop - part.start), part.start):
            yield self._row(part, row, record, url, caption)

    def _mark(self, part: Part) -> Mark | None:
        # Only where the plan was made is it known where rows lie; it travels with the pickled source.
        counted = self.__dict__.get("_counted", [])
        marks = next((item.marks for item in counted if item.file == part.file), ())
        return max((mark for mark in marks if mark.row <= part.start), default=None)

    def _row(self, part: Part, row: int, record: TextRecord, url: str, caption: str | None) -> dict[str, Any]:
        if record.fields is None:
            return unreadable(part, row, where=record.raw, text="", detail=record.problem)
        return self._cells(part, row, record.fields.get(url), record.fields.get(caption) if caption else None)

    def _parquet_rows(self, part: Part) -> Iterator[dict[str, Any]]:
        with open_read(part.file) as stream:
            table = _parquet(stream, part.file)
            url, caption = find_columns(table.schema_arrow.names, self.config, part.file)
            names = [url, caption] if caption else [url]
            start = 0
            for group in range(table.metadata.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                first, last = max(part.start, start), min(part.stop, start + rows)
                if first < last:
                    cells = _group_cells(table, group, names, first - start, last - start)
                    yield from self._group_rows(part, range(first, last), cells)
                start += rows

    def _group_rows(self, part: Part, rows: range, cells: Iterator[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
        done = 0
        try:
            for row, (url, *caption) in zip(rows, cells, strict=True):
                yield self._cells(part, row, url, caption[0] if caption else None)
                done += 1
        except (OSError, ValueError, pa.ArrowException) as error:
            # Part of the file is damaged: its rows are counted, and other row groups go on.
            detail = f"The table is damaged there: {error}"[:300]
            for row in rows[done:]:
                yield unreadable(part, row, where=f"{part.digest}:{row}", text="", detail=detail)

    def _cells(self, part: Part, row: int, url: Any, caption: Any) -> dict[str, Any]:
        address, text = text_of(url), text_of(caption)
        if address is None or text is None:
            what = "picture address" if address is None else "caption"
            return unreadable(part, row, where=str(url), text=str(caption), detail=f"The {what} is not a text.")
        address = address.strip()
        told = row_of(part, row, url=address or None, text=text if text.strip() else "", origin=self.origin)
        # The id is of the address as the table has it: the same rows may be served from elsewhere.
        if address and self.config.url_base and not _SCHEME.match(address):
            told["url"] = self.config.url_base + address
        return told


def _count(file: str) -> Counted:
    kind = table_kind(file)
    if kind != "parquet":
        return lines.count(file, cast("TextKind", kind))
    with open_read(file) as stream:
        return Counted(file, _parquet(stream, file).metadata.num_rows)


def _columns(file: str) -> list[str]:
    kind = table_kind(file)
    if kind != "parquet":
        return lines.columns(file, cast("TextKind", kind))
    with open_read(file) as stream:
        return list(_parquet(stream, file).schema_arrow.names)


def _parquet(stream: Any, file: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(
            f"it is not readable as Parquet: {error}",
            where=file,
            mend="Give the file its right extension, or make it again.",
        ) from error


def _group_cells(
    table: pq.ParquetFile, group: int, names: list[str], first: int, last: int
) -> Iterator[tuple[Any, ...]]:
    """The cells of rows [first, last) of a row group."""
    # In batches: a row group of a million rows is usual, and a part needs a thousand of them.
    at = 0
    for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names):
        wanted = batch.slice(max(0, first - at), max(0, min(last, at + batch.num_rows) - max(first, at)))
        yield from zip(*(_values(wanted.column(name)) for name in names), strict=True)
        at += batch.num_rows
        if at >= last:
            return


def _values(column: pa.Array) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    # As bytes first: a string column with bytes that are no UTF-8 cannot be turned into Python strings.
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = column.cast(pa.large_binary())
    return list(column.to_pylist())

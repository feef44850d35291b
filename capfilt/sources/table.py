"""Tables of picture addresses (or of pictures) and texts: Parquet, CSV, TSV, JSON lines and JSON documents; text also
compressed; one file or many.

Planning reads metadata (Parquet) or streams once over the records (text). Knows tables; fetches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Literal, cast

import pyarrow as pa

from capfilt.errors import SourceError
from capfilt.inputs import expand
from capfilt.records import Drop, table_of
from capfilt.sources import documents, lines, parquet
from capfilt.sources.base import (
    Counted,
    Mark,
    SourceConfig,
    changed,
    described,
    identities,
    of_each,
    planned,
    row_of,
    unreadable,
)
from capfilt.sources.columns import Columns, find_columns, key_of, text_of, texts_of
from capfilt.sources.lines import TextRecord
from capfilt.sources.parts import Part, Parts

TableKind = Literal["parquet", "csv", "tsv", "jsonl", "json"]

_KINDS: dict[str, TableKind] = {
    "parquet": "parquet",
    "csv": "csv",
    "tsv": "tsv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "json": "json",
}
_PACKED = {".gz", ".zst"}
_WHOLE: tuple[TableKind, ...] = ("parquet", "json")
"""Kinds that are read at places of their choice, which packed files do not have."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_IMAGE_BYTES = 64 << 20


def table_kind(file: str) -> TableKind | None:
    """What a table's name says; None for any other. A ``.json`` may hold something else."""
    name = PurePosixPath(file.lower())
    packed = name.suffix in _PACKED
    kind = _KINDS.get(PurePosixPath(name.stem if packed else name.name).suffix.removeprefix("."))
    return None if packed and kind in _WHOLE else kind


@dataclass(frozen=True)
class TableSource:
    """Rows of tables; pictures are fetched, unless a column of Parquet holds them."""

    config: SourceConfig

    @property
    def has_bytes(self) -> bool:
        """Whether the first file has a column of pictures."""
        return self.columns(self.files[0]).image is not None

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
        return planned(self._counted, self._digests, part_rows)

    def read(self, part: Part) -> pa.Table:
        """The part's rows, numbered as they stand in the file.

        Raises:
            SourceError: the file is gone or has fewer rows than planned.
        """
        rows = list(self._parquet_rows(part) if table_kind(part.file) == "parquet" else self._text_rows(part))
        if len(rows) != part.stop - part.start:
            raise changed(part)
        return table_of(rows)

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        first = self.files[0]
        names, used = column_names(first), self.columns(first).used
        return described(
            "table", self._counted, self._digests, path=self.config.path, columns=names, used=used, origin=self.origin
        )

    def columns(self, file: str) -> Columns:
        """What the columns of one of its files are used for.

        Raises:
            SourceError: one that is needed is not there.
        """
        if table_kind(file) == "parquet":
            footer = parquet.footer(file)
            return find_columns(footer.names, self.config, file, footer.pictures)
        return find_columns(column_names(file), self.config, file)

    @cached_property
    def files(self) -> list[str]:
        """The tables, sorted; JSON documents only where there are no others, as they may belong to anything.

        Raises:
            SourceError: none is there.
        """
        found = expand(self.config.path)
        tables = [file for file in found if table_kind(file)]
        if not tables:
            raise SourceError(
                "it is no table by its name",
                where=found[0] if len(found) == 1 else self.config.path,
                mend="Tables end in .parquet, .csv, .tsv, .jsonl (the last three also with .gz or .zst) or .json.",
            )
        return [file for file in tables if table_kind(file) != "json"] or tables

    @cached_property
    def _counted(self) -> list[Counted]:
        for file in self.files:
            if table_kind(file) != "parquet":
                self.columns(file)
        return of_each(self._count, self.files)

    def _count(self, file: str) -> Counted:
        kind = table_kind(file)
        if kind == "parquet":
            footer = parquet.footer(file)
            find_columns(footer.names, self.config, file, footer.pictures)
            return Counted(file, footer.rows)
        return documents.count(file) if kind == "json" else lines.count(file, cast("lines.TextKind", kind))

    @cached_property
    def _digests(self) -> dict[str, str]:
        return identities(self.files)

    def _text_rows(self, part: Part) -> Iterator[dict[str, Any]]:
        used, mark, kind = self.columns(part.file), self._mark(part), table_kind(part.file)
        skip = part.start - (mark.row if mark else 0)
        if kind == "json":
            records = documents.records(part.file, mark, skip)
        else:
            records = lines.records(part.file, cast("lines.TextKind", kind), mark, skip)
        for row, record in enumerate(islice(records, part.stop - part.start), part.start):
            yield self._text_row(part, row, record, used)

    def _mark(self, part: Part) -> Mark | None:
        # Only where the plan was made is it known where rows lie; it travels with the pickled source.
        counted = self.__dict__.get("_counted", [])
        marks = next((item.marks for item in counted if item.file == part.file), ())
        return max((mark for mark in marks if mark.row <= part.start), default=None)

    def _text_row(self, part: Part, row: int, record: TextRecord, used: Columns) -> dict[str, Any]:
        if record.fields is None:
            return unreadable(part, row, where=record.raw, text="", detail=record.problem)
        return self._row(part, row, {role: record.fields.get(name) for role, name in used.used.items()})

    def _parquet_rows(self, part: Part) -> Iterator[dict[str, Any]]:
        used = self.columns(part.file).used
        names = list(dict.fromkeys(used.values()))
        found = parquet.cells(part.file, names, part.start, part.stop, pictures="image" in used)
        for row, cells in enumerate(found, part.start):
            if isinstance(cells, str):
                yield unreadable(part, row, where=f"{part.digest}:{row}", text="", detail=cells)
            else:
                values = dict(zip(names, cells, strict=True))
                yield self._row(part, row, {role: values[name] for role, name in used.items()})

    def _row(self, part: Part, row: int, cells: dict[str, Any]) -> dict[str, Any]:
        address, texts, key = text_of(cells.get("url")), texts_of(cells.get("caption")), key_of(cells.get("key"))
        image, path = _picture(cells.get("image"))
        if address is None or texts is None:
            what = "picture address" if address is None else "caption"
            where, text = str(cells.get("url")), str(cells.get("caption"))
            return unreadable(part, row, where=where, text=text, detail=f"The {what} is not a text.", key=key)
        address = address.strip() or path or (f"{text_of(PurePosixPath(part.file).name)}:{row}" if image else "")
        told = row_of(part, row, url=address or None, texts=texts, origin=self.origin, key=key, image=image)
        if told.get("drop"):
            return told
        if image is not None:
            return told if len(image) <= _IMAGE_BYTES else told | _too_large(image)
        # The id is of the address as the table has it: the same rows may be served from elsewhere.
        if address and self.config.url_base and not _SCHEME.match(address):
            told["url"] = self.config.url_base + address
        elif path and address == path and not _SCHEME.match(path):
            detail = f"The picture's bytes are not in the table, only its path {path[:200]!r}."
            return told | {"drop": str(Drop.UNREADABLE_ROW), "detail": detail}
        return told


def column_names(file: str) -> list[str]:
    """The columns of a table.

    Raises:
        SourceError: it is not what its name says.
    """
    kind = table_kind(file)
    if kind == "parquet":
        return list(parquet.footer(file).names)
    return documents.columns(file) if kind == "json" else lines.columns(file, cast("lines.TextKind", kind))


def _picture(cell: Any) -> tuple[bytes | None, str]:
    """(bytes, path) of a cell of pictures: bytes alone, or a struct of both as Hugging Face has them."""
    if isinstance(cell, dict):
        return cell.get("bytes") or None, text_of(cell.get("path")) or ""
    return (cell or None) if isinstance(cell, bytes) else None, ""


def _too_large(image: bytes) -> dict[str, Any]:
    detail = f"The picture has {len(image):,} bytes; at most {_IMAGE_BYTES:,} are read."
    return {"image": None, "drop": str(Drop.TOO_LARGE), "detail": detail}

"""Text tables (CSV, TSV, JSON lines) as records with their places, streamed in constant memory.

A record is what the format says: a CSV field in quotes may hold line breaks. What cannot be read is a record too,
with the reason, so that nothing shifts the numbers of others. A first record that holds a web address is no header
(CC3M, CC12M): its columns are told by their content. Knows bytes, lines and fields.
"""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, BinaryIO, Literal

from capfilt.errors import SourceError
from capfilt.inputs import open_read
from capfilt.sources.base import Counted, Mark

TextKind = Literal["csv", "tsv", "jsonl"]

_MARK_BYTES = 4 << 20
"""A mark each so many bytes: few enough to keep, near enough to parse from."""
_LINE_BYTES = 1 << 20
_COUNT_BYTES = 4 << 20
_SAMPLE_RECORDS = 64
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_ADDRESS = re.compile(r"\s*https?://", re.IGNORECASE)
_BOM = "\ufeff"
_DELIMITER = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class _Layout:
    """How a text table is written."""

    kind: TextKind
    names: tuple[str, ...] = ()
    """Of the columns; none for JSON lines."""
    headed: bool = False
    """Whether the first record names them."""
    quoted: bool = True
    """Whether quotes bind: in tables without a header, tabs part and quotes are text, as in CC3M and CC12M."""


@dataclass(frozen=True)
class TextRecord:
    """One record: its fields, or what is wrong with it."""

    raw: str
    """Its text as it stands in the file, cut at 1 MiB a line."""
    fields: dict[str, Any] | None
    """From column to value; None if it could not be read."""
    problem: str = ""
    """A sentence; empty if it could be read."""


def columns(file: str, kind: TextKind) -> list[str]:
    """The columns of a text table: the header of CSV and TSV, the keys of the first JSON objects.

    Without a header, the column of addresses is ``url``, that of the longest texts ``caption``, another ``column_N``.

    Raises:
        SourceError: it is empty, binary, UTF-16, or not of this kind.
    """
    with _opened(file) as stream:
        _check_text(stream, file)
    if kind != "jsonl":
        return list(_layout(file, kind).names)
    seen: dict[str, None] = {}
    for record in islice(records(file, kind), _SAMPLE_RECORDS):
        seen.update(dict.fromkeys(record.fields or ()))
    if not seen:
        raise SourceError(
            "it has no JSON objects in its first lines", where=file, mend="JSON lines have one object on each line."
        )
    return list(seen)


def headed(file: str, kind: TextKind) -> bool:
    """Whether the first record names the columns; of JSON lines, each does.

    Raises:
        SourceError: as :func:`columns`.
    """
    return kind == "jsonl" or _layout(file, kind).headed


def count(file: str, kind: TextKind) -> Counted:
    """How many records there are, and marks to begin reading at; one streaming pass.

    Raises:
        SourceError: it is compressed and damaged, or has no header.
    """
    layout = _layout(file, kind)
    with _opened(file) as stream:
        # Where no quote binds, a record is a line, and lines are counted faster than they are parsed.
        if kind == "jsonl" or not layout.quoted:
            return Counted(file, *_count_lines(stream, kind))
        return Counted(file, *_count_records(_Lines(stream), layout, file))


def records(file: str, kind: TextKind, mark: Mark | None = None, skip: int = 0) -> Iterator[TextRecord]:
    """The records to the end, in order, from the one ``skip`` after a mark (or after the beginning).

    Raises:
        SourceError: as :func:`count`.
    """
    layout = _layout(file, kind)
    with _opened(file) as stream:
        lines = _Lines(stream)
        if layout.headed:
            _first(lines, layout, file)
        if mark is not None:
            lines.move_to(mark.offset)
        for _, raw, fields, problem in islice(_raw(lines, layout), skip, None):
            if problem:
                yield TextRecord(raw, None, problem)
            else:
                yield _json_record(raw) if kind == "jsonl" else _csv_record(raw, fields, layout)


def _count_records(lines: _Lines, layout: _Layout, file: str) -> tuple[int, tuple[Mark, ...]]:
    rows, due, marks = 0, 0, []
    if layout.headed:
        _first(lines, layout, file)
    for offset, _, _, _ in _raw(lines, layout):
        if offset >= due:
            marks.append(Mark(rows, offset))
            due = offset + _MARK_BYTES
        rows += 1
    return rows, tuple(marks)


def _count_lines(stream: BinaryIO, kind: TextKind) -> tuple[int, tuple[Mark, ...]]:
    """As :func:`_count_records`, where each line that is not blank is a record; in blocks of whole lines."""
    rows, due, marks, offset, tail, passing = 0, 0, [], 0, b"", False
    while data := stream.read(_COUNT_BYTES):
        block = tail + data
        if passing:
            end = data.find(b"\n") + 1
            block, passing = data[end:], not end
            offset += end or len(data)
        whole = 0 if passing else block.rfind(b"\n") + 1
        if whole and offset >= due:
            marks.append(Mark(rows, offset))
            due = offset + _MARK_BYTES
        rows += _records_in(block[:whole], kind, first=not offset)
        offset, tail = offset + whole, b"" if passing else block[whole:]
        if len(tail) > _LINE_BYTES:
            # One line may be the whole of a hostile file: it is one record, and the rest of it is passed over.
            rows, offset, tail, passing = rows + 1, offset + len(tail), b"", True
    return rows + _records_in(tail, kind, first=not offset), tuple(marks)


def _records_in(block: bytes, kind: TextKind, *, first: bool) -> int:
    """How many lines of a block are records, that is not blank. The last may lack its end."""
    lines = block.count(b"\n") + (block[-1:] not in (b"", b"\n"))
    if kind == "jsonl" and block.count(b"\n{") + block.startswith(b"{") == lines:
        return lines
    if kind != "jsonl" and not block.startswith((b"\n", b"\r")) and b"\n\n" not in block and b"\n\r" not in block:
        return lines
    each = _LINE.findall(block)
    # The byte order mark is no part of the first line.
    return sum(len(line) > _LINE_BYTES or _has_text(line, kind, first=first and not at) for at, line in enumerate(each))


def _has_text(line: bytes, kind: TextKind, *, first: bool) -> bool:
    text = line.decode("utf-8", "replace").removeprefix(_BOM if first else "")
    return bool(text.strip() if kind == "jsonl" else text.strip("\r\n"))


class _Lines:
    """Decoded lines of a stream, with the place reached and the text since :meth:`begin`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.offset, self.taken, self.overlong = stream, 0, "", False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(_LINE_BYTES)
        if not raw:
            raise StopIteration
        first, length = self.offset == 0, len(raw)
        # One line may be the whole of a hostile file: what is too long is passed over, not held.
        while len(raw) == _LINE_BYTES and not raw.endswith(b"\n") and (more := self._stream.readline(_LINE_BYTES)):
            self.overlong = True
            length += len(more)
            if more.endswith(b"\n"):
                break
        self.offset += length
        text = raw.decode("utf-8", "replace")
        text = text.removeprefix(_BOM) if first else text
        self.taken = text if not self.taken else self.taken + text
        return text

    def begin(self) -> int:
        """Starts a record; returns its offset."""
        self.taken, self.overlong = "", False
        return self.offset

    def move_to(self, offset: int) -> None:
        """Goes on at a later offset."""
        if self._stream.seekable():
            self._stream.seek(offset)
        else:
            while (left := offset - self.offset) > 0 and (data := self._stream.read(min(left, _LINE_BYTES))):
                self.offset += len(data)
        self.offset = offset


def _raw(lines: _Lines, layout: _Layout) -> Iterator[tuple[int, str, list[str], str]]:
    """(offset, text, CSV fields, problem) of each record; blank lines are none."""
    # The reader asks for no line beyond the record it returns, so the place after it is the next one's.
    reader: Iterator[str | list[str]]
    if layout.kind == "jsonl":
        reader = lines
    else:
        delimiter = _DELIMITER[layout.kind]
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE)
    while True:
        offset, problem = lines.begin(), ""
        fields: list[str] = []
        try:
            found = next(reader)
            fields = ([found] if found.strip() else []) if isinstance(found, str) else list(found)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"The row cannot be read as CSV: {error}."
        if lines.overlong:
            problem = f"The row has a line of over {_LINE_BYTES:,} bytes."
        if problem or fields:
            yield offset, lines.taken, fields, problem


def _csv_record(raw: str, fields: Sequence[str], layout: _Layout) -> TextRecord:
    if len(fields) != len(layout.names):
        expected = f"the header {len(layout.names)}" if layout.headed else f"the first {len(layout.names)}"
        return TextRecord(raw, None, f"The row has {len(fields)} fields, {expected}.")
    return TextRecord(raw, dict(zip(layout.names, fields, strict=True)))


def _json_record(raw: str) -> TextRecord:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return TextRecord(raw, None, "The line is not JSON.")
    if not isinstance(value, dict):
        return TextRecord(raw, None, "The line is JSON, but not an object.")
    return TextRecord(raw, value)


def _layout(file: str, kind: TextKind) -> _Layout:
    if kind == "jsonl":
        return _Layout(kind)
    plain = _Layout(kind, quoted=kind == "csv")
    with _opened(file) as stream:
        if not any(map(_ADDRESS.match, _first(_Lines(stream), plain, file))):
            with _opened(file) as again:
                header = _first(_Lines(again), _Layout(kind), file)
            return _Layout(kind, tuple(name.strip() for name in header), headed=True)
    with _opened(file) as stream:
        first = islice(_raw(_Lines(stream), plain), _SAMPLE_RECORDS)
        names = _told_names([fields for _, _, fields, problem in first if not problem])
    return replace(plain, names=names)


def _told_names(sample: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Names of the columns of a table without a header, by what is in them."""
    width = len(sample[0])
    cells = [[row[at] for row in sample if len(row) == width] for at in range(width)]
    names = [f"column_{at + 1}" for at in range(width)]
    url = max(range(width), key=lambda at: sum(map(bool, map(_ADDRESS.match, cells[at]))))
    others = [at for at in range(width) if at != url]
    if others:
        names[max(others, key=lambda at: sum(map(_wordy, cells[at])))] = "caption"
    names[url] = "url"
    return tuple(names)


def _wordy(cell: str) -> int:
    """How much of a cell is words: an address or a number is none."""
    return 0 if _ADDRESS.match(cell) else sum(map(str.isalpha, cell))


def _first(lines: _Lines, layout: _Layout, file: str) -> list[str]:
    """The fields of the first record."""
    for _, _, fields, problem in _raw(lines, layout):
        if problem:
            break
        return fields
    raise SourceError(
        "it has no readable header line",
        where=file,
        mend="Its first line must name the columns; lines end with LF or CRLF.",
    )


def _check_text(stream: BinaryIO, file: str) -> None:
    head = stream.read(4096)
    if not head:
        raise SourceError("the file is empty", where=file, mend="Give a table with rows in it.")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError("it is UTF-16 text", where=file, mend="Save it as UTF-8.")
    if b"\0" in head:
        raise SourceError(
            "it holds binary data, not the text its name says", where=file, mend="Give the file its right extension."
        )


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    try:
        with open_read(file, decompress=True) as stream:
            yield stream
    except (EOFError, OSError, zlib.error) as error:
        raise SourceError(
            f"it is damaged or cut short: {error}", where=file, mend="Fetch or make the file again, or leave it out."
        ) from error

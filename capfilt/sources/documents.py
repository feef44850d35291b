"""JSON documents (.json) as tables: a list of objects (BLIP), such a list beside other things (RedCaps), lists side by
side (SBU).

Read element by element with their places, in constant memory. A .json of JSON lines is read as those are. Knows JSON;
knows no columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, islice
from typing import Any, BinaryIO, Literal

from capfilt.errors import SourceError
from capfilt.inputs import identity, open_read
from capfilt.sources import lines
from capfilt.sources.base import Counted, Mark
from capfilt.sources.lines import TextRecord

Shape = Literal["lines", "rows", "lists", "annotations"]

_CHUNK = 1 << 20
_VALUE_BYTES = 64 << 20
"""Most that one value may take, its members counted: what is longer is no row."""
_MARK_BYTES = 4 << 20
_SAMPLE_RECORDS = 64
_SPACE = re.compile(r"[\s,]*")
_AFTER = frozenset(" \t\r\n,:]}")
_LONGEST_NUMBER = 64
"""Bytes after which no more digits are waited for."""
_MARK = "\xef\xbb\xbf"
"""A byte order mark in UTF-8, as Latin-1."""
_ROWS = ("annotations", "data", "rows")
_PICTURES = ("image", "filename", "file_name", "regions", "sentences")
"""Keys of an annotated picture that is no row of addresses."""


@dataclass(frozen=True)
class Layout:
    """How a document is made."""

    shape: Shape
    names: tuple[str, ...] = ()
    """Its columns."""
    starts: tuple[int, ...] = ()
    """Offsets just inside the list of ``rows``, or inside each of the ``lists``."""
    within: bool = False
    """Whether the list of ``rows`` is a member of an object."""


class Scanner:
    """A JSON document read forward, value by value; several may read one stream."""

    def __init__(self, stream: BinaryIO, file: str, offset: int = 0) -> None:
        # Latin-1 has one character a byte, and JSON's own characters are ASCII: places in the text are places in the
        # file. The text of a value is decoded when it is wanted.
        self._stream, self._file, self._text, self._at, self._base = stream, file, "", 0, offset
        self._decoder = json.JSONDecoder(strict=False)

    @property
    def offset(self) -> int:
        """Bytes from the beginning of the file."""
        return self._base + self._at

    def peek(self) -> str:
        """The next character that is neither white space nor a comma; empty at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, wanted: str) -> None:
        """Passes over one character.

        Raises:
            SourceError: another one is there.
        """
        if self.peek() != wanted:
            raise self._damaged(f"{wanted!r} is missing")
        self._at += 1

    def value(self) -> tuple[int, str, Any]:
        """(offset, text as Latin-1, value as Latin-1) of the next value.

        Raises:
            SourceError: it is no JSON, or longer than 64 MiB.
        """
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise self._damaged("it is nested too deeply") from error
            except ValueError as error:
                if len(self._text) - self._at > _VALUE_BYTES or not self._more():
                    raise self._damaged(str(error)) from error
                continue
            after, length = self._text[end : end + 1], end - self._at
            # What ends where reading stopped, or in the middle of a number, may go on.
            if after not in _AFTER and len(self._text) - end < _LONGEST_NUMBER and self._more():
                continue
            if after and after not in _AFTER:
                raise self._damaged(f"after a value there is {after!r}")
            offset, text = self.offset, self._text[self._at : self._at + length]  # _more moves what is left of it
            self._at += length
            return offset, text, value

    def elements(self) -> Iterator[tuple[int, str, Any]]:
        """The values of the list that is next or, right inside one, those that are left.

        Raises:
            SourceError: as :meth:`value`.
        """
        while self.peek() != "]":
            yield self.value()
        self.take("]")

    def members(self) -> Iterator[str]:
        """The keys of the object that is next; who takes one must take or skip its value.

        Raises:
            SourceError: as :meth:`value`.
        """
        self.take("{")
        while self.peek() != "}":
            _, text, _ = self.value()
            self.take(":")
            yield str(meant(text))
        self.take("}")

    def end(self, *, within: bool = False) -> None:
        """Passes over what is left of the object that a list was in, if it was, to the end of the file.

        Raises:
            SourceError: something comes after it, which would be lost.
        """
        if within:
            while self.peek() == '"':
                self.value()
                self.take(":")
                self.skip()
            self.take("}")
        if self.peek():
            raise SourceError(
                f"a second document begins at byte {self.offset:,}",
                where=self._file,
                mend="Write each into a file of its own.",
            )

    def skip(self) -> None:
        """Passes over a value, a list element by element."""
        if self.peek() == "[":
            self.take("[")
            for _ in self.elements():
                pass
        else:
            self.value()

    def _more(self) -> bool:
        self._stream.seek(self._base + len(self._text))
        data = self._stream.read(max(_CHUNK, len(self._text) - self._at))
        self._base, self._text, self._at = self.offset, self._text[self._at :] + data.decode("latin-1"), 0
        if not self._base and self._text.startswith(_MARK):
            self._at = len(_MARK)
        return bool(data)

    def _damaged(self, why: str) -> SourceError:
        return SourceError(
            f"it is not readable as JSON at byte {self.offset:,}: {why}"[:300],
            where=self._file,
            mend="Fetch or make the file again.",
        )


def meant(text: str) -> Any:
    """The value of a text that :class:`Scanner` gave."""
    return json.loads(_utf8(text), strict=False)


def _utf8(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


def layout(file: str) -> Layout:
    """How a document is made, from its beginning or, of lists side by side, from all of it.

    Raises:
        SourceError: it is no JSON, or nothing known.
    """
    # Lists are found by reading them: once in a process for each content.
    return _layout(file, identity(file))


def columns(file: str) -> list[str]:
    """The columns of a document that is a table.

    Raises:
        SourceError: it is none.
    """
    found = _table(file)
    return lines.columns(file, "jsonl") if found.shape == "lines" else list(found.names)


def count(file: str) -> Counted:
    """How many rows there are, and marks to begin reading at; one streaming pass.

    Raises:
        SourceError: it is damaged, or its lists are of unequal lengths.
    """
    found = _table(file)
    if found.shape == "lines":
        return lines.count(file, "jsonl")
    if found.shape == "lists":
        return Counted(file, _lists_length(file, found))
    rows, due, marks = 0, 0, []
    with open_read(file) as stream:
        scanner = Scanner(stream, file, found.starts[0])
        for offset, _, _ in scanner.elements():
            if offset >= due:
                marks.append(Mark(rows, offset))
                due = offset + _MARK_BYTES
            rows += 1
        scanner.end(within=found.within)
    return Counted(file, rows, tuple(marks))


def records(file: str, mark: Mark | None = None, skip: int = 0) -> Iterator[TextRecord]:
    """The rows to the end, in order, from the one ``skip`` after a mark (or after the beginning).

    Raises:
        SourceError: as :func:`count`.
    """
    found = _table(file)
    if found.shape == "lines":
        yield from lines.records(file, "jsonl", mark, skip)
    elif found.shape == "lists":
        yield from islice(_list_records(file, found), skip, None)
    else:
        with open_read(file) as stream:
            scanner = Scanner(stream, file, mark.offset if mark else found.starts[0])
            for _, text, _ in islice(scanner.elements(), skip, None):
                yield _record(text)


def _record(text: str) -> TextRecord:
    value = meant(text)
    if not isinstance(value, dict):
        return TextRecord(_utf8(text), None, "The element is not an object.")
    return TextRecord(_utf8(text), value)


def _table(file: str) -> Layout:
    found = layout(file)
    if found.shape == "annotations":
        raise SourceError(
            "it holds annotations of pictures, not a table of addresses",
            where=file,
            mend="Set source.kind to annotations.",
        )
    return found


@lru_cache(maxsize=64)
def _layout(file: str, content: str) -> Layout:
    del content  # only tells one file from what another was at its place
    with open_read(file) as stream:
        scanner = Scanner(stream, file)
        if scanner.peek() == "[":
            scanner.take("[")
            return _of_list(scanner)
        if scanner.peek() != "{":
            raise _unknown(file)
        found = _of_object(scanner) or _of_lines(file)
    if found is None:
        raise _unknown(file)
    return found


def _of_list(scanner: Scanner) -> Layout:
    start = scanner.offset
    sample = [meant(text) for _, text, _ in islice(scanner.elements(), _SAMPLE_RECORDS)]
    objects = [item for item in sample if isinstance(item, dict)]
    names = tuple(dict.fromkeys(chain.from_iterable(objects)))
    if any(name in names for name in _PICTURES) and "url" not in names:
        return Layout("annotations")
    return Layout("rows", names, (start,))


def _of_object(scanner: Scanner) -> Layout | None:
    """How the object is made that is next; None of the first of JSON lines, or of an unknown one."""
    lists: dict[str, int] = {}
    row = False
    for key in scanner.members():
        if scanner.peek() != "[":
            row = row or key == "url"
            scanner.skip()
            continue
        scanner.take("[")
        start = scanner.offset
        if scanner.peek() == "{":
            if key == "images":
                return Layout("annotations")
            if key in _ROWS:
                found = _of_list(scanner)
                return replace(found, within=True) if "url" in found.names else Layout("annotations")
        elif scanner.peek() != "]":
            lists[key] = start
        for _ in scanner.elements():
            pass
    if row or len(lists) < 2 or scanner.peek() == "{":
        return None
    scanner.end()
    return Layout("lists", tuple(lists), tuple(lists.values()))


def _of_lines(file: str) -> Layout | None:
    first = next(lines.records(file, "jsonl"), None)
    return Layout("lines") if first is not None and first.fields is not None else None


def _list_records(file: str, found: Layout) -> Iterator[TextRecord]:
    with open_read(file) as stream:
        scanners = [Scanner(stream, file, start) for start in found.starts]
        columns = [(meant(text) for _, text, _ in scanner.elements()) for scanner in scanners]
        for cells in zip(*columns, strict=False):
            fields = dict(zip(found.names, cells, strict=True))
            yield TextRecord(json.dumps(fields), fields)


def _lists_length(file: str, found: Layout) -> int:
    lengths = []
    for start in found.starts:
        with open_read(file) as stream:
            lengths.append(sum(1 for _ in Scanner(stream, file, start).elements()))
    if len(set(lengths)) > 1:
        told = ", ".join(f"{name} {length:,}" for name, length in zip(found.names, lengths, strict=True))
        raise SourceError(
            f"its lists are of unequal lengths: {told}",
            where=file,
            mend="Make the file again: each row is one of each.",
        )
    return lengths[0]


def _unknown(file: str) -> SourceError:
    return SourceError(
        "it is JSON of no known kind",
        where=file,
        mend="Known are a list of objects with a url, lists side by side (SBU), JSON lines, and annotations (COCO, "
        "Karpathy's, NoCaps, Visual Genome, BLIP).",
    )

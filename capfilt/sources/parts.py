"""Parts: the pieces that a source is cut into, and all of them as one sequence that takes no memory of its own.

Knows files and ranges of rows; knows no format and reads nothing.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

from capfilt.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows [start, stop) of one file: what is read, worked on and committed as one."""

    index: int
    """Its number in the plan, from 0."""
    file: str
    """Absolute path or URL; for a folder of pictures, the folder."""
    start: int
    """First row, from 0 within the file."""
    stop: int
    """One after the last row."""
    digest: str
    """Identity of (the file's content, start, stop), in hex: the same wherever the file lies."""
    source: int = 0
    """Which of the joined sources it is of, from 0."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Rows of one file that are cut into parts as equal as can be."""

    file: str
    """As in :class:`Part`."""
    first: int = 0
    """Its first row."""
    rows: int
    """How many, 1 or more."""
    parts: int
    """Into how many parts, 1 to ``rows``."""
    digest: str
    """Identity of the content."""
    source: int = 0
    """As in :class:`Part`."""

    def at(self, number: int) -> tuple[int, int]:
        """Rows [start, stop) of its part of this number, from 0."""
        # 1001 rows in parts of 1000 are 501 and 500: a last part of one row would cost a whole file for it.
        return self.first + self.rows * number // self.parts, self.first + self.rows * (number + 1) // self.parts


class Parts(Sequence[Part]):
    """All parts of a source, in order, numbered from 0; each is made when it is asked for.

    Args:
        stretches: the files, in order; they alone take memory, so that a billion rows of a thousand files are planned
            as fast as a thousand rows.
    """

    def __init__(self, stretches: Iterable[Stretch]) -> None:
        self.stretches = tuple(stretches)
        self._ends = array("q", accumulate(item.parts for item in self.stretches))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | Sequence[Part]:
        if isinstance(index, slice):
            return Some(self, range(len(self))[index])
        at = range(len(self))[index]
        number = bisect_right(self._ends, at)
        item = self.stretches[number]
        start, stop = item.at(at - (self._ends[number] - item.parts))
        digest = hashlib.sha256(f"{item.digest}\n{start}\n{stop}".encode()).hexdigest()
        return Part(index=at, file=item.file, start=start, stop=stop, digest=digest, source=item.source)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parts) and self.stretches == other.stretches

    def __hash__(self) -> int:
        return hash(self.stretches)

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(item.rows for item in self.stretches)

    @property
    def files(self) -> int:
        """How many different files they are of."""
        return len({(item.source, item.file) for item in self.stretches})

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows of the smallest and of the largest part; (0, 0) of none."""
        low = min((item.rows // item.parts for item in self.stretches), default=0)
        return low, max((-(-item.rows // item.parts) for item in self.stretches), default=0)

    @property
    def digest(self) -> str:
        """Identity of all content and of its cuts, in hex: the same wherever the files lie."""
        digest = hashlib.sha256()
        for item in self.stretches:
            # Not the file's name: the same bytes may lie elsewhere when the run goes on.
            digest.update(f"{item.source}:{item.first}:{item.rows}:{item.parts}:{item.digest}\n".encode())
        return digest.hexdigest()


class Some(Sequence[Part]):
    """Some of the parts.

    Args:
        parts: all.
        indices: the numbers of those meant, in order; a ``range`` or an ``array`` takes little memory.
    """

    def __init__(self, parts: Parts, indices: Sequence[int]) -> None:
        self._parts, self._indices = parts, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | Sequence[Part]:
        if isinstance(index, slice):
            return Some(self._parts, self._indices[index])
        return self._parts[self._indices[index]]

    def __iter__(self) -> Iterator[Part]:
        return (self._parts[index] for index in self._indices)


def cut(files: Iterable[tuple[str, int, str]], part_rows: int) -> Parts:
    """Parts of at most ``part_rows`` rows, as equal as can be within a file; none crosses files.

    Args:
        files: (name, rows, digest of the content) of each; those without rows have no parts.
        part_rows: 1 or more.

    Raises:
        RecipeError: ``part_rows`` is less than 1.
    """
    if part_rows < 1:
        raise RecipeError(f"{part_rows} is out of range", where="plan.part_rows", mend="Give 1 or more.")
    return Parts(
        Stretch(file=file, rows=rows, parts=-(-rows // part_rows), digest=digest)
        for file, rows, digest in files
        if rows
    )

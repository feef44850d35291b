"""Which pictures of a data set are the same as, or look like, another one of it.

Equal pictures have equal bytes; pictures that look alike have perceptual hashes that differ in few bits. Knows columns
of numbers: 40 bytes a picture in memory, and hashes that could be near are found by their equal pieces, not by
comparing all with all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from capfilt.errors import DataError, require_within

MAX_NEAR = 8
"""Most bits that may differ: with more, pictures that have nothing in common would be taken for one."""

_BITS = 64


@dataclass(frozen=True)
class Duplicate:
    """A picture that another one stands for."""

    part: int
    row: int
    of_part: int
    of_row: int
    bits: int | None
    """In how many of 64 bits their perceptual hashes differ; None when the pictures are equal byte by byte."""


class Pictures:
    """What is compared of each picture, as columns.

    Args:
        tables: ledger rows with ``part``, ``row``, ``sha256``, ``phash``, ``width`` and ``height``; those without a
            picture (``sha256`` is null) are left out.

    Raises:
        DataError: a hash is not what the record says it is.
    """

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        pieces = [_columns(table.filter(table.column("sha256").is_valid())) for table in tables]
        self.part, self.row, self.area, self.sha, self.phash, self.hashed = (
            np.concatenate([piece[at] for piece in pieces]) if pieces else np.empty(0, np.int64) for at in range(6)
        )

    def __len__(self) -> int:
        return len(self.part)


def find(pictures: Pictures, near: int) -> Iterator[Duplicate]:
    """Every picture that is dropped for another; the one that stays is the largest, the first of equals.

    A picture is compared with those that stay only: of a chain in which each looks like the next, the ends stay apart.

    Args:
        pictures: of the whole data set.
        near: most bits in which perceptual hashes may differ, 0 to 8; below 0 only equal pictures are found.

    Raises:
        RecipeError: ``near`` is out of range.
    """
    require_within("near", near, -1, MAX_NEAR)
    if not len(pictures):
        return
    # The order in which pictures are preferred; all that follows speaks of places in it.
    order = np.lexsort((pictures.row, pictures.part, -pictures.area))
    firsts, same = _first_of_equals(pictures.sha[order])
    gone: dict[int, tuple[int, int | None]] = {}
    if near >= 0:
        hashed = firsts[pictures.hashed[order[firsts]]]
        near_ones = _near(pictures.phash[order[hashed]], near)
        gone = {int(hashed[at]): (int(hashed[first]), bits) for at, first, bits in near_ones}
    # What equals a picture that itself goes is a duplicate of the one that stays.
    gone |= {at: gone.get(first, (first, None)) for at, first in same}
    for at, (first, bits) in gone.items():
        yield _told(pictures, order[at], order[first], bits)


def _columns(table: pa.Table) -> tuple[np.ndarray, ...]:
    sides = [np.asarray(table.column(name).fill_null(0), dtype=np.int64) for name in ("width", "height")]
    hashes = table.column("phash").to_pylist()
    try:
        # Half of a sha256 tells a billion pictures apart as well as the whole.
        sha = np.frombuffer(
            b"".join(bytes.fromhex(one)[:16] for one in table.column("sha256").to_pylist()), dtype="S16"
        )
        phash = np.array([int(one or "0", 16) for one in hashes], dtype=np.uint64)
        if len(sha) != table.num_rows:
            raise ValueError("a sha256 is too short")
    except (ValueError, OverflowError) as error:
        raise DataError(f"a picture's hash is damaged: {error}", where="ledger") from error
    place = [np.asarray(table.column(name), dtype=np.int64) for name in ("part", "row")]
    return *place, sides[0] * sides[1], sha, phash, np.array([one is not None for one in hashes], dtype=bool)


def _first_of_equals(values: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """(places of the first of each value, in order; (place, place of its first) of all others)."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    firsts = first[inverse]
    others = np.flatnonzero(firsts != np.arange(len(values)))
    return np.sort(first), [(int(at), int(firsts[at])) for at in others]


def _near(hashes: np.ndarray, near: int) -> Iterator[tuple[int, int, int]]:
    """(place, place of the one that stays, bits between them) of those that do not stay."""
    distinct, same = _first_of_equals(hashes)
    neighbours: defaultdict[int, dict[int, int]] = defaultdict(dict)
    for one, other, bits in _pairs(hashes[distinct], near):
        neighbours[distinct[max(one, other)]][distinct[min(one, other)]] = bits
    gone: dict[int, tuple[int, int]] = {}
    for at in sorted(neighbours):
        staying = [(bits, first) for first, bits in neighbours[at].items() if first not in gone]
        if staying:
            bits, first = min(staying)
            gone[at] = (first, bits)
            yield int(at), int(first), bits
    for at, first in same:
        stands, bits = gone.get(first, (first, 0))
        yield at, int(stands), bits


def _pairs(hashes: np.ndarray, near: int) -> Iterator[tuple[int, int, int]]:
    """(i, j, bits) of all different hashes that differ in at most ``near`` bits; some pairs more than once."""
    if not near:
        return
    # Of near + 1 pieces one is equal in both: only hashes that share a piece are compared.
    edges = [_BITS * piece // (near + 1) for piece in range(near + 2)]
    for low, high in pairwise(edges):
        piece = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(piece, kind="stable")
        keys, values = piece[order], hashes[order]
        left = np.arange(len(keys) - 1)
        step = 1
        # First each with its neighbour, then with the one after, for as long as the piece is the same.
        while len(left := left[left + step < len(keys)]) and len(left := left[keys[left] == keys[left + step]]):
            bits = np.bitwise_count(values[left] ^ values[left + step])
            for at in left[bits <= near]:
                yield int(order[at]), int(order[at + step]), int(np.bitwise_count(values[at] ^ values[at + step]))
            step += 1


def _told(pictures: Pictures, at: int, of: int, bits: int | None) -> Duplicate:
    part, row = pictures.part, pictures.row
    return Duplicate(int(part[at]), int(row[at]), int(part[of]), int(row[of]), bits)

"""Counting in constant memory: how many are distinct, which are most frequent, which few to show.

All three are exact while the corpus is small and bounded, seeded and order-independent (or nearly so, see
:class:`Frequent`) when it is not. Knows strings and numbers; knows no tables, captions or files.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

_Hashes = npt.NDArray[np.uint64]
_LARGEST = (1 << 64) - 1


def hash64(*pieces: str | int) -> int:
    """A stable hash in [0, 2**64) of the pieces, the same on every machine and in every run."""
    text = "\x1f".join(str(piece) for piece in pieces)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


class Distinct:
    """How many different strings there were: the k smallest hashes (Bar-Yossef et al., RANDOM 2002).

    Exact up to ``size`` different strings, then with a standard error of 1/sqrt(size): 0.4% at the default. Holds at
    most 16 bytes times ``size``, and the hashes of one batch.
    """

    def __init__(self, size: int = 1 << 16) -> None:
        self.size = size
        self._smallest: _Hashes = np.empty(0, np.uint64)
        self._new: list[_Hashes] = []
        self._largest = _LARGEST
        """No hash above it counts any more."""

    def add(self, values: Iterable[str]) -> None:
        """Takes note of the strings; repeating some changes nothing."""
        hashes = np.fromiter(map(hash64, values), np.uint64)
        self._new.append(hashes[hashes <= self._largest])
        if sum(map(len, self._new)) > self.size:
            self._merge()

    @property
    def exact(self) -> bool:
        """Whether :meth:`count` is a count and not an estimate."""
        self._merge()
        return self._largest == _LARGEST

    def count(self) -> int:
        """How many different strings were added, or the estimate of it."""
        if self.exact:
            return len(self._smallest)
        return round((self.size - 1) * (_LARGEST + 1) / self._largest)

    def _merge(self) -> None:
        if self._new:
            self._smallest = np.unique(np.concatenate([self._smallest, *self._new]))
            self._new = []
        if len(self._smallest) > self.size:
            self._smallest = self._smallest[: self.size].copy()
            self._largest = int(self._smallest[-1])


class Frequent:
    """Which strings came most often (Misra and Gries, 1982, with whole batches merged at once).

    Counts are exact up to ``size`` different strings; beyond that each is a lower bound, too low by at most
    ``total / size``.
    """

    def __init__(self, size: int = 4096) -> None:
        self.size = size
        self.exact = True
        """Whether counts are counts and not lower bounds."""
        self._counts: Counter[str] = Counter()

    def add(self, counts: Mapping[str, int]) -> None:
        """Adds a batch of counted strings."""
        self._counts.update(counts)
        if len(self._counts) > self.size:
            self.exact = False
            excess = heapq.nlargest(self.size + 1, self._counts.values())[-1]
            self._counts = Counter({s: n - excess for s, n in self._counts.items() if n > excess})

    def top(self, n: int, *, at_least: int = 1) -> list[tuple[str, int]]:
        """The ``n`` most frequent with their counts, most frequent first, equals in the order of their text."""
        ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return [item for item in ranked[:n] if item[1] >= at_least]


class Pick(Generic[T]):
    """A few of many, chosen by their key alone: the same few whatever the order they came in.

    Keeps the ``size`` entries with the smallest keys; with hashes as keys this is a uniform random sample.
    ``seen`` counts all that were offered.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen = 0
        self._worst_first: list[tuple[tuple[int, ...], T]] = []

    def wants(self, key: tuple[int, ...]) -> bool:
        """Whether an entry with this key would be kept now; spares building entries that would not."""
        if len(self._worst_first) < self.size:
            return True
        return self.size > 0 and tuple(-k for k in key) > self._worst_first[0][0]

    def put(self, key: tuple[int, ...], value: T) -> None:
        """Keeps the entry if its key is among the smallest. Keys must be unique."""
        item = (tuple(-k for k in key), value)
        if len(self._worst_first) < self.size:
            heapq.heappush(self._worst_first, item)
        elif self.size:
            heapq.heappushpop(self._worst_first, item)

    def chosen(self) -> list[T]:
        """What was kept, smallest key first."""
        return [value for _, value in sorted(self._worst_first, key=lambda item: item[0], reverse=True)]

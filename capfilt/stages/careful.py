"""A batch that fails is halved until it works or one row is left, so that a row that no model bears costs itself only.

Knows lists of rows and what torch says when memory runs out; knows no models and no tables.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

import torch

from capfilt.errors import CapfiltError, EngineError, ModelError

T = TypeVar("T")

FEW = 8
"""So many rows may fail before it is asked whether most do."""
ENOUGH = 32
"""So many rows are tried before that is asked, or all if there are fewer: bad ones often stand together."""

_log = logging.getLogger(__name__)
_ASSERTED = "device-side assert"
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class RowError(Exception):
    """What a batch failed of lies in one of its rows; its text is a sentence for the ledger."""


@dataclass(frozen=True)
class Fault:
    """Why a row has no result."""

    detail: str
    """One sentence for a person."""


class Streak:
    """Rows of whole parts that failed since one was done."""

    def __init__(self) -> None:
        self._rows = 0
        self._counting = Lock()

    def longer(self) -> int:
        """Its length with one more."""
        with self._counting:
            self._rows += 1
            return self._rows

    def broken(self) -> None:
        """A row was done."""
        with self._counting:
            self._rows = 0


class Careful(Generic[T]):
    """Runs batches and keeps count of what fails.

    Args:
        work: takes rows and gives a result for each.
        largest: rows of a batch at most. Lowered for good when memory runs out.
        where: the model's name, for errors.
        total: rows that it will be given in all, where that is known.
        streak: of failures, kept from part to part: parts of few rows would each say too little.
    """

    def __init__(
        self,
        work: Callable[[Sequence[int]], Sequence[T]],
        largest: int,
        *,
        where: str,
        total: int = ENOUGH,
        streak: Streak | None = None,
    ) -> None:
        self._work, self.largest, self._where = work, largest, where
        self._streak = streak or Streak()
        self._enough = min(ENOUGH, total)
        self._done = self._failed = 0
        self._counting = Lock()  # several batches may be under way at once

    def __call__(self, rows: Sequence[int]) -> Iterator[tuple[int, T | Fault]]:
        """Each row with its result, or with the reason why it has none.

        Raises:
            CapfiltError: as ``work`` raised it. EngineError: the GPU fails.
            ModelError: most rows fail, so it is not the rows.
        """
        at = 0
        while at < len(rows):
            batch = rows[at : at + self.largest]
            at += len(batch)
            yield from self._batch(batch)

    def _batch(self, rows: Sequence[int]) -> Iterator[tuple[int, T | Fault]]:
        failed: Exception | None = None
        done: Sequence[T] = ()
        try:
            done = self._work(rows)
        except CapfiltError:
            raise
        except Exception as error:  # a model raises anything; the row that it fails of is counted
            if _device_is_lost(error):
                raise EngineError(
                    f"the GPU of {socket.gethostname()} fails: {str(error).strip().partition(chr(10))[0][:200]}",
                    where=self._where,
                    mend="No row is dropped for it. See to this GPU, or leave it out, and run again to go on.",
                ) from error
            # Its frames hold what the batch held, and the smaller ones want that room.
            failed = error.with_traceback(None)
            failed.__context__ = failed.__cause__ = None
        if failed is not None:
            yield from self._after(failed, rows)
            return
        with self._counting:
            self._done += len(rows)
        self._streak.broken()
        yield from zip(rows, done, strict=True)

    def _after(self, error: Exception, rows: Sequence[int]) -> Iterator[tuple[int, T | Fault]]:
        starved = _out_of_memory(error)
        if len(rows) == 1:
            yield rows[0], self._fault(error, starved=starved)
            return
        half = len(rows) // 2
        if starved:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.largest = min(self.largest, half)
            _log.warning("memory ran out with %d pictures at a time; going on with %d", len(rows), half)
        yield from self._batch(rows[:half])
        yield from self._batch(rows[half:])

    def _fault(self, error: Exception, *, starved: bool) -> Fault:
        with self._counting:
            self._failed += 1
        streak = 0 if self._done else self._streak.longer()  # of bad rows behind good ones the part itself is judge
        told = str(error).strip().partition("\n")[0][:200].rstrip(".") or type(error).__name__
        if starved:
            told = "Memory ran out with this picture alone"
        elif not isinstance(error, RowError):
            told = f"The model failed with this picture alone: {told}"
        tried = self._failed + self._done
        most = self._failed >= FEW and self._failed > self._done and tried >= self._enough
        if most or streak >= ENOUGH:
            count = f"{self._failed} of {tried}" if most else f"the last {streak}, and none in between was done"
            raise ModelError(
                f"it fails with most pictures ({count}): {told}",
                where=self._where,
                mend="Try capfilt.dtype: float32 and a smaller capfilt.batch_size; else it is the model.",
            ) from error
        return Fault(f"{told}.")


def _device_is_lost(error: Exception) -> bool:
    """Whether all that this process asks of its GPU will fail from now on, whatever the rows.

    An assertion on the device is as final, but comes of a row, and the run must get past it.
    """
    said = str(error)
    return isinstance(error, RuntimeError) and "CUDA error" in said and not (_out_of_memory(error) or _ASSERTED in said)


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)

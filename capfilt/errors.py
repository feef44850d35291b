"""The errors a user can mend, as one tree.

    CapfiltError                 anything a user can mend; the CLI prints it in two lines and exits 2
    ├── RecipeError              an unknown field, a value out of range, two fields that contradict
    ├── SourceError              the input: missing, empty, of the wrong type, without the named column
    ├── StoreError               a store that fails where nothing is known to be wrong with what it holds
    ├── DestinationError         the output: not writable, made by another recipe, damaged
    ├── ModelError               an unknown model, weights that do not fit their config
    ├── DataError                a shard or file that cannot be read as what it says it is
    ├── TrainingError            training that cannot start or go on: no samples, a loss that is not finite
    └── EngineError              the machine or cluster cannot run the plan as asked

A bad *row* is no exception: it is a :class:`capfilt.records.Drop` and is counted. This module knows
nothing of how errors are shown; ``cli`` does that.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import get_args


class CapfiltError(Exception):
    """A mistake that a user can mend.

    Args:
        what: one sentence: what is wrong.
        where: the file, field or address it concerns; empty if ``what`` says it.
        mend: one sentence: what to do about it.
        passing: whether it may be gone by itself when the same is tried again.
    """

    def __init__(self, what: str, *, where: str = "", mend: str = "", passing: bool = False) -> None:
        super().__init__(what, where, mend)
        self.what = what
        self.where = where
        self.mend = mend
        self.passing = passing

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f"\n{self.mend}" if self.mend else ""
        return f"{place}{self.what}{mend}"

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross Ray's process boundary; the default reduce loses keyword-only arguments.
        return _rebuild, (type(self), self.what, self.where, self.mend, self.passing)


def _rebuild(kind: type[CapfiltError], what: str, where: str, mend: str, passing: bool) -> CapfiltError:
    made = kind(what, where=where, mend=mend)
    made.passing = passing
    return made


class RecipeError(CapfiltError):
    """An unknown recipe field, a value out of range, or two fields that contradict."""


class SourceError(CapfiltError):
    """An input that is missing, empty, of the wrong type, or lacks a named column."""


class StoreError(CapfiltError):
    """A store that fails, also when asked again. It says nothing of what is stored: nothing is dropped."""


class DestinationError(CapfiltError):
    """An output that is not writable, is damaged, or was made by another recipe."""


class ModelError(CapfiltError):
    """An unknown model, or weights that do not fit their config."""


class DataError(CapfiltError):
    """A shard or file that cannot be read as what it says it is."""


class TrainingError(CapfiltError):
    """Training that cannot start or go on."""


class EngineError(CapfiltError):
    """A machine or cluster that cannot run the plan as asked."""


def is_of_store(error: Exception) -> bool:
    """Whether a store failed or refused, so that the error says nothing of what is stored: nothing is known to be
    damaged, and nothing may be dropped, forgotten or removed for it."""
    refused = isinstance(error.__cause__, PermissionError)
    return refused or isinstance(error, StoreError) or (isinstance(error, CapfiltError) and error.passing)


def require_within(field: str, value: float, low: float, high: float) -> None:
    """Refuse a setting outside [low, high].

    Raises:
        RecipeError: names the field, the value and the range.
    """
    if not low <= value <= high:
        raise RecipeError(f"{value} is not within [{low:g}, {high:g}]", where=field, mend="Give a value in that range.")


def require_one_of(field: str, value: object, kind: object) -> None:
    """Refuse a setting that is none of a ``Literal``'s words, for which a recipe's loader is not asked.

    Raises:
        RecipeError: names the field, the value and the words.
    """
    words = get_args(kind)
    if value not in words:
        near = meant(str(value), words)
        raise RecipeError(f"{value!r} is unknown", where=field, mend=f"{near}Use one of: {', '.join(words)}.")


def meant(wanted: str, names: Iterable[str], *, before: str = "") -> str:
    """``"Did you mean NAME? "``, of the name that is nearest to a misspelt one; empty where none is near.

    Args:
        wanted: what was written.
        names: what could have been.
        before: stands before the name that is told, as the section of a field.
    """
    cased = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(wanted.casefold(), cased, n=1)
    return f"Did you mean {before}{cased[close[0]]}? " if close else ""

"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How it stands."""

    OK = "ok"
    WARN = "warn"
    """It works, but worse than it could, or not for every job."""
    FAIL = "fail"
    """The main job cannot run so."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was looked at, what was found, and what to do about it."""

    name: str
    status: Status
    found: str
    mend: str = ""
    """Empty where nothing is to be done."""


def ok(name: str, found: str) -> Check:
    """Nothing to be done."""
    return Check(name=name, status=Status.OK, found=found)


def warn(name: str, found: str, mend: str) -> Check:
    """It could be better."""
    return Check(name=name, status=Status.WARN, found=found, mend=mend)


def fail(name: str, found: str, mend: str) -> Check:
    """It does not work so."""
    return Check(name=name, status=Status.FAIL, found=found, mend=mend)

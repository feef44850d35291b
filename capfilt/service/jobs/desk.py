"""The desk: what a caller may do with jobs, and the audit log of it.

Knows callers, places and the database; no HTTP.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from typing import Any

from capfilt.errors import CapfiltError, RecipeError, meant
from capfilt.recipe import Recipe, load_config, to_json
from capfilt.service.access import Caller, Role
from capfilt.service.config import ServiceConfig
from capfilt.service.jobs.launch import Launcher
from capfilt.service.jobs.store import JobStore, Row, TakenError
from capfilt.service.jobs.wire import ACTIVE, Job, JobRequest, State
from capfilt.service.places import OutsideError, check_dest, settle_recipe, settled
from capfilt.service.problems import Refusal
from capfilt.stages.retry import RETRIED
from capfilt.storage import Store

MAX_RECIPE = 64 * 1024
"""Bytes of a recipe as JSON."""
MAX_DEPTH = 32
"""Sections and lists within each other."""


class Desk:
    """Args: config, the database, and where jobs run."""

    def __init__(self, config: ServiceConfig, store: JobStore, launcher: Launcher) -> None:
        self._config, self.store, self._launcher = config, store, launcher
        self._admitting = threading.Lock()
        """Counting and adding are one step, so that a token's many requests at once are within its quota too."""

    def submit(self, caller: Caller, asked: JobRequest, key: str | None, request: str) -> tuple[Row, bool]:
        """The job, and whether it is new; with a key that was used before, the one of then.

        Raises:
            Refusal, CapfiltError: the recipe is wrong, a place is not open, there are too many jobs, the key was used
                for something else, or another job works at the destination.
        """
        try:
            row, fresh = self._submit(caller, asked, key)
        except OutsideError as error:
            self.store.audit(caller.name, "submit", asked.dest, request, f"refused: {error.where}: {error.what}")
            raise Refusal(403, error.what, where=error.where, mend=error.mend) from None
        if fresh:
            self.store.audit(
                caller.name, "submit", row.id, request, f"{row.spec['recipe']['source']['path']} to {row.dest}"
            )
        return row, fresh

    def find(self, caller: Caller, job: str, *, change: bool = False) -> Row:
        """A job that the caller may see, or change.

        Raises:
            Refusal: 404; also of another's, so that nobody learns what there is.
        """
        row = self.store.get(job)
        mine = row is not None and row.owner == caller.name and caller.may(Role.JOBS)
        if row is None or not (mine or caller.may(*(() if change else (Role.WATCH,)))):
            raise Refusal(404, "there is no such job, or it is another's", where="id", mend="List /v1/jobs.")
        return row

    def cancel(self, caller: Caller, job: str, request: str) -> Row:
        """Asks a job to end; one that has ended stays as it is.

        Raises:
            Refusal: 404.
        """
        row = self.find(caller, job, change=True)
        asked = self.store.change(job, ACTIVE, cancel=True)
        self.store.audit(caller.name, "cancel", job, request, "asked" if asked else f"it is {row.state}")
        return self.store.get(job) or row

    def retry(self, caller: Caller, job: str, reasons: Sequence[str], request: str) -> Row:
        """Puts a job that has ended into the queue again.

        Raises:
            Refusal: 404; 409, it has not ended, or is done and no reasons are given.
        """
        row = self.find(caller, job, change=True)
        _check_reasons(reasons)
        self._check_places(caller, row)
        if row.state == State.DONE and not reasons:
            raise Refusal(409, "it is done", mend="Give reasons whose rows are to be tried again.")
        spec = {**row.spec, "retry": list(reasons), "sources": list(caller.sources), "dests": list(caller.dests)}
        values: dict[str, Any] = {
            "spec": spec,
            "state": State.QUEUED,
            "cancel": False,
            "first_attempt": row.attempt,
            "ended": None,
        }
        try:
            with self._admitting:
                self._check_quota(caller)
                done = self.store.change(job, (State.DONE, State.FAILED, State.CANCELLED), **values, error=None)
        except TakenError:
            raise _taken() from None
        self.store.audit(caller.name, "retry", job, request, "queued" if done else f"it is {row.state}")
        if not done:
            raise Refusal(409, "it has not ended", mend="Cancel it first, or wait.")
        return self.store.get(job) or row

    def written(self, row: Row, name: str) -> bytes:
        """A file that the job wrote at its destination.

        Raises:
            Refusal: 404, it is not there (yet).
        """
        try:
            check_dest(row.dest, row.spec["dests"])
            return Store(row.dest).read(name)
        except (OutsideError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Refusal(404, f"{name} is not there", where="id", mend="It is written when the job ends.") from None

    def log(self, row: Row) -> str:
        """The end of what the job's last attempt wrote."""
        return self._launcher.look(row.id, row.attempt).log if row.attempt else ""

    def _submit(self, caller: Caller, asked: JobRequest, key: str | None) -> tuple[Row, bool]:
        _check_reasons(asked.retry)
        digest = _digest(asked)
        if key is not None and (there := self.store.by_key(caller.name, key)) is not None:
            return _same(there, digest), False
        spec = self._spec(caller, asked)
        try:
            with self._admitting:
                self._check_quota(caller)
                return self.store.add(caller.name, spec, digest, key), True
        except TakenError:
            if key is not None and (there := self.store.by_key(caller.name, key)) is not None:
                return _same(there, digest), False
            raise _taken() from None

    def _spec(self, caller: Caller, asked: JobRequest) -> dict[str, Any]:
        recipe = load_config(Recipe, given=_nested(asked.recipe))
        recipe = settle_recipe(recipe, caller.sources, self._config.fetch.allow_addresses)
        dest = settled(asked.dest, caller.dests, field="dest")
        check_dest(dest, caller.dests)
        spec = {
            "recipe": to_json(recipe),
            "dest": dest,
            "retry": asked.retry,
            "workers": asked.workers,
            "sources": list(caller.sources),
            "dests": list(caller.dests),
        }
        self._launcher.check(spec)
        return spec

    def _check_places(self, caller: Caller, row: Row) -> None:
        """A token may open less than it did."""
        try:
            recipe = load_config(Recipe, given=row.spec["recipe"])
            settle_recipe(recipe, caller.sources, self._config.fetch.allow_addresses)
            check_dest(row.dest, caller.dests)
        except OutsideError as error:
            raise Refusal(403, error.what, where=error.where, mend=error.mend) from None

    def _check_quota(self, caller: Caller) -> None:
        if self.store.active(caller.name) >= caller.max_jobs:
            what = f"{caller.max_jobs} jobs of this token wait or run already"
            raise Refusal(429, what, mend="Wait for one to end, or cancel one.", headers={"Retry-After": "60"})


def shown(row: Row) -> Job:
    """The job as it is told of."""
    at = f"/v1/jobs/{row.id}"
    return Job.model_validate(
        {
            "id": row.id,
            "owner": row.owner,
            "state": row.state,
            "dest": row.dest,
            "source": row.spec["recipe"]["source"]["path"],
            "recipe": row.spec["recipe"],
            "retry": row.spec["retry"],
            "workers": row.spec["workers"],
            "attempt": row.attempt,
            "created": row.created,
            "started": row.started,
            "ended": row.ended,
            "progress": row.progress,
            "error": row.error,
            "links": {name: f"{at}/{name}" for name in ("events", "log", "manifest", "report")},
        }
    )


def _digest(asked: JobRequest) -> str:
    """What tells one request from another.

    Raises:
        RecipeError: it is too long, nested too deep, or no text in UTF-8.
    """
    if _deep(asked.recipe):
        mend = f"At most {MAX_DEPTH} sections and lists may stand within each other."
        raise RecipeError("it is nested too deep", where="recipe", mend=mend)
    try:
        size = len(json.dumps(asked.recipe, allow_nan=False, ensure_ascii=False).encode())
        told = asked.model_dump_json().encode()
    except UnicodeEncodeError as error:
        raise RecipeError("it holds half a character", where="recipe", mend="Send text in UTF-8.") from error
    except ValueError as error:
        raise RecipeError("it holds what is no JSON", where="recipe", mend="Use plain values.") from error
    if size > MAX_RECIPE:
        raise RecipeError(f"it has {size:,} bytes", where="recipe", mend=f"At most {MAX_RECIPE:,} are read.")
    return hashlib.sha256(told).hexdigest()


def _deep(recipe: dict[str, Any]) -> bool:
    level: list[Any] = [recipe]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return False
    return True


def _nested(recipe: dict[str, Any]) -> dict[str, Any]:
    # A dot in a name would be read as a way into a section.
    odd = [name for name in recipe if not name or "." in name]
    if odd:
        raise RecipeError("no such field", where=odd[0][:100] or "recipe", mend="Nest fields in their sections.")
    return recipe


def _check_reasons(reasons: Sequence[str]) -> None:
    for reason in reasons:
        if reason not in RETRIED:
            what = f"{reason[:64]!r} is no reason that another try could take away"
            raise CapfiltError(what, where="retry", mend=f"{meant(reason, RETRIED)}Use some of: {', '.join(RETRIED)}.")


def _same(there: Row, digest: str) -> Row:
    if there.digest != digest:
        mend = "Take a new key for another job."
        raise Refusal(409, "this key was used for another job", where="Idempotency-Key", mend=mend)
    return there


def _taken() -> Refusal:
    mend = "Wait for it to end, or choose another destination."
    return Refusal(409, "another job works at this destination", where="dest", mend=mend)

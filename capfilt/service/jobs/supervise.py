"""Looks after the jobs: begins what waits, sees what runs, begins anew what died, ends what is cancelled.

All it knows is in the database and with the launcher, so that a service that was killed goes on where it was. Of
several services one database has one that looks. Knows states; knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capfilt.errors import CapfiltError
from capfilt.service.config import JobsConfig
from capfilt.service.jobs.launch import Launcher, Look
from capfilt.service.jobs.store import JobStore, Row
from capfilt.service.jobs.wire import State
from capfilt.service.logs import fields

_log = logging.getLogger(__name__)
_LEADS_S = 5.0
_GRACE_S = 15.0
_BOOKS = ("done", "total", "rows", "kept", "dropped", "texts", "texts_kept", "eta_s")


class Supervisor:
    """Args: config, the database, and where jobs run."""

    def __init__(self, config: JobsConfig, store: JobStore, launcher: Launcher) -> None:
        self._config, self._store, self._launcher = config, store, launcher
        self._token = secrets.token_hex(8)
        self._stopping: dict[str, float] = {}
        self._resting: dict[str, float] = {}
        """When jobs are begun anew; a service that is started again begins them at once."""

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                try:
                    await asyncio.to_thread(self.look)
                except CapfiltError as error:
                    _log.error("jobs cannot be looked after just now: %s", error)
                except Exception:  # noqa: BLE001 a cluster's or a disk's failure passes; the next look may succeed
                    _log.exception("jobs cannot be looked after just now")
                await asyncio.sleep(self._config.poll_s)
        finally:
            self._store.resign(self._token)

    def look(self) -> None:
        """One look at all jobs."""
        if not self._store.lead(self._token, max(_LEADS_S, 3 * self._config.poll_s)):
            return
        running = self._store.in_state(State.RUNNING)
        for row in running:
            self._apart(row, self._see)
        free = self._config.at_once - len(running)
        for row in self._store.in_state(State.QUEUED):
            if row.cancel:
                self._end(row, State.CANCELLED)
            elif free > 0:
                free -= 1
                self._apart(row, self._begin)

    @staticmethod
    def _apart(row: Row, work: Callable[[Row], None]) -> None:
        """One job's trouble holds up no other."""
        try:
            work(row)
        except Exception:  # noqa: BLE001 a cluster's or a disk's failure passes; the next look may succeed
            _log.exception("this job cannot be looked after just now", extra=fields(job=row.id))

    def _begin(self, row: Row) -> None:
        # Written down first: a service that dies here finds an attempt that never lived, and makes the next.
        attempt = row.attempt + 1
        values = {"state": State.RUNNING, "attempt": attempt, "started": row.started or time.time()}
        if not self._store.change(row.id, (row.state,), at=row.attempt, **values):
            return
        _log.info("job begun", extra=fields(job=row.id, attempt=attempt, owner=row.owner))
        spec = {**row.spec, "job": row.id, "attempt": attempt, "runner": self._config.runner}
        self._launcher.start(row.id, attempt, spec)

    def _see(self, row: Row) -> None:
        look = self._launcher.look(row.id, row.attempt)
        events = look.events()
        for event in reversed(events):
            if event["event"] == "progress":
                told = {name: event[name] for name in _BOOKS}
                if told != row.progress:
                    self._store.change(row.id, (State.RUNNING,), at=row.attempt, progress=told)
                    _log.info("job", extra=fields(job=row.id, part=event["part"], parts=event["total"]))
                break
        if look.alive:
            if row.cancel:
                self._stop(row)
            return
        self._ended(row, events[-1] if events else {}, look)

    def _stop(self, row: Row) -> None:
        now = time.monotonic()
        if row.id not in self._stopping:
            self._stopping[row.id] = now
            self._launcher.stop(row.id, row.attempt, hard=False)
        elif now - self._stopping[row.id] > _GRACE_S:
            self._launcher.stop(row.id, row.attempt, hard=True)

    def _ended(self, row: Row, last: dict[str, Any], look: Look) -> None:
        how = last.get("event", "")
        if how == "done":
            self._end(row, State.DONE)
        elif row.cancel:
            self._end(row, State.CANCELLED)
        elif how == "failed" and not last.get("again"):
            self._end(row, State.FAILED, _told(last))
        elif row.attempt - row.first_attempt < self._config.attempts:
            if how != "failed" or self._rested(row):
                _log.warning("job died, and is begun anew", extra=fields(job=row.id, attempt=row.attempt))
                self._begin(row)
        elif how == "failed":
            self._end(row, State.FAILED, _told(last))
        else:
            what = str(last.get("what", "its process died")) if how == "fault" else "its process died"
            mend = "Look at its log. A retry goes on where it stopped."
            tail = look.log.strip().splitlines()[-1:] or [""]
            self._end(row, State.FAILED, {"what": what, "where": "" if how else tail[0][:500], "mend": mend})

    def _rested(self, row: Row) -> bool:
        """Whether the pause is over after an attempt that failed by what may pass."""
        now = time.monotonic()
        if row.id not in self._resting:
            pause = self._config.pause_s * 2.0 ** (row.attempt - row.first_attempt - 1)
            self._resting[row.id] = now + pause
            _log.warning("job waits to be begun anew", extra=fields(job=row.id, attempt=row.attempt, pause_s=pause))
        if now < self._resting[row.id]:
            return False
        del self._resting[row.id]
        return True

    def _end(self, row: Row, state: State, error: dict[str, Any] | None = None) -> None:
        self._stopping.pop(row.id, None)
        self._resting.pop(row.id, None)
        if not self._store.change(row.id, (row.state,), at=row.attempt, state=state, ended=time.time(), error=error):
            return
        _log.info("job ended", extra=fields(job=row.id, state=str(state), **({"error": error} if error else {})))


def _told(event: dict[str, Any]) -> dict[str, Any]:
    return {name: str(event.get(name, "")) for name in ("what", "where", "mend")}


def state_folder(config: JobsConfig) -> Path:
    """The folder for the jobs' logs."""
    return Path(config.state or "").expanduser().absolute()

"""Where a job's process runs: on this machine, or by a cluster's Ray Jobs. Both outlive the service.

Whether a job of this machine lives is a lock on a file, which its process inherits and the system takes away with it.
The file holds the process's number, which counts only while the lock is held: another may have it by then. Knows
processes and Ray's client; knows no database.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from capfilt.errors import EngineError, RecipeError
from capfilt.service.config import JobsConfig
from capfilt.service.jobs.driver import FILE, LOCK, VARIABLE

_TAIL = 256 * 1024
_MODULE = "capfilt.service.jobs.driver"
MAX_VARIABLE = 96 * 1024
"""Bytes of a job that is handed over in an environment variable: Linux takes 128 KiB, and Ray writes more around it."""


@dataclass(frozen=True)
class Look:
    """What is seen of an attempt."""

    alive: bool
    log: str
    """The end of what it wrote."""

    def events(self) -> list[dict[str, Any]]:
        """What it told, in order."""
        found = []
        for line in self.log.splitlines():
            if line.startswith('{"event"'):
                try:
                    found.append(json.loads(line))
                except ValueError:  # the line that it died at
                    continue
        return found


class Launcher(Protocol):
    """Starts, looks and stops. A job's attempts are numbered; each is started once."""

    def check(self, spec: Mapping[str, Any]) -> None:
        """Passes if what is to be done can be handed over.

        Raises:
            RecipeError: it is too long.
        """
        ...

    def start(self, job: str, attempt: int, spec: Mapping[str, Any]) -> None:
        """Starts an attempt, unless it was started."""
        ...

    def look(self, job: str, attempt: int) -> Look:
        """What is seen of it."""
        ...

    def stop(self, job: str, attempt: int, *, hard: bool) -> None:
        """Asks it to end, or ends it."""
        ...


class Processes:
    """Jobs as processes of this machine.

    Args:
        state: the folder for their logs and locks.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / "jobs"

    def check(self, spec: Mapping[str, Any]) -> None:
        """See :class:`Launcher`. A file takes anything."""

    def start(self, job: str, attempt: int, spec: Mapping[str, Any]) -> None:
        """See :class:`Launcher`."""
        folder = self._folder / job
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "lock").touch()
        with (folder / "lock").open("r+") as lock, self._log(job, attempt).open("ab") as log:
            if not _locked(lock):
                return  # an attempt lives
            told = folder / "spec.json"
            told.touch(mode=0o600)
            told.write_text(json.dumps(spec), encoding="utf-8")
            environment = {**os.environ, FILE: str(told), LOCK: str(lock.fileno()), "PYTHONUNBUFFERED": "1"}
            lock.truncate(0)
            process = subprocess.Popen(  # noqa: S603 our own module; what to do is in the file
                [sys.executable, "-m", _MODULE],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),
                start_new_session=True,  # what stops the service does not stop its jobs
            )
            os.pwrite(lock.fileno(), b"%d\n" % process.pid, 0)
        _children.append(process)

    def look(self, job: str, attempt: int) -> Look:
        """See :class:`Launcher`."""
        # Alive first: what it wrote before it died is then all there.
        alive = self._alive(job)
        return Look(alive, _tail(self._log(job, attempt)))

    def stop(self, job: str, attempt: int, *, hard: bool) -> None:
        """See :class:`Launcher`."""
        if not self._alive(job):
            return
        try:
            group = int((self._folder / job / "lock").read_text())
            os.killpg(group, signal.SIGKILL if hard else signal.SIGTERM)
        except (OSError, ValueError):
            return

    def _alive(self, job: str) -> bool:
        _reap()
        try:
            with (self._folder / job / "lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def _log(self, job: str, attempt: int) -> Path:
        return self._folder / job / f"attempt-{attempt}.log"


def _locked(lock: IO[str]) -> bool:
    """Whether the lock could be had; who only looks holds it for a moment."""
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


_children: list[subprocess.Popen[bytes]] = []


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]


class RayJobs:
    """Jobs on a cluster, by its dashboard. ``capfilt[service]`` is installed on it.

    Args:
        address: of the dashboard.

    Raises:
        EngineError: it cannot be reached.
    """

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient  # noqa: PLC0415 Ray takes seconds

        try:
            self._client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError) as error:
            first = str(error).strip().partition("\n")[0]
            mend = "Give the address of the cluster's dashboard, as http://HEAD:8265."
            raise EngineError(f"Ray Jobs cannot be reached: {first}", where="jobs.address", mend=mend) from error

    def check(self, spec: Mapping[str, Any]) -> None:
        """See :class:`Launcher`."""
        check_variable(spec)

    def start(self, job: str, attempt: int, spec: Mapping[str, Any]) -> None:
        """See :class:`Launcher`. The command is the same for every job; what to do is in the environment."""
        if self._status(job, attempt) is not None:
            return
        self._client.submit_job(
            entrypoint=f"{shlex.quote(sys.executable)} -m {_MODULE}",
            submission_id=_submission(job, attempt),
            runtime_env={"env_vars": {VARIABLE: json.dumps(spec)}},
            metadata={"capfilt_job": job},
        )

    def look(self, job: str, attempt: int) -> Look:
        """See :class:`Launcher`."""
        status = self._status(job, attempt)
        if status is None:
            return Look(False, "")
        log = self._client.get_job_logs(_submission(job, attempt))
        return Look(not status.is_terminal(), log[-_TAIL:])

    def stop(self, job: str, attempt: int, *, hard: bool) -> None:
        """See :class:`Launcher`."""
        if self._status(job, attempt) is not None:
            self._client.stop_job(_submission(job, attempt))

    def _status(self, job: str, attempt: int) -> Any:
        try:
            return self._client.get_job_status(_submission(job, attempt))
        except RuntimeError as error:
            if "404" in str(error) or "does not exist" in str(error):
                return None
            raise


def check_variable(spec: Mapping[str, Any]) -> None:
    """Passes if what is to be done can be handed over in an environment variable.

    Raises:
        RecipeError: it is too long.
    """
    size = len(json.dumps(json.dumps(spec)))  # twice, as Ray hands it on within JSON of its own
    if size > MAX_VARIABLE:
        what = f"with its defaults it has {size:,} bytes, and Ray Jobs take {MAX_VARIABLE:,}"
        raise RecipeError(what, where="recipe", mend="Name fewer sources: a folder or a glob instead of its files.")


def launcher(config: JobsConfig, state: Path) -> Launcher:
    """The one that the settings name.

    Raises:
        EngineError: the cluster cannot be reached.
    """
    return RayJobs(config.address) if config.via == "ray" else Processes(state)


def _submission(job: str, attempt: int) -> str:
    return f"capfilt-{job}-{attempt}"


def _tail(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - _TAIL))
            return stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""

"""A lease on a destination: one run works there at a time, and one that died lets go by itself.

It is a small file that its holder renews. A run whose process is surely gone (same machine, same boot, same PID
namespace) is succeeded at once, any other when its lease has run out; the machines' clocks may differ by a fraction of
that time. Knows a store.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capfilt.errors import DestinationError
from capfilt.storage import Store

FILE = ".lease.json"
_NUMBERED_BY = ("boot", "namespace")
"""What gives a process its number, beside the host: containers may share a host's name and not its processes."""
LASTS_S = 120.0
"""Seconds that a lease holds without being renewed."""
_RENEWED_S = 30.0
_SETTLES_S = 0.2
_LOOKS_S = 2.0
_log = logging.getLogger(__name__)


class Lease:
    """A lease that is held.

    Args:
        store: the destination.
        lasts_s: seconds that it holds without being renewed.
    """

    def __init__(self, store: Store, lasts_s: float) -> None:
        self._store, self._lasts_s = store, lasts_s
        self._passing = False
        self._token, self._lost = secrets.token_hex(16), ""
        self._ended = threading.Event()
        self._until = 0.0
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def check(self) -> None:
        """Passes while it is held.

        Raises:
            DestinationError: another run has taken it, or it could not be renewed in time.
        """
        if not self._lost and time.time() > self._until:
            self._lost, self._passing = "it could not be renewed in time", True
        if self._lost:
            raise DestinationError(
                f"this run no longer holds the destination: {self._lost}",
                where=self._store.url,
                mend="What is committed stays. Let one run work there at a time, and run again to go on.",
                passing=self._passing,
            )

    def take(self, wait_s: float = 0.0) -> None:
        """Takes it, and renews it from now on.

        Args:
            wait_s: seconds that another's is waited for.

        Raises:
            DestinationError: another run holds it, still after that time.
        """
        ends, told = time.monotonic() + wait_s, False
        while (holder := self._try()) is not None:
            left = ends - time.monotonic()
            if left <= 0:
                raise _held(self._store, holder)
            if not told:
                _log.warning("%s works at %s: it is waited for", _who(holder), self._store.url)
            told = True
            # It may let go at any time, and at the latest when its own runs out.
            time.sleep(min(left, _LOOKS_S, max(0.05, holder["until"] - time.time())))
        self._thread.start()

    def give_back(self) -> None:
        """Ends it."""
        self._ended.set()
        self._thread.join()
        there = _read(self._store)
        if there is not None and there["token"] == self._token:
            self._store.remove(FILE)

    def _try(self) -> dict[str, Any] | None:
        """Takes it if nobody works there; else whose it is."""
        self._until = time.time() + self._lasts_s
        if self._store.create(FILE, self._told()):
            return None
        there = _read(self._store)
        if there is not None and not _let_go(there):
            return there
        self._store.write(FILE, self._told())
        # Two that succeed the same dead run both write; the second one's word stays.
        time.sleep(_SETTLES_S)
        now = _read(self._store)
        return now if now is not None and now["token"] != self._token else None

    def _told(self) -> bytes:
        told = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid(), "until": self._until}
        return json.dumps(told | _process()).encode()

    def _renew(self) -> None:
        while not self._ended.wait(min(_RENEWED_S, self._lasts_s / 4)):
            try:
                there = _read(self._store)
                if there is not None and there["token"] != self._token:
                    self._lost = f"{_who(there)} took it"
                    return
                until, self._until = self._until, time.time() + self._lasts_s
                try:
                    self._store.write(FILE, self._told())
                except BaseException:
                    self._until = until
                    raise
            except Exception:  # noqa: BLE001 a store may fail in any way, and be back before the lease runs out
                _log.warning("the lease on %s could not be renewed just now", self._store.url, exc_info=True)


@contextmanager
def leased(store: Store, *, lasts_s: float = LASTS_S, wait_s: float = 0.0) -> Iterator[Lease]:
    """Holds the destination while the block runs.

    Args:
        store: the destination.
        lasts_s: seconds that it holds without being renewed.
        wait_s: seconds that another's lease is waited for.

    Raises:
        DestinationError: another run holds it, still after that time.
    """
    lease = Lease(store, lasts_s)
    lease.take(wait_s)
    try:
        yield lease
    finally:
        lease.give_back()


def _read(store: Store) -> dict[str, Any] | None:
    """The lease that is there; one that cannot be read is none."""
    try:
        there = json.loads(store.read(FILE))
        return {"token": str(there["token"]), "host": str(there["host"])} | {
            "pid": int(there["pid"]),
            "until": float(there["until"]),
            **{name: str(there[name]) for name in (*_NUMBERED_BY, "started") if name in there},
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _let_go(there: dict[str, Any]) -> bool:
    if there["until"] <= time.time():
        return True
    if there["host"] != socket.gethostname():
        return False
    ours = _process()
    # A lease that tells neither is of a system without /proc, or of an older version: the host's name must do.
    if any(name in there for name in _NUMBERED_BY) and any(there.get(name) != ours.get(name) for name in _NUMBERED_BY):
        return False
    try:
        os.kill(there["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is there, and another user's
    now = _started(there["pid"])
    return "started" in there and now is not None and there["started"] != now


def _process() -> dict[str, str]:
    """What tells this process from any other that has its host's name and its number; what is not known is absent."""
    told: dict[str, str] = {}
    try:
        told["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        told["namespace"] = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        pass  # no Linux, or /proc is hidden
    started = _started(os.getpid())
    return told if started is None else told | {"started": started}


def _started(pid: int) -> str | None:
    """When a process began, in ticks since the boot; a number that is given anew comes with another one."""
    try:
        # /proc may be that of an outer namespace, where the number is another process's.
        if str(Path("/proc/self").readlink()) != str(os.getpid()):
            return None
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError, UnicodeDecodeError):
        return None


def _who(there: dict[str, Any]) -> str:
    return f"another run (process {there['pid']} on {there['host']})"


def _held(store: Store, there: dict[str, Any]) -> DestinationError:
    seconds = max(1, round(there["until"] - time.time()))
    return DestinationError(
        f"{_who(there)} works there",
        where=store.url,
        mend=f"Let it end or stop it. If its machine is gone, wait: it lets go in at most {seconds} s.",
    )

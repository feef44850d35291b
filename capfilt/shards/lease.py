"""A lease on a destination: one run works there at a time, and one that died lets go by itself.

It is a small file that its holder renews. A run on the same machine whose process is gone is succeeded at once, any
other when its lease has run out; the machines' clocks may differ by a fraction of that time. Knows a store.
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
from typing import Any

from capfilt.errors import DestinationError
from capfilt.storage import Store

FILE = ".lease.json"
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
        return json.dumps(told).encode()

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
        }
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _let_go(there: dict[str, Any]) -> bool:
    if there["until"] <= time.time():
        return True
    if there["host"] != socket.gethostname():
        return False
    try:
        os.kill(there["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is there, and another user's
    return False


def _who(there: dict[str, Any]) -> str:
    return f"another run (process {there['pid']} on {there['host']})"


def _held(store: Store, there: dict[str, Any]) -> DestinationError:
    seconds = max(1, round(there["until"] - time.time()))
    return DestinationError(
        f"{_who(there)} works there",
        where=store.url,
        mend=f"Let it end or stop it. If its machine is gone, wait: it lets go in at most {seconds} s.",
    )

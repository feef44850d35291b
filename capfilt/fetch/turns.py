"""Whose turn it is: how many requests one host gets at once, how often, and when it asked to be left alone.

Knows host names and the clock; knows no HTTP. Lives in one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from capfilt.fetch.config import FetchConfig
from capfilt.images import Refused

_FEW = 1000
_LONGEST_REST_S = 3600.0


class _Host:
    """One host's places, and when its next request may leave (in the loop's seconds)."""

    __slots__ = ("closed", "door", "opens_at", "places", "users")

    def __init__(self, places: int) -> None:
        self.places = asyncio.Semaphore(places)
        self.door = asyncio.Lock()
        self.opens_at = 0.0
        self.closed: Refused | None = None
        self.users = 0

    def idle(self, now: float) -> bool:
        return not self.users and self.opens_at <= now


class Turns:
    """Turns of all requests of one client.

    Args:
        config: ``concurrency``, ``per_host``, ``per_host_rate`` and ``retry_after_max_s``.
    """

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._spacing_s = 1 / config.per_host_rate if config.per_host_rate else 0.0
        self._slots = asyncio.Semaphore(config.concurrency)
        self._hosts: dict[str, _Host] = {}
        self._sweep_at = _FEW

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[Refused | None]:
        """One request's turn with a host; instead of a turn, why the host is not to be asked now.

        First a place with the host, then its door, then a slot: those who wait for a slow host keep no slot from
        the others, and only one request of each host stands in the line for slots.
        """
        host = self._host(name)
        host.users += 1
        try:
            async with host.places:
                refused = await self._leave(host)
                if refused is not None:
                    yield refused
                    return
                try:
                    yield None
                finally:
                    self._slots.release()
        finally:
            host.users -= 1
            if host.idle(_now()):
                self._hosts.pop(name, None)

    def hold(self, name: str, seconds: float, closed: Refused) -> None:
        """A host asks to be left alone: nothing more leaves for it before.

        Args:
            name: the host.
            seconds: how long; when that is more than ``retry_after_max_s``, what waits for the host is refused
                instead, until the time is over or an hour has passed.
            closed: what to refuse it with.
        """
        host = self._host(name)
        host.opens_at = max(host.opens_at, _now() + min(seconds, _LONGEST_REST_S))
        if seconds > self._config.retry_after_max_s:
            host.closed = closed

    async def _leave(self, host: _Host) -> Refused | None:
        """Waits at the host's door and takes a slot, which is then the caller's to release."""
        async with host.door:
            while host.closed is None and (wait := host.opens_at - _now()) > 0:
                await asyncio.sleep(wait)
            if host.closed is not None and host.opens_at > _now():
                return host.closed
            host.closed = None
            await self._slots.acquire()
            host.opens_at = max(host.opens_at, _now() + self._spacing_s)
        return None

    def _host(self, name: str) -> _Host:
        found = self._hosts.get(name)
        if found is None:
            if len(self._hosts) >= self._sweep_at:
                now = _now()
                self._hosts = {name: host for name, host in self._hosts.items() if not host.idle(now)}
                self._sweep_at = max(_FEW, 2 * len(self._hosts))
            found = self._hosts[name] = _Host(self._config.per_host)
        return found


def _now() -> float:
    return asyncio.get_running_loop().time()

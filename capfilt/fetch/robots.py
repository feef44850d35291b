"""The robots.txt of each origin: read once, kept for a day, asked before every request.

As RFC 9309 says: where there is none (4xx) everything is allowed; where it cannot be had (5xx, no answer) nothing
is, for now. Knows the file's rules (through protego) and how long they hold; how it is fetched is given.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from protego import Protego
from yarl import URL

from capfilt.fetch import failures
from capfilt.fetch.addresses import shown
from capfilt.fetch.answers import SUCCESS, Head
from capfilt.fetch.failures import Passing
from capfilt.fetch.urls import target
from capfilt.images import Refused
from capfilt.records import Drop

MAX_BYTES = 512 * 1024
"""Cap on a robots.txt."""
_LASTS_S = 24 * 3600.0
_FAILURE_LASTS_S = 60.0
_ORIGINS = 10_000

Rules = Protego | Refused
"""What an origin allows, or why that cannot be known."""


@dataclass(frozen=True)
class Silence:
    """The origin has no robots.txt."""


Read = Callable[[URL], Awaitable[bytes | Silence | Refused]]
"""Fetches one robots.txt, following redirects, trying again what may pass."""


def judge(address: URL, head: Head) -> Silence | URL | Refused | Passing | None:
    """What the head of an answer for a robots.txt says; None: read on."""
    if head.status in SUCCESS:
        return None
    if head.moved_to is not None:
        return target(head.host, address, head.moved_to)
    if 400 <= head.status < 500 and head.status not in failures.PASSING_STATUS:
        return Silence()
    return failures.of_status(head.host, head.status, head.retry_after)


class Robots:
    """The rules of all origins that one client has met.

    Args:
        robot: the name by which rules speak to us.
        read: how a robots.txt is fetched.
        parse: runs the parser where it holds up nobody.
    """

    def __init__(self, robot: str, read: Read, parse: Callable[[bytes], Awaitable[Protego]]) -> None:
        self._robot = robot
        self._read = read
        self._parse = parse
        self._known: dict[URL, tuple[float, asyncio.Future[Rules]]] = {}

    async def refusal(self, address: URL) -> Refused | None:
        """Why an address may not be asked for; None if it may."""
        rules = await self._rules(address.origin())
        if isinstance(rules, Protego):
            if rules.can_fetch(str(address), self._robot):
                return None
            host = shown(address.raw_host or "")
            return Refused(Drop.OPTED_OUT, f"The robots.txt of {host} asks robots to leave this address out.")
        return rules

    async def _rules(self, origin: URL) -> Rules:
        ends, task = self._known.get(origin, (0.0, None))
        if task is None or ends <= _now():
            while len(self._known) >= _ORIGINS:
                self._known.pop(next(iter(self._known)))  # the oldest
            # A task of its own: whoever asked first may be cancelled, the others still wait for it.
            task = asyncio.ensure_future(self._learn(origin))
            self._known[origin] = math.inf, task
        return await asyncio.shield(task)

    async def _learn(self, origin: URL) -> Rules:
        lasts = 0.0
        try:
            rules = await self._found(origin)
            lasts = _FAILURE_LASTS_S if isinstance(rules, Refused) else _LASTS_S
            return rules
        finally:
            if origin in self._known:
                self._known[origin] = _now() + lasts, self._known[origin][1]

    async def _found(self, origin: URL) -> Rules:
        found = await self._read(origin.with_path("/robots.txt"))
        if isinstance(found, bytes):
            return await self._parse(found)
        if isinstance(found, Silence):
            return Protego.parse("")
        host = shown(origin.raw_host or "")
        return Refused(found.drop, f"The robots.txt of {host} cannot be read, so nothing is asked: {found.detail}")


def parsed(text: bytes) -> Protego:
    """The rules in a robots.txt, whatever its bytes are."""
    return Protego.parse(text.decode("utf-8", "replace").removeprefix("\ufeff"))


def _now() -> float:
    return asyncio.get_running_loop().time()

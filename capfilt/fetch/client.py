"""Many URLs in, as many pictures or reasons out: safe, bounded HTTP with manners.

Each URL is judged before and at every hop (``addresses``, ``robots``), waits for its turn (``turns``), is asked for
by an engine (``native``, ``peer``), its answer read within caps (``answers``), its failures put into words
(``failures``), its bytes made a picture in threads (``images``). Knows no tables, and not how long it lives.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from yarl import URL

from capfilt.fetch import answers, failures, robots
from capfilt.fetch.addresses import Gate, GuardedResolver, RefusedAddressError
from capfilt.fetch.answers import Head
from capfilt.fetch.config import FetchConfig
from capfilt.fetch.failures import Passing
from capfilt.fetch.native import Native
from capfilt.fetch.peer import Peer
from capfilt.fetch.turns import Turns
from capfilt.fetch.urls import parse, target
from capfilt.images import Picture, Refused, normalise
from capfilt.records import Drop

Fetched = Picture | Refused
"""What becomes of one URL."""

T = TypeVar("T")
_LOOKUPS = 32


class Engine(Protocol):
    """What makes one request. It has checked every address it speaks to when it does so."""

    async def get(
        self, address: URL, left_s: float, judge: Callable[[Head], T | None], cap: int
    ) -> bytes | T | Refused | Passing:
        """One request, no redirect followed: what ``judge`` makes of the head, else the body, or the failure."""
        ...

    async def close(self) -> None:
        """Closes the kept connections."""
        ...

    def abandon(self) -> None:
        """Lets go of all without closing it, in a forked child."""
        ...


@dataclass(frozen=True)
class _Errand(Generic[T]):
    """What is fetched and what for; the way there is the same."""

    permit: Callable[[URL], Awaitable[Refused | None]]
    judge: Callable[[URL, Head], Any]
    cap: int
    finish: Callable[[bytes], Awaitable[T]]


class Client:
    """A session, its turns, and the path of a URL through it. Made and used within one event loop.

    Credentials within a URL (``user:password@``) are never sent, environment proxies never used, cookies never
    kept.

    Args:
        config: bounds, manners and open addresses.

    Raises:
        EngineError: the engine is an extra that is not installed.
    """

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._pictures = ThreadPoolExecutor(config.threads, thread_name_prefix="pictures")
        self._lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="lookups")
        self._gate = Gate(config.open_networks)
        engine = Peer if config.engine == "img2dataset" else Native
        self._engine: Engine = engine(config, self._gate, GuardedResolver(self._gate, self._lookups))
        self._turns = Turns(config)
        self._robots = robots.Robots(config.robot, self._read_robots, partial(self._aside, robots.parsed))
        self._picture = _Errand(self._permit, self._judge, config.images.max_bytes, self._normalised)

    async def fetch_all(self, urls: Sequence[str]) -> list[Fetched]:
        """One result a URL, in the same order; one that fails never fails another."""
        return list(await asyncio.gather(*map(self.fetch, urls)))

    async def fetch(self, url: str) -> Fetched:
        """What becomes of one URL, further attempts included."""
        address = parse(url)
        if isinstance(address, Refused):
            return address
        return await self._insist(address, self._picture)

    async def close(self) -> None:
        """Closes the kept connections. A name service that never answers must not hold this up."""
        self._pools_end()
        await self._engine.close()

    def abandon(self) -> None:
        """Lets go of all without closing it: a forked child does not own what it inherited."""
        self._engine.abandon()

    def _pools_end(self) -> None:
        for pool in (self._pictures, self._lookups):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _insist(self, address: URL, errand: _Errand[T]) -> T | Refused:
        """Attempts until one does not fail, fails for good, or none is left."""
        outcome = await self._follow(address, errand)
        for attempt in range(self._config.retries):
            wait = self._wait(attempt, outcome) if isinstance(outcome, Passing) else None
            if wait is None:
                break
            await asyncio.sleep(wait)
            outcome = await self._follow(address, errand)
        return outcome.refused if isinstance(outcome, Passing) else outcome

    def _wait(self, attempt: int, failed: Passing) -> float | None:
        """Seconds until the next attempt; None if the server asks for more than is waited for."""
        asked = failed.after_s or 0.0
        if asked > self._config.retry_after_max_s:
            return None
        return max(asked, self._config.retry_wait_s * float(2**attempt) * random.uniform(0.5, 1.5))

    async def _follow(self, address: URL, errand: _Errand[T]) -> T | Refused | Passing:
        """One attempt: follows redirects from an address to its end."""
        left = self._config.timeout_total_s
        loop = asyncio.get_running_loop()
        for _ in range(self._config.max_redirects + 1):
            refused = self._closed(address) or await errand.permit(address)
            if refused is not None:
                return refused
            async with self._turns.of(address.raw_host or "") as refused:
                if refused is not None:
                    return refused
                started = loop.time()
                outcome = await self._engine.get(address, left, partial(errand.judge, address), errand.cap)
                left -= loop.time() - started
                if isinstance(outcome, bytes):
                    return await errand.finish(outcome)
            if not isinstance(outcome, URL):
                self._heed(address, outcome)
                return outcome
            address = outcome
        return Refused(Drop.TOO_MANY_REDIRECTS, f"There are more than {self._config.max_redirects} redirects.")

    def _closed(self, address: URL) -> Refused | None:
        try:
            self._gate.check_host(address.raw_host or "")
        except RefusedAddressError as error:
            return Refused(Drop.REFUSED_ADDRESS, str(error))
        return None

    def _heed(self, address: URL, outcome: Any) -> None:
        """A host that asks to wait is left alone by all who want something of it."""
        if isinstance(outcome, Passing) and outcome.after_s:
            self._turns.hold(address.raw_host or "", outcome.after_s, failures.resting(outcome))

    async def _permit(self, address: URL) -> Refused | None:
        return await self._robots.refusal(address) if self._config.robots_txt else None

    def _judge(self, address: URL, head: Head) -> URL | Refused | Passing | None:
        """What the head of a picture's answer says; None: read on."""
        if head.status not in answers.SUCCESS and head.moved_to is None:
            return failures.of_status(head.host, head.status, head.retry_after)
        directive = answers.opted_out(head.robots_tags, self._config.robot_names, self._config.opt_outs)
        if directive is not None:
            return Refused(Drop.OPTED_OUT, f"{head.host} asks robots to leave this picture out ({directive}).")
        return None if head.moved_to is None else target(head.host, address, head.moved_to)

    async def _normalised(self, body: bytes) -> Fetched:
        return await self._aside(partial(normalise, limits=self._config.images), body)

    async def _read_robots(self, address: URL) -> bytes | robots.Silence | Refused:
        return await self._insist(address, _Errand(_anyone, robots.judge, robots.MAX_BYTES, _as_it_is))

    async def _aside(self, work: Callable[[bytes], T], data: bytes) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pictures, work, data)


async def _anyone(_: URL) -> None:
    return None


async def _as_it_is(body: bytes) -> bytes:
    return body

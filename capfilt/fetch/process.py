"""One client for as long as its process: names looked up, connections kept and hosts' turns last beyond one part.

A client lives in a thread with an event loop of its own, so that whoever calls may have a loop too (notebooks), and
parts that are done at the same time in one process share it. Knows lifetimes; knows no HTTP.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from capfilt.fetch.client import Client, Fetched
from capfilt.fetch.config import FetchConfig

_CLOSING_S = 5.0


def fetch_all(urls: Sequence[str], config: FetchConfig) -> list[Fetched]:
    """Fetches and normalises each URL; one that fails never fails another.

    Args:
        urls: any texts; what is no web address is refused.
        config: bounds, manners and open addresses.

    Returns:
        One result a URL, in the same order.
    """
    if not urls:
        return []
    with _clients.lent(config) as standing:
        return standing.fetch_all(urls)


class _Standing:
    """A client in a thread of its own."""

    def __init__(self, config: FetchConfig) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._thread.start()
        try:
            self._client = asyncio.run_coroutine_threadsafe(_made(config), self._loop).result()
        except BaseException:  # Ctrl-C too: the thread does not stay behind
            self._end()
            raise
        self.users = 0

    def fetch_all(self, urls: Sequence[str]) -> list[Fetched]:
        job = asyncio.run_coroutine_threadsafe(self._client.fetch_all(urls), self._loop)
        try:
            return job.result()
        except BaseException:  # Ctrl-C above all: what is under way is not worth finishing
            job.cancel()
            raise

    def close(self) -> None:
        try:
            asyncio.run_coroutine_threadsafe(_ended(self._client), self._loop).result(_CLOSING_S)
        finally:
            self._end()

    def abandon(self) -> None:
        self._client.abandon()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSING_S)
        if not self._loop.is_running():
            self._loop.close()


async def _made(config: FetchConfig) -> Client:
    return Client(config)


async def _ended(client: Client) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await client.close()
    await asyncio.sleep(0)  # transports say goodbye in the loop's next turn


class _Clients:
    """The clients of this process, by their configuration."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._standing: dict[FetchConfig, _Standing] = {}

    @contextmanager
    def lent(self, config: FetchConfig) -> Iterator[_Standing]:
        """The client of a configuration; making a new one closes those that nobody uses."""
        with self._lock:
            found = self._standing.get(config)
            if found is None:
                self._close_idle()
                found = self._standing[config] = _Standing(config)
            found.users += 1
        try:
            yield found
        finally:
            with self._lock:
                found.users -= 1

    def close(self) -> None:
        """Closes them all, at the process's end."""
        with self._lock:
            while self._standing:
                self._standing.popitem()[1].close()

    def forget(self) -> None:
        """A forked child has the objects but not their threads."""
        self._lock = threading.Lock()
        for standing in self._standing.values():
            standing.abandon()
        self._standing = {}

    def _close_idle(self) -> None:
        for config in [config for config, standing in self._standing.items() if not standing.users]:
            self._standing.pop(config).close()


_clients = _Clients()
atexit.register(_clients.close)
os.register_at_fork(after_in_child=_clients.forget)

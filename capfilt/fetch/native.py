"""Requests by aiohttp: many at once in one event loop, connections kept, every address checked where it is used.

Knows aiohttp; knows neither turns nor retries nor pictures.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from capfilt.fetch import failures
from capfilt.fetch.addresses import Gate, GuardedResolver, RefusedAddressError, shown
from capfilt.fetch.answers import Body, Head
from capfilt.fetch.config import FetchConfig
from capfilt.fetch.failures import Passing
from capfilt.images import Refused

T = TypeVar("T")

_log = logging.getLogger(__name__)
_DNS_LASTS_S = 300
HEADERS = {
    "Accept": "image/jpeg,image/png,image/webp,image/*;q=0.8",
    # Pictures gain nothing from another compression, and each is one more way to send a bomb.
    "Accept-Encoding": "identity",
}
"""What every request says beside who asks."""


class _Connector(aiohttp.TCPConnector):
    """A connector that, in a forked child, does not close what is its parent's."""

    _born_in = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._born_in = os.getpid()

    def __del__(self, *args: Any) -> None:
        # The child shares the parent's epoll: closing there would take the parent's sockets out of it.
        if self._born_in == os.getpid():
            super().__del__(*args)


class Native:
    """An engine: one request at a time each, through one session. Made within its event loop.

    Args:
        config: time-outs, open addresses and the name it goes by.
        gate: which addresses are open.
        resolver: finds the open addresses of names.
    """

    def __init__(self, config: FetchConfig, gate: Gate, resolver: GuardedResolver) -> None:
        connector = _Connector(
            resolver=resolver,
            socket_factory=gate.make_socket,
            limit=0,  # turns are taken before, where waiting costs no time-out
            ttl_dns_cache=_DNS_LASTS_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={**HEADERS, "User-Agent": config.user_agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(connect=config.timeout_connect_s, sock_read=config.timeout_read_s),
            auto_decompress=False,
            trust_env=False,
        )

    async def get(
        self, address: URL, left_s: float, judge: Callable[[Head], T | None], cap: int
    ) -> bytes | T | Refused | Passing:
        """One request, no redirect followed: what ``judge`` makes of the head, else the body, or the failure."""
        host = shown(address.raw_host or "")
        try:
            async with (
                asyncio.timeout(max(left_s, 0)),
                self._session.get(address, allow_redirects=False) as response,
            ):
                head = _head(host, response)
                verdict = judge(head)
                return await _body(response, head, cap) if verdict is None else verdict
        except (aiohttp.ClientError, OSError, RefusedAddressError) as error:
            return failures.of_error(host, error)
        except Exception as error:  # noqa: BLE001  a stranger's server may find any hole in the HTTP stack
            _log.warning("unexpected failure of a fetch from %s", host, exc_info=True)
            return failures.of_error(host, error)

    async def close(self) -> None:
        """Closes the kept connections."""
        await self._session.close()

    def abandon(self) -> None:
        """Lets go of all without closing it: a forked child does not own what it inherited."""
        self._session.detach()


def _head(host: str, response: aiohttp.ClientResponse) -> Head:
    headers = response.headers
    return Head(
        host=host,
        status=response.status,
        location=headers.get("Location"),
        retry_after=headers.get("Retry-After"),
        robots_tags=tuple(headers.getall("X-Robots-Tag", ())),
        length=response.content_length,
        coding=headers.get("Content-Encoding", "").strip().lower(),
    )


async def _body(response: aiohttp.ClientResponse, head: Head, cap: int) -> bytes | Refused:
    body = Body(head, cap)
    while body.refused is None:
        piece = await response.content.readany()
        if not piece:
            break
        body.add(piece)
    return body.whole()

"""Many URLs in, as many pictures or reasons out: safe, bounded, asynchronous HTTP.

Each URL is judged before and at every hop (``addresses``), its answer read within caps (``answers``), its
failures put into words (``failures``), its bytes made a picture in threads (``images``). Knows no tables and no
engine.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from capfilt.fetch import answers, failures
from capfilt.fetch.addresses import Gate, GuardedResolver, RefusedAddressError, shown
from capfilt.fetch.config import FetchConfig
from capfilt.fetch.failures import Passing
from capfilt.images import Picture, Refused, normalise
from capfilt.records import Drop

Fetched = Picture | Refused
"""What becomes of one URL."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SUCCESS = frozenset({200, 203})
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?|[0-9a-f:.]+(%.*)?", re.IGNORECASE)
_LOOKUPS = 32
_ROBOT = "capfilt"
_log = logging.getLogger(__name__)
_HEADERS = {
    "Accept": "image/jpeg,image/png,image/webp,image/*;q=0.8",
    # Pictures gain nothing from another compression, and each is one more way to send a bomb.
    "Accept-Encoding": "identity",
}


def fetch_all(urls: Sequence[str], config: FetchConfig) -> list[Fetched]:
    """Fetches and normalises each URL; one that fails never fails another.

    Credentials within a URL (``user:password@``) are never sent, environment proxies never used, cookies never
    kept.

    Args:
        urls: any texts; what is no web address is refused.
        config: bounds, manners and open addresses.

    Returns:
        One result a URL, in the same order.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_fetch_all(urls, config))
    # A notebook runs a loop in this very thread.
    with ThreadPoolExecutor(1, thread_name_prefix="fetch") as aside:
        return aside.submit(lambda: asyncio.run(_fetch_all(urls, config))).result()


def parse(url: str) -> URL | Refused:
    """A text as a web address without credentials and fragment, or why it is none. Echoes nothing of it."""
    try:
        address = URL(url.strip())
    except ValueError:
        return Refused(Drop.NO_URL, "The text is no valid web address.")
    if not address.scheme:
        return Refused(Drop.NO_URL, "The text is no web address: it does not begin with http:// or https://.")
    if address.scheme not in ("http", "https"):
        return Refused(Drop.REFUSED_ADDRESS, "The address is neither http nor https; nothing else is fetched.")
    if not address.raw_host or not _HOST.fullmatch(address.raw_host):
        return Refused(Drop.NO_URL, "The web address names no valid host.")
    return address.with_user(None).with_fragment(None)


async def _fetch_all(urls: Sequence[str], config: FetchConfig) -> list[Fetched]:
    pictures = ThreadPoolExecutor(config.threads, thread_name_prefix="pictures")
    lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="lookups")
    gate = Gate(config.open_networks)
    connector = aiohttp.TCPConnector(
        resolver=GuardedResolver(gate, lookups),
        socket_factory=gate.make_socket,
        limit=0,  # turns are taken before, where waiting costs no time-out
        ttl_dns_cache=300,
    )
    try:
        async with aiohttp.ClientSession(
            connector=connector,
            headers={**_HEADERS, "User-Agent": config.user_agent},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(connect=config.timeout_connect_s, sock_read=config.timeout_read_s),
            auto_decompress=False,
            trust_env=False,
        ) as session:
            client = _Client(session, gate, pictures, config)
            return list(await asyncio.gather(*(client.fetch(url) for url in urls)))
    finally:
        # A name service that never answers must not hold up a finished batch.
        lookups.shutdown(wait=False, cancel_futures=True)
        pictures.shutdown(wait=False, cancel_futures=True)


class _Client:
    """One batch's session, its turns, and the path of a URL through it."""

    def __init__(
        self, session: aiohttp.ClientSession, gate: Gate, pictures: ThreadPoolExecutor, config: FetchConfig
    ) -> None:
        self._session = session
        self._gate = gate
        self._pictures = pictures
        self._config = config
        self._slots = asyncio.Semaphore(config.concurrency)
        self._hosts: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(config.per_host))

    async def fetch(self, url: str) -> Fetched:
        address = parse(url)
        if isinstance(address, Refused):
            return address
        outcome = await self._attempt(address)
        for attempt in range(self._config.retries):
            wait = self._wait(attempt, outcome) if isinstance(outcome, Passing) else None
            if wait is None:
                break
            await asyncio.sleep(wait)
            outcome = await self._attempt(address)
        return outcome.refused if isinstance(outcome, Passing) else outcome

    def _wait(self, attempt: int, failed: Passing) -> float | None:
        """Seconds until the next attempt; None if the server asks for more than is waited for."""
        asked = failed.after_s or 0.0
        if asked > self._config.retry_after_max_s:
            return None
        return max(asked, self._config.retry_wait_s * float(2**attempt) * random.uniform(0.5, 1.5))

    async def _attempt(self, address: URL) -> Fetched | Passing:
        """Follows redirects from an address to its end."""
        left = self._config.timeout_total_s
        for _ in range(self._config.max_redirects + 1):
            async with self._turn(address):
                started = asyncio.get_running_loop().time()
                outcome = await self._hop(address, left)
                left -= asyncio.get_running_loop().time() - started
                if isinstance(outcome, bytes):
                    return await self._picture(outcome)
            if not isinstance(outcome, URL):
                return outcome
            address = outcome
        return Refused(Drop.TOO_MANY_REDIRECTS, f"There are more than {self._config.max_redirects} redirects.")

    @asynccontextmanager
    async def _turn(self, address: URL) -> AsyncIterator[None]:
        # First the host's turn, then a slot: those who wait for a slow host keep no slot from the others.
        async with self._hosts[address.raw_host or ""], self._slots:
            yield

    async def _hop(self, address: URL, left: float) -> bytes | URL | Refused | Passing:
        """One request: the body, the address it redirects to, or the failure."""
        host = shown(address.raw_host or "")
        try:
            self._gate.check_host(address.raw_host or "")
            async with asyncio.timeout(max(left, 0)), self._session.get(address, allow_redirects=False) as response:
                return await self._answer(host, address, response)
        except (aiohttp.ClientError, OSError, RefusedAddressError) as error:
            return failures.of_error(host, error)
        except Exception as error:  # noqa: BLE001  a stranger's server may find any hole in the HTTP stack
            _log.warning("unexpected failure of a fetch from %s", host, exc_info=True)
            return failures.of_error(host, error)

    async def _answer(
        self, host: str, address: URL, response: aiohttp.ClientResponse
    ) -> bytes | URL | Refused | Passing:
        moved = response.status in _REDIRECTS and "Location" in response.headers
        if response.status not in _SUCCESS and not moved:
            return failures.of_status(host, response.status, response.headers.get("Retry-After"))
        tags = response.headers.getall("X-Robots-Tag", [])
        directive = answers.opted_out(tags, _ROBOT) if self._config.honour_opt_out else None
        if directive is not None:
            return Refused(Drop.OPTED_OUT, f"{host} asks robots to leave this picture out ({directive}).")
        if moved:
            return _target(host, address, response.headers["Location"])
        return await answers.read_body(host, response, self._config.images.max_bytes)

    async def _picture(self, body: bytes) -> Fetched:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pictures, normalise, body, self._config.images)


def _target(host: str, address: URL, location: str) -> URL | Refused:
    try:
        target = parse(str(address.join(URL(location.strip()))))
    except ValueError:
        return Refused(Drop.UNREACHABLE, f"{host} redirects to something that is no web address.")
    if isinstance(target, Refused) and target.drop is Drop.NO_URL:
        return Refused(Drop.UNREACHABLE, f"{host} redirects to something that is no web address.")
    return target

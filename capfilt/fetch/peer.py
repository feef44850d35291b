"""Requests by img2dataset's own downloader, under the same rules as ours.

Its function opens what ``guarded`` opens for it, and nothing else. It decides alone what img2dataset decides for one
request; which requests are made, when and how often is up to the client, for img2dataset asks again at once and
whatever went wrong. It has one thread a request, so ``concurrency`` is dearer here. Knows img2dataset, an extra.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import threading
import urllib.request
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

from aiohttp.abc import ResolveResult
from yarl import URL

from capfilt.errors import EngineError
from capfilt.fetch import failures
from capfilt.fetch.addresses import Gate, GuardedResolver, RefusedAddressError, shown
from capfilt.fetch.answers import Head
from capfilt.fetch.config import FetchConfig
from capfilt.fetch.failures import NoConnectionError, Passing
from capfilt.fetch.guarded import Answer, Call, JudgedError
from capfilt.fetch.native import HEADERS
from capfilt.images import Refused
from capfilt.records import Drop

T = TypeVar("T")

_log = logging.getLogger(__name__)
_DNS_LASTS_S = 300.0
_NAMES = 1000
_thread = threading.local()


def require_installed() -> None:
    """Passes where img2dataset can be loaded; loads nothing.

    Raises:
        EngineError: it is not installed.
    """
    if importlib.util.find_spec("img2dataset") is None:
        raise EngineError(
            "img2dataset is not installed",
            where="fetch.engine",
            mend="pip install 'capfilt[img2dataset]' (Python below 3.13), or set fetch.engine to native.",
        )


class Peer:
    """An engine: each request in a thread of its own. Made within its event loop.

    Args:
        config: time-outs, open addresses and the name it goes by.
        gate: which addresses are open.
        resolver: finds the open addresses of names.

    Raises:
        EngineError: img2dataset is not installed.
    """

    def __init__(self, config: FetchConfig, gate: Gate, resolver: GuardedResolver) -> None:
        require_installed()
        self._download = _loaded().download_image_with_retry
        self._config = config
        self._gate = gate
        self._resolver = resolver
        self._headers = {**HEADERS, "User-Agent": config.user_agent}
        self._names: dict[tuple[str, int], tuple[float, list[ResolveResult]]] = {}
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="img2dataset")

    async def get(
        self, address: URL, left_s: float, judge: Callable[[Head], T | None], cap: int
    ) -> bytes | T | Refused | Passing:
        """One request, no redirect followed: what ``judge`` makes of the head, else the body, or the failure."""
        host, call = shown(address.raw_host or ""), None
        try:
            async with asyncio.timeout(max(left_s, 0)):
                places = await self._places(address)
                call = Call(address, places, self._gate, self._config, self._headers, judge, cap)
                return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, call, host, str(address))
        except (OSError, RefusedAddressError) as error:
            return failures.of_error(host, error)
        except Exception as error:  # noqa: BLE001  a stranger's server may find any hole in the HTTP stack
            _log.warning("unexpected failure of a fetch from %s", host, exc_info=True)
            return failures.of_error(host, error)
        finally:
            if call is not None:
                call.break_off()

    async def close(self) -> None:
        """Ends the threads as their requests end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def abandon(self) -> None:
        """Nothing is kept that a forked child could harm."""

    async def _places(self, address: URL) -> list[ResolveResult]:
        """The open addresses of a name, as looked up at most five minutes ago."""
        key, now = (address.raw_host or "", address.port or 80), asyncio.get_running_loop().time()
        ends, places = self._names.get(key, (0.0, []))
        if ends > now:
            return places
        try:
            async with asyncio.timeout(self._config.timeout_connect_s):
                places = await self._resolver.resolve(*key)
        except TimeoutError as error:
            raise NoConnectionError from error
        while len(self._names) >= _NAMES:
            self._names.pop(next(iter(self._names)))  # the oldest
        self._names[key] = now + _DNS_LASTS_S, places
        return places

    def _run(self, call: Call, host: str, url: str) -> Any:
        """One request by img2dataset, in a thread."""
        _thread.call, _thread.error = call, None
        try:
            _, _, told = self._download((0, url), self._config.timeout_read_s, 0, self._config.robot, self._opt_outs)
        finally:
            error, _thread.call = _thread.error, None
        if call.outcome is not None and not (isinstance(call.outcome, bytes) and told):
            return call.outcome
        if error is not None:
            return failures.of_error(host, error)
        return Refused(Drop.OPTED_OUT, f"{host} asks robots to leave this picture out ({told}).")

    @property
    def _opt_outs(self) -> set[str] | None:
        return set(self._config.opt_outs) or None


def _loaded() -> ModuleType:
    """img2dataset's downloader, which from now on opens nothing by itself in our threads."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else a library of its own asks the network for news
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        from img2dataset import downloader  # noqa: PLC0415  an extra
    downloader.urllib = SimpleNamespace(request=SimpleNamespace(Request=urllib.request.Request, urlopen=_urlopen))
    return downloader  # type: ignore[no-any-return]


def _urlopen(request: urllib.request.Request, timeout: float) -> Any:
    """``urlopen`` as img2dataset's downloader finds it: guarded in our threads, and urllib's own in others."""
    call: Call | None = getattr(_thread, "call", None)
    if call is None:
        return urllib.request.urlopen(request, timeout=timeout)  # noqa: S310  not our request
    return _Watched(call, request)


class _Watched:
    """An answer that remembers what went wrong: img2dataset keeps only an exception's text."""

    def __init__(self, call: Call, request: urllib.request.Request) -> None:
        self._answer: Answer = _noting(lambda: call.open(request))
        self.headers = self._answer.headers

    def read(self) -> bytes:
        return _noting(self._answer.read)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *told: Any) -> None:
        self._answer.__exit__(*told)


def _noting(work: Callable[[], T]) -> T:
    try:
        return work()
    except JudgedError:
        raise
    except Exception as error:  # passed on: only kept for the sentence, which img2dataset would make a text of
        _thread.error = error
        raise

"""The edge: what every request passes before a route sees it, and every answer after.

Who asks is looked up first; then the body is read, within bounds of size and time, so that a stranger costs no memory
and a slow one no patience. Each answer is counted, logged in one line, and given its id and headers. Pure ASGI. Knows
no route and no model.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from capfilt.service import problems
from capfilt.service.config import LimitsConfig
from capfilt.service.logs import fields
from capfilt.service.metrics import Metrics
from capfilt.service.problems import Refusal

_log = logging.getLogger("capfilt.service.requests")
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PORT = re.compile(r":\d*$")
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "testserver"})
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class _GoneError(Exception):
    """The caller has left before its body was whole."""


class Edge:
    """The ASGI middleware.

    Args:
        app: what stands behind it.
        limits: bounds of bodies.
        metrics: where it is counted.
        identify: who a request speaks for, by its Authorization header, its path and whether it only ``reads``; raises
            :class:`Refusal`.
        local_only: whether only names of this machine may stand in Host, so that a page of a stranger's cannot
            reach a service without tokens by a name of its own.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: LimitsConfig,
        metrics: Metrics,
        identify: Callable[..., Any],
        local_only: bool,
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._identify, self._local_only = identify, local_only
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        answer = _Answer(send, asked if _ID.fullmatch(asked) else secrets.token_hex(8))
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["request_id"] = answer.id
        started = time.perf_counter()
        try:
            await self._pass(scope, receive, answer, state)
        except _GoneError:
            answer.status = 499
        except Refusal as refusal:
            await refusal.answer()(scope, receive, answer)
        except Exception:
            _log.exception("a fault", extra=fields(request=answer.id, path=scope["path"]))
            if answer.status:  # half an answer went out: nothing can be said any more
                raise
            await problems.fault()(scope, receive, answer)
        finally:
            self._told(scope, answer, time.perf_counter() - started, state)

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer, state: MutableMapping[str, Any]) -> None:
        headers = Headers(scope=scope)
        if self._local_only:
            _check_local(headers)
        # Room for a body is taken from what all callers have: a stranger gets none, on no path.
        reads = scope["method"] in ("GET", "HEAD") and not _brings_body(headers)
        state["caller"] = self._identify(headers.get("authorization"), scope["path"], reads=reads)
        size = self._announced(headers)
        if size != 0 and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # Also what keeps a stranger's page from posting here: browsers ask first before they send JSON.
            close = {"Connection": "close"}
            raise Refusal(
                415, "the body is no application/json", where="Content-Type", mend="Send JSON.", headers=close
            )
        if scope["method"] in ("GET", "HEAD", "OPTIONS") and not size:
            await self._app(scope, receive, answer)
            return
        # A body of unknown length may take all that one may.
        taken = self._limits.body_bytes if size is None else size
        if self._under_way + taken > self._limits.bodies_bytes:
            self._metrics.refused.labels("bodies").inc()
            mend = "Come again after the seconds of Retry-After."
            raise Refusal(429, "too many bodies are under way", mend=mend, headers={"Retry-After": "1"})
        self._under_way += taken
        self._metrics.bodies.set(self._under_way)
        try:
            body = await self._body(receive)
            await self._app(scope, _replayed(body, receive), answer)
        finally:
            self._under_way -= taken
            self._metrics.bodies.set(self._under_way)

    def _announced(self, headers: Headers) -> int | None:
        """The body's length in bytes; None if it comes in chunks."""
        if "transfer-encoding" in headers:
            return None
        told = headers.get("content-length", "0")
        size = int(told) if told.isascii() and told.isdigit() and len(told) < 19 else self._limits.body_bytes + 1
        if size > self._limits.body_bytes:
            raise self._too_large()
        return size

    def _too_large(self) -> Refusal:
        most = self._limits.body_bytes
        mend = f"Send at most {most:,} bytes: fewer pictures a request."
        # What is not read of the body would be taken for the next request.
        return Refusal(413, "the body is too large", where="body", mend=mend, headers={"Connection": "close"})

    async def _body(self, receive: Receive) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    body += message.get("body", b"")
                    if len(body) > self._limits.body_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            close = {"Connection": "close"}
            raise Refusal(
                408, "the body came too slowly", where="body", mend="Send it faster.", headers=close
            ) from None

    def _told(self, scope: Scope, answer: _Answer, seconds: float, state: Mapping[str, Any]) -> None:
        # The template, not the path: a stranger's paths would fill the memory with counters.
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(scope["method"] if route != "none" else "ANY", route, str(answer.status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        quiet = route in ("/healthz", "/readyz", "/metrics") and answer.status == 200
        _log.log(
            logging.DEBUG if quiet else logging.INFO,
            "request",
            extra=fields(
                request=answer.id,
                method=scope["method"],
                path=scope["path"][:200],
                route=route,
                status=answer.status,
                ms=round(seconds * 1000, 1),
                caller=getattr(state.get("caller"), "name", None),
                **({"job": state["job"]} if "job" in state else {}),
            ),
        )


class _Answer:
    """Sends on, with the headers that every answer has, and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self.id, self.status = send, request_id, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def _brings_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _check_local(headers: Headers) -> None:
    """Refuses a stranger's page that asks in the name of whoever looks at it."""
    if _PORT.sub("", headers.get("host", "").lower()) not in _LOCAL_NAMES:
        raise Refusal(403, "this name is not the service's", where="Host", mend="Ask 127.0.0.1 or localhost.")
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{headers['host'].lower()}":
        raise Refusal(403, "another page asks", where="Origin", mend="Ask from the service's own page.")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once more, whole; then what the server says."""
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again

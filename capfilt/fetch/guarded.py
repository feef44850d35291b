"""One blocking request through urllib that speaks only to addresses which were checked, within all bounds.

For libraries that download by urllib: what they open, they open here. Proxies, redirects, cookies and every scheme
but http and https are absent, for no handler of them is installed. Knows urllib and sockets; knows no library that
uses them.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from functools import cache, partial
from types import TracebackType
from typing import Any, Self

from aiohttp.abc import ResolveResult
from yarl import URL

from capfilt.fetch.addresses import Gate, RefusedAddressError, shown
from capfilt.fetch.answers import Body, Head
from capfilt.fetch.config import FetchConfig
from capfilt.fetch.failures import NoConnectionError, SilenceError

_PIECE = 64 * 1024


class JudgedError(Exception):
    """The answer is settled before its end; the call's ``outcome`` says how."""


class Call:
    """One request, made in a thread, which others can break off.

    Args:
        address: what is asked for; the request may lead nowhere else.
        places: the addresses of its host, already checked.
        gate: checks them again where the socket is made.
        config: time-outs.
        headers: what is sent, in place of what the library would send.
        judge: what the head of the answer means; None: read on.
        cap: bytes of the body.
    """

    def __init__(
        self,
        address: URL,
        places: list[ResolveResult],
        gate: Gate,
        config: FetchConfig,
        headers: dict[str, str],
        judge: Callable[[Head], Any],
        cap: int,
    ) -> None:
        self._address = address
        self._places = places
        self._gate = gate
        self._config = config
        self._headers = headers
        self._judge = judge
        self._cap = cap
        self._socket: socket.socket | None = None
        self._broken_off = False
        self.outcome: Any = None
        """What became of it: the body, or what was judged; None if it failed."""

    def open(self, request: urllib.request.Request) -> Answer:
        """What ``urlopen`` gives, once its head has been judged.

        Raises:
            JudgedError: it was judged.
            OSError, http.client.HTTPException, RefusedAddressError: it failed.
        """
        plain = urllib.request.Request(request.full_url, headers=self._headers)  # noqa: S310  no other schemes below
        opener = urllib.request.OpenerDirector()
        opener.add_handler(_Plain(self))
        opener.add_handler(_Secure(self))
        try:
            response = opener.open(plain, timeout=self._config.timeout_read_s)
        except TimeoutError as error:
            raise error if isinstance(error, NoConnectionError) else SilenceError from error
        if response is None:
            raise RefusedAddressError("The address is neither http nor https; nothing else is fetched.")
        try:
            answer = Answer(response, self)
            self._weigh(answer.head)
        except BaseException:  # whatever it was, the connection does not stay open
            response.close()
            raise
        return answer

    def connected(self, host: str, port: int) -> socket.socket:
        """A socket to the first of the checked addresses that takes a connection."""
        if (host, port) != (self._address.raw_host, self._address.port):
            raise RefusedAddressError(f"The request leads to {shown(host)}, which was not asked for.")
        ends = time.monotonic() + self._config.timeout_connect_s
        failed: OSError | None = None
        for place in self._places:
            try:
                return self._connect(place, ends)
            except TimeoutError as error:
                raise NoConnectionError from error
            except OSError as error:
                failed = error
        raise failed or OSError("no address")

    def break_off(self) -> None:
        """Ends the request from another thread: whatever waits for its socket wakes up and fails."""
        self._broken_off = True
        if self._socket is not None:
            with suppress(OSError):  # it may be over already
                # Not the TLS socket's own method, which would take the session from under its reader.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def head_of(self, response: http.client.HTTPResponse) -> Head:
        """What an answer says before its body."""
        return _head(shown(self._address.raw_host or ""), response)

    def read(self, response: http.client.HTTPResponse, head: Head) -> bytes:
        """The body, within its cap."""
        body = Body(head, self._cap)
        while body.refused is None:
            try:
                piece = response.read1(_PIECE)
            except TimeoutError as error:
                raise SilenceError from error
            if not piece:
                break
            body.add(piece)
        if body.refused is None and response.length:
            raise http.client.IncompleteRead(b"", response.length)
        self.outcome = body.whole()
        if not isinstance(self.outcome, bytes):
            raise JudgedError
        return self.outcome

    def _weigh(self, head: Head) -> None:
        self.outcome = self._judge(head)
        if self.outcome is not None:
            raise JudgedError

    def _connect(self, place: ResolveResult, ends: float) -> socket.socket:
        family = place["family"]
        target = (place["host"], self._address.port)
        made = self._gate.make_socket((family, socket.SOCK_STREAM, place["proto"], "", target))
        try:
            made.settimeout(max(ends - time.monotonic(), 0.001))
            made.connect(target)
            if self._address.scheme == "https":
                made = _tls().wrap_socket(made, server_hostname=self._address.raw_host)
            made.settimeout(self._config.timeout_read_s)
        except BaseException:  # whatever it was, the socket does not stay open
            made.close()
            raise
        self._socket = made
        if self._broken_off:
            self.break_off()
        return made


class Answer:
    """As much of ``urlopen``'s answer as a downloader uses: ``with``, ``headers`` and ``read()``."""

    def __init__(self, response: http.client.HTTPResponse, call: Call) -> None:
        self._response = response
        self._call = call
        self.headers: Message = response.headers
        self.head = call.head_of(response)

    def read(self) -> bytes:
        """The whole body; raises rather than give half of one."""
        return self._call.read(self._response, self.head)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._response.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, call: Call, port: int, host: str, **options: Any) -> None:
        self.default_port = port
        super().__init__(host, **options)
        self._call = call

    def connect(self) -> None:
        self.sock = self._call.connected(self.host.strip("[]"), self.port)


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Connection, self._call, 80), request)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Connection, self._call, 443), request)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _head(host: str, response: http.client.HTTPResponse) -> Head:
    headers = response.headers
    lengths = set(headers.get_all("Content-Length", []))
    if len(lengths) > 1 or not all(text.isascii() and text.isdigit() for text in lengths):
        raise http.client.HTTPException("contradicting or impossible lengths")
    return Head(
        host=host,
        status=response.status,
        location=headers.get("Location"),
        retry_after=headers.get("Retry-After"),
        robots_tags=tuple(headers.get_all("X-Robots-Tag", [])),
        length=int(lengths.pop()) if lengths else None,
        coding=headers.get("Content-Encoding", "").strip().lower(),
    )

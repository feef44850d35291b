"""What went wrong on the network, as a drop and a sentence a person understands.

Knows the exceptions of aiohttp and urllib, and HTTP's status numbers. Sentences name the host only: the rest of a
URL may hold credentials.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import urllib.error
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp

from capfilt.fetch.addresses import RefusedAddressError
from capfilt.images import Refused
from capfilt.records import Drop

PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of failures that may pass."""
_OS_REASONS = {
    errno.ECONNREFUSED: "refuses the connection",
    errno.EHOSTUNREACH: "cannot be reached: no route to it",
    errno.ENETUNREACH: "cannot be reached: no route to it",
    errno.EADDRNOTAVAIL: "cannot be reached: no route to it",
}
_BROKEN = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


class NoConnectionError(TimeoutError):
    """No connection in time."""


class SilenceError(TimeoutError):
    """An answer that stopped coming."""


@dataclass(frozen=True)
class Passing:
    """A failure that may pass: worth another attempt."""

    refused: Refused
    """What to record if no attempt is left."""
    after_s: float | None = None
    """Seconds that the server asks to wait, if it does."""


def too_large(host: str, size: str, cap: int) -> Refused:
    """A body beyond the cap; ``size`` says how it was found out."""
    return Refused(Drop.TOO_LARGE, f"{host} sends {size}; at most {cap:,} bytes are read.")


def of_status(host: str, status: int, retry_after: str | None) -> Refused | Passing:
    """The failure that an HTTP status other than success is."""
    known = status in HTTPStatus.__members__.values()
    phrase = f" ({HTTPStatus(status).phrase})" if known else ""
    refused = Refused(Drop.HTTP_STATUS, f"{host} answered {status}{phrase}.")
    if status in PASSING_STATUS:
        return Passing(refused, seconds_to_wait(retry_after))
    return refused


def resting(failed: Passing) -> Refused:
    """What others are told who want something of a host that asked to be left alone."""
    told = failed.refused
    return Refused(told.drop, f"{told.detail[:-1]} before and asked to be left alone; it was not asked again.")


def seconds_to_wait(retry_after: str | None) -> float | None:
    """A Retry-After header, in seconds or as a date, as seconds from now; None if absent or meaningless."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def of_error(host: str, error: BaseException) -> Refused | Passing:
    """The failure that an exception from the HTTP stack is."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return of_error(host, error.reason)
    if isinstance(error, RefusedAddressError):
        return Refused(Drop.REFUSED_ADDRESS, str(error))
    if isinstance(error, TimeoutError):
        return Refused(Drop.TIMED_OUT, f"{host} {_time_out(error)}.")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return _unreachable(host, _tls_reason(error))
    if isinstance(error, OSError) and not isinstance(error, http.client.HTTPException):
        return _of_os(host, error)
    return _of_http(host, error)


def _time_out(error: TimeoutError) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError | NoConnectionError):
        return "did not accept a connection in time"
    if isinstance(error, aiohttp.SocketTimeoutError | SilenceError):
        return "fell silent for too long"
    return "did not finish its answer in time"


def _unreachable(host: str, reason: str) -> Refused:
    return Refused(Drop.UNREACHABLE, f"{host} {reason}.")


def _tls_reason(error: BaseException) -> str:
    cause = getattr(error, "certificate_error", error)
    cause = getattr(cause, "os_error", cause)
    message = getattr(cause, "verify_message", "")
    if message:
        return f"has a TLS certificate that is not valid: {message}"
    return "could not agree on a secure (TLS) connection"


def _of_dns(host: str, error: OSError) -> Refused | Passing:
    if error.errno == socket.EAI_AGAIN:
        return Passing(_unreachable(host, "could not be looked up just now: the name service gave no answer"))
    return _unreachable(host, "could not be looked up: no such name, or it has no address")


def _of_os(host: str, error: OSError) -> Refused | Passing:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _of_dns(host, error.os_error)
    if isinstance(error, socket.gaierror):
        return _of_dns(host, error)
    if error.errno in _BROKEN:
        return Passing(_unreachable(host, "broke the connection off"))
    return _unreachable(host, _OS_REASONS.get(error.errno or 0, "cannot be connected to"))


def _of_http(host: str, error: BaseException) -> Refused | Passing:
    if isinstance(error, aiohttp.ServerDisconnectedError | http.client.RemoteDisconnected):
        return Passing(_unreachable(host, "closed the connection without an answer"))
    if isinstance(error, aiohttp.ClientPayloadError | http.client.IncompleteRead):
        return Passing(_unreachable(host, "broke off in the middle of its answer"))
    if isinstance(error, aiohttp.InvalidURL):
        return Refused(Drop.NO_URL, "The address is no valid URL.")
    if isinstance(error, aiohttp.ClientResponseError | http.client.HTTPException):
        return _unreachable(host, "answered with something that is not valid HTTP")
    return _unreachable(host, f"could not be spoken to (unexpected {type(error).__name__})")

"""Reading an answer: what its head says, opt-outs before the body, and the body within its cap, also after
decompression.

Knows HTTP's headers; knows no connections, no library that speaks HTTP, and no pictures.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from capfilt.fetch.failures import too_large
from capfilt.images import Refused
from capfilt.records import Drop

SUCCESS = frozenset({200, 203})
"""Statuses whose body is what was asked for."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 47}


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer says before its body."""

    host: str
    """Who answers, as the ledger shows it."""
    status: int
    """HTTP's number."""
    location: str | None
    """The Location header."""
    retry_after: str | None
    """The Retry-After header."""
    robots_tags: tuple[str, ...]
    """All X-Robots-Tag headers."""
    length: int | None
    """Content-Length in bytes."""
    coding: str
    """The Content-Encoding header, lower case; empty for none."""

    @property
    def moved_to(self) -> str | None:
        """Where it redirects to, if it does."""
        return self.location if self.status in _REDIRECTS else None


def opted_out(tags: Iterable[str], robots: Collection[str], directives: Collection[str]) -> str | None:
    """The directive by which X-Robots-Tag headers opt out, or None.

    Args:
        tags: the values of all X-Robots-Tag headers, as ``noai, noimageai`` or ``somebot: noindex``.
        robots: our names, lower case; directives meant for another robot are not ours.
        directives: what counts as opting out, lower case.
    """
    for tag in tags:
        meant = True
        for piece in tag.lower().split(","):
            name, colon, rest = piece.strip().partition(":")
            if colon and name != "unavailable_after":
                # "bot: noindex, noai" speaks to that bot until another is named.
                meant, name = name.strip() in robots, rest.strip()
            if meant and name in directives:
                return name
    return None


class Body:
    """A body as its pieces come, at most ``cap`` bytes of it both on the wire and after decompression.

    Args:
        head: what was said of it.
        cap: bytes.
    """

    def __init__(self, head: Head, cap: int) -> None:
        self._host = head.host
        self._cap = cap
        self._window = _WINDOW.get(head.coding)
        self._pieces = bytearray()
        self.refused: Refused | None = None
        """Why no more of it should be read, once that is known."""
        if head.length is not None and head.length > cap:
            self.refused = too_large(head.host, f"{head.length:,} bytes", cap)
        elif self._window is None and head.coding not in ("", "identity"):
            self.refused = Refused(
                Drop.NOT_AN_IMAGE, f"{head.host} sends its answer in a coding that was not asked for."
            )

    def add(self, piece: bytes) -> None:
        """The next piece from the wire."""
        self._pieces += piece
        if len(self._pieces) > self._cap:
            self.refused = too_large(self._host, "a body without end or beyond the cap", self._cap)

    def whole(self) -> bytes | Refused:
        """All of it, decompressed."""
        if self.refused is not None:
            return self.refused
        data = bytes(self._pieces)
        return data if self._window is None else _unpacked(self._host, data, self._window, self._cap)


def _unpacked(host: str, packed: bytes, window: int, cap: int) -> bytes | Refused:
    inflate = zlib.decompressobj(window)
    try:
        body = inflate.decompress(packed, cap + 1)
    except zlib.error:
        return Refused(Drop.BROKEN_IMAGE, f"{host} sends damaged compressed data.")
    if len(body) > cap:
        return too_large(host, "compressed data that unfolds beyond the cap", cap)
    if not inflate.eof:
        return Refused(Drop.BROKEN_IMAGE, f"{host} sends compressed data that is cut short.")
    return body

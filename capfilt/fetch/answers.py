"""Reading an answer: opt-outs before the body, and the body within its cap, also after decompression.

Knows aiohttp's responses; knows no pictures and no connections.
"""

from __future__ import annotations

import zlib

import aiohttp

from capfilt.fetch.failures import too_large
from capfilt.images import Refused
from capfilt.records import Drop

OPT_OUTS = frozenset({"noai", "noimageai", "noml", "noindex", "noimageindex", "none"})
"""X-Robots-Tag directives by which a site keeps its pictures out of data sets."""

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 47}


def opted_out(tags: list[str], agent: str) -> str | None:
    """The directive by which X-Robots-Tag headers opt out, or None.

    Args:
        tags: the values of all X-Robots-Tag headers, as ``noai, noimageai`` or ``somebot: noindex``.
        agent: our name; directives meant for another robot are not ours.
    """
    for tag in tags:
        meant = True
        for piece in tag.lower().split(","):
            name, colon, rest = piece.strip().partition(":")
            if colon and name != "unavailable_after":
                # "bot: noindex, noai" speaks to that bot until another is named.
                meant, name = name.strip() in agent.lower(), rest.strip()
            if meant and name in OPT_OUTS:
                return name
    return None


async def read_body(host: str, response: aiohttp.ClientResponse, cap: int) -> bytes | Refused:
    """The body, decompressed, at most ``cap`` bytes of it both on the wire and after decompression.

    Raises:
        aiohttp.ClientError: the connection broke.
    """
    if response.content_length is not None and response.content_length > cap:
        return too_large(host, f"{response.content_length:,} bytes", cap)
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        return await _read(host, response, cap)
    if coding not in _WINDOW:
        return Refused(Drop.NOT_AN_IMAGE, f"{host} sends its answer in a coding that was not asked for.")
    packed = await _read(host, response, cap)
    return packed if isinstance(packed, Refused) else _unpacked(host, packed, _WINDOW[coding], cap)


async def _read(host: str, response: aiohttp.ClientResponse, cap: int) -> bytes | Refused:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > cap:
            return too_large(host, "a body without end or beyond the cap", cap)
    return bytes(body)


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

"""What the bytes of a file say before a decoder is trusted with them: its kind, and traps set for decoders.

Knows bytes and a few headers (JPEG segments, TIFF directories, WebP canvases); decodes nothing, imports
nothing beyond the standard library.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The formats that are read; everything else is refused without reaching a parser."""

_TIFF = (b"II*\0", b"MM\0*")
_STARTS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
    "TIFF": _TIFF,
}
_EXIF = b"Exif\0\0"
_FTYP = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}
_OTHERS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip-compressed data",
    b"\x00\x00\x01\x00": "an icon (ICO), which is not supported",
    b"8BPS": "a Photoshop file, which is not supported",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL picture, which is not supported",
    b"\xff\x0a": "a JPEG XL picture, which is not supported",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 picture, which is not supported",
    b"\x1aE\xdf\xa3": "a video",
}
_HTML = re.compile(rb"<\s*(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_MARKUP = re.compile(rb"<\s*(?:script|title|meta|div|p|h1|a|b|center)\b", re.IGNORECASE)
_MAX_SEGMENTS = 4096
_MAX_SCANS = 256
_MAX_VALUES = 200_000
_TYPE_SIZE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_STRIPS = (273, 324)
_ORIENTATION = 274


def kind(data: bytes) -> str | None:
    """One of :data:`KINDS` by the leading bytes, or None. Names and content types are never believed."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for name, starts in _STARTS.items() if data.startswith(starts)), None)


def resemblance(data: bytes) -> str:
    """What bytes that are no picture look like, as the end of a sentence: "looks like an HTML page"."""
    if not data:
        return "is empty"
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"<"):
        return _markup_resemblance(head)
    if head[:1] in (b"{", b"["):
        return "looks like JSON"
    return _binary_resemblance(data)


def _markup_resemblance(head: bytes) -> str:
    if _HTML.search(head):
        return "looks like an HTML page"
    if b"<svg" in head.lower():
        return "looks like an SVG drawing, which is never rendered"
    return "looks like an HTML page" if _MARKUP.match(head) else "looks like XML"


def _binary_resemblance(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        name = _FTYP.get(data[8:12])
        return f"looks like {name}, which is not supported" if name else "looks like a video"
    for start, what in _OTHERS.items():
        if data.startswith(start):
            return f"looks like {what}"
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in data[:512]):
        return "looks like plain text"
    return "is in no picture format that is read"


def trap(data: bytes, kind: str, max_pixels: int) -> str | None:
    """Why a decoder should not be given these bytes, as a sentence, or None.

    These are headers that cost a decoder far more time or memory than a picture's size says: thousands
    of JPEG scans over the whole picture, TIFF tiles larger than the picture, directory entries that
    all point at the same bytes.
    """
    if kind == "JPEG":
        # 0xFF is stuffed within a scan, so this pair stands for a scan (or, rarely, for a byte of metadata).
        if data.count(b"\xff\xda") > _MAX_SCANS:
            return f"the JPEG has more than {_MAX_SCANS} scans"
        if sum(1 for _ in jpeg_segments(data)) >= _MAX_SEGMENTS:
            return f"the JPEG has more than {_MAX_SEGMENTS} header segments"
    return _tiff_trap(data, max_pixels) if kind == "TIFF" else None


def webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Width and height in px of a WebP's canvas, from its header; None if it has no readable one.

    The WebP decoder allocates its canvas while opening, so the size must be known before.
    """
    form, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if form == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if form == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if form == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The (marker, start, stop) of each segment before the first scan, in bytes of ``data``, at most 4096."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] == 0xDA:
            return
        marker = data[at + 1]
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at, stop
        at = stop


def take_exif(data: bytes) -> tuple[bytes, bytes]:
    """A JPEG without its EXIF segments, and the first of them (empty if none).

    PIL reads EXIF while it opens a JPEG; a crafted directory makes it copy the same bytes thousands of times.
    """
    found = [(a, b) for marker, a, b in jpeg_segments(data) if marker == 0xE1 and data[a + 4 : a + 10] == _EXIF]
    if not found:
        return data, b""
    pieces, at = [], 0
    for start, stop in found:
        pieces.append(data[at:start])
        at = stop
    pieces.append(data[at:])
    return b"".join(pieces), data[found[0][0] + 4 : found[0][1]]


def png_exif(data: bytes) -> bytes:
    """What a PNG's ``eXIf`` chunk holds, which may stand behind the pixels, where PIL sees it only after decoding."""
    at = 8
    while b"eXIf" in data[at:] and at + 8 <= len(data):
        size, name = struct.unpack_from(">L4s", data, at)
        if name == b"eXIf":
            return data[at + 8 : at + 8 + size]
        at += size + 12
    return b""


def orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 when absent or damaged."""
    for tag, kind_, count, value in _entries(exif.removeprefix(_EXIF)):
        # A SHORT by the standard; some cameras write a LONG, and viewers obey it.
        if tag == _ORIENTATION and kind_ in (3, 4) and count == 1:
            return value if 1 <= value <= 8 else 1
    return 1


def _entries(tiff: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The (tag, type, count, value or offset) of the first directory; nothing if there is none."""
    if not tiff.startswith(_TIFF) or len(tiff) < 8:
        return
    order = "<" if tiff[:2] == b"II" else ">"
    at = int(struct.unpack_from(order + "L", tiff, 4)[0])
    if at + 2 > len(tiff):
        return
    for index in range(struct.unpack_from(order + "H", tiff, at)[0]):
        entry = tiff[at + 2 + 12 * index : at + 14 + 12 * index]
        if len(entry) < 12:
            return
        tag, kind_, count, value = struct.unpack(order + "HHLL", entry)
        if kind_ == 3 and count == 1:
            value = struct.unpack_from(order + "H", entry, 8)[0]
        yield tag, kind_, count, value


def _tiff_trap(data: bytes, max_pixels: int) -> str | None:
    total, tile = 0, {322: 1, 323: 1}
    for tag, kind_, count, value in _entries(data):
        total += _TYPE_SIZE.get(kind_, 0) * count
        if count > _MAX_VALUES and (tag in _STRIPS or kind_ not in (1, 2, 7)):
            return f"the TIFF has a directory entry of more than {_MAX_VALUES} values"
        if tag in tile:
            tile[tag] = value
    if total > len(data):
        return "the TIFF's directory claims more bytes than the file has"
    if tile[322] * tile[323] > max_pixels:
        return f"the TIFF has tiles of {tile[322]} x {tile[323]} pixels"
    return None

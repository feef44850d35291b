"""Files that are not the pictures they claim to be, for the end of the bundled sample.

Each is made here, so that none of them is a stranger's. Knows file formats; knows no tables.
"""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image, ImageDraw

GIANT_SIDE = 20_000


def html_page() -> bytes:
    """What a server sends for a picture that was taken down."""
    return (
        b"<!doctype html>\n<html lang='en'><head><title>Not here</title></head>"
        b"<body><h1>This picture has moved</h1><p>Please visit our new gallery.</p></body></html>\n"
    )


def truncated_jpeg() -> bytes:
    """The first third of a JPEG, as after a broken upload."""
    picture = Image.new("RGB", (256, 192), "skyblue")
    pen = ImageDraw.Draw(picture)
    for step in range(0, 256, 8):
        pen.line((step, 0, 255 - step, 191), fill=(step, 120, 255 - step), width=3)
    whole = _encoded(picture, "JPEG")
    return whole[: len(whole) // 3]


def giant_png(side: int = GIANT_SIDE) -> bytes:
    """A white square of ``side`` x ``side`` pixels, complete and valid: 76 kB that decode to 400 million pixels."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * -(-side // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def tiny_gif() -> bytes:
    """A picture of 8 x 8 pixels, as pages use them for spacing and counting."""
    return _encoded(Image.new("P", (8, 8), 0), "GIF")


def long_strip() -> bytes:
    """A rule of 1600 x 40 pixels."""
    picture = Image.new("RGB", (1600, 40), "white")
    ImageDraw.Draw(picture).line((0, 20, 1599, 20), fill="navy", width=12)
    return _encoded(picture, "PNG")


def _encoded(picture: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()

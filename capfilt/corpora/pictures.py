"""Any picture of a package as the small square one that the corpora hold.

Letterboxed on white, never stretched. Knows pixels; knows no captions and no packages. The renderer of vectors is
an optional extra (``corpora``): only building needs it.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image

from capfilt.errors import EngineError

SIDE = 128
"""Pixels of each side of a training picture."""
QUALITY = 88
"""WebP quality, of 100."""
MAX_PIXELS = 50_000_000
"""A picture of more pixels is not decoded: the clip art holds some of 169 million."""
MAX_ASPECT = 8.0
"""Longer side over shorter; what is longer is a rule or a border, not a picture."""


@dataclass(frozen=True)
class Unfit:
    """Why a picture is not used; a closed set of short words that are counted."""

    reason: str


def render(svg: str, *, side: int = SIDE) -> Image.Image:
    """The vector picture, letterboxed, ``side`` x ``side`` RGB.

    Raises:
        EngineError: the renderer is not installed.
        ValueError: it is no SVG that can be rendered.
    """
    try:
        import resvg_py  # noqa: PLC0415 (an optional extra)
    except ImportError as error:
        raise EngineError(
            "the renderer of vector pictures is not installed", mend="pip install 'capfilt[corpora]'"
        ) from error
    # Twice the size and reduced: resvg's own edges are harder than those of pictures that were scaled.
    png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * side, skip_system_fonts=True)
    with Image.open(io.BytesIO(png)) as picture:
        return letterbox(picture, side)


def open_raster(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image | Unfit:
    """The picture, not yet decoded, or why it will not be."""
    try:
        with warnings.catch_warnings():
            # The library only warns of the large and raises for the monstrous: both are too large here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return Unfit("too_many_pixels")
    except (OSError, ValueError, SyntaxError):
        return Unfit("not_a_picture")
    width, height = picture.size
    if width * height > max_pixels:
        return Unfit("too_many_pixels")
    if max(width, height) > MAX_ASPECT * max(1, min(width, height)):
        return Unfit("bad_aspect")
    return picture


def from_raster(data: bytes, *, side: int = SIDE) -> Image.Image | Unfit:
    """The raster picture, letterboxed, ``side`` x ``side`` RGB; or why not."""
    picture = open_raster(data)
    if isinstance(picture, Unfit):
        return picture
    try:
        return letterbox(picture, side)
    except (OSError, ValueError, SyntaxError):
        return Unfit("broken_picture")


def letterbox(picture: Image.Image, side: int) -> Image.Image:
    """On a white square, as large as it fits, in the middle."""
    flat = on_white(picture, side)
    square = Image.new("RGB", (side, side), "white")
    square.paste(flat, ((side - flat.width) // 2, (side - flat.height) // 2))
    return square


def on_white(picture: Image.Image, longest: int) -> Image.Image:
    """RGB on white, reduced or enlarged so that its longer side has ``longest`` pixels."""
    scale = longest / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if scale < 0.5:
        # Whole steps first: a resize of many million pixels with a wide filter takes seconds.
        picture = picture.reduce(int(0.5 / scale)) if picture.mode in ("L", "RGB", "RGBA") else picture
    # Alpha is premultiplied for resizing, or clear pixels bleed their colour into the edges.
    clear = picture.convert("RGBA").convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    white = Image.new("RGBA", size, "white")
    return Image.alpha_composite(white, clear).convert("RGB")


def is_blank(picture: Image.Image) -> bool:
    """Whether nothing can be seen on it: one colour, or nearly."""
    low, high = picture.convert("L").getextrema()
    return bool(high - low < 16)  # type: ignore[operator]


def encode(picture: Image.Image) -> bytes:
    """WebP bytes, the same for the same pixels."""
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()

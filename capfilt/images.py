"""From a stranger's bytes to one upright, bounded RGB picture, or to the reason why not.

Knows PIL; knows nothing of where the bytes came from, of tables or of models. Formats are told by
content, sizes are read from headers before anything is decoded, and no bytes whatever make it raise.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from capfilt import likeness, sniff
from capfilt.colour import flat, foreign_profile, resampable
from capfilt.errors import DataError, RecipeError
from capfilt.records import Drop
from capfilt.resize import resized

_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PIXEL_CEILING = 178_000_000


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What a picture may be, and what it becomes."""

    max_bytes: int = 20 * 1024 * 1024
    """Largest encoded picture in bytes, 1 or more; also the cap on a download."""
    max_pixels: int = 50_000_000
    """Largest picture in pixels, 1 to 178,000,000; checked before decoding, which takes up to 12 bytes a pixel."""
    min_side: int = 32
    """Smallest shorter side in pixels, before any downsizing, 1 or more."""
    max_aspect: float = 20.0
    """Largest ratio of the longer to the shorter side, 1 or more."""
    max_side: int = 1024
    """Longer side in pixels after downsizing, 16 or more; smaller pictures are never enlarged."""
    quality: int = 92
    """JPEG quality of what is re-encoded, 1 to 100."""

    def __post_init__(self) -> None:
        _require(self.max_bytes >= 1, "max_bytes", self.max_bytes, "1 or more bytes")
        _require(1 <= self.max_pixels <= _PIXEL_CEILING, "max_pixels", self.max_pixels, f"1 to {_PIXEL_CEILING:,}")
        _require(self.min_side >= 1, "min_side", self.min_side, "1 or more pixels")
        _require(self.max_aspect >= 1, "max_aspect", self.max_aspect, "1 or more")
        _require(self.max_side >= 16, "max_side", self.max_side, "16 or more pixels")
        _require(1 <= self.quality <= 100, "quality", self.quality, "1 to 100")


@dataclass(frozen=True)
class Picture:
    """An encoded, upright, bounded RGB or grey JPEG, PNG or WebP without transparency."""

    data: bytes
    """The encoded picture."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    sha256: str
    """Hex digest of ``data``."""
    phash: str
    """Perceptual hash of what it shows, 16 hex digits."""


@dataclass(frozen=True)
class Refused:
    """Why there is no picture."""

    drop: Drop
    """The reason, as the ledger counts it."""
    detail: str
    """One sentence for a person."""


def normalise(data: bytes, limits: ImageLimits) -> Picture | Refused:
    """One upright, bounded RGB picture from any bytes; never raises, whatever the bytes are.

    EXIF rotation is applied, the first frame of an animation taken, transparency laid on white, an
    embedded colour profile turned into sRGB, and CMYK, palette and 16-bit become 8-bit RGB. An upright 8-bit RGB
    or grey JPEG, PNG or WebP that is in bounds keeps its bytes (after a full decode that proves it whole);
    all else is re-encoded as JPEG. Equal bytes give equal bytes.

    Args:
        data: the file's content.
        limits: the bounds.

    Returns:
        The picture, or the drop: TOO_LARGE, NOT_AN_IMAGE, TOO_MANY_PIXELS, TOO_SMALL, BAD_ASPECT or BROKEN_IMAGE.
    """
    if len(data) > limits.max_bytes:
        return Refused(Drop.TOO_LARGE, f"The file has {len(data):,} bytes; at most {limits.max_bytes:,} are read.")
    kind = sniff.kind(data)
    if kind is None:
        return Refused(Drop.NOT_AN_IMAGE, f"The content {sniff.resemblance(data)}.")
    try:
        with _quiet():
            return _normalise(data, kind, limits)
    except MemoryError:
        return Refused(Drop.BROKEN_IMAGE, f"The {kind} asks for more memory than there is.")
    except Exception:  # noqa: BLE001  hostile bytes in third-party parsers raise anything; the row is counted
        return Refused(Drop.BROKEN_IMAGE, f"The {kind} is damaged or cut short and cannot be decoded.")


def normalise_decoded(image: Image.Image, limits: ImageLimits) -> Image.Image | Refused:
    """As :func:`normalise` and :func:`decode` would give it if the picture came as a file; never raises.

    A picture that a file would not keep as it is, is encoded as JPEG here too, so that both read alike. Only one that
    is scaled down or that has left its file's format behind (by ``copy`` or ``convert``) may differ a little.

    Args:
        image: of any mode, also one that is not loaded yet; it is loaded, and otherwise left as it is.
        limits: the bounds; ``max_bytes`` says nothing here.

    Returns:
        The RGB image, size (width, height), or the drop: TOO_MANY_PIXELS, TOO_SMALL, BAD_ASPECT or BROKEN_IMAGE.
    """
    refused = _too_many(image.size, limits) or _bad_shape(image.size, limits)
    if refused is not None:
        return refused
    try:
        with _quiet():
            image.load()  # before anything is asked: a PNG may tell its EXIF last
            return _as_if_read(image, limits)
    except MemoryError:
        return Refused(Drop.BROKEN_IMAGE, "The picture asks for more memory than there is.")
    except Exception as error:  # noqa: BLE001  PIL's readers raise anything, and so do images that were closed
        return Refused(Drop.BROKEN_IMAGE, f"The decoded picture cannot be read: {error}.")


def decode(data: bytes) -> Image.Image:
    """The RGB image, size (width, height), of an already normalised picture.

    Raises:
        DataError: the bytes are no whole picture.
    """
    kind = sniff.kind(data)
    if kind not in _EXTENSIONS:
        raise DataError(f"not a JPEG, PNG or WebP picture: the content {sniff.resemblance(data)}")
    try:
        with _quiet():
            return _READERS[kind](BytesIO(data)).convert("RGB")
    except Exception as error:  # third-party parsers raise anything; one kind of error leaves here
        raise DataError(f"the {kind} picture cannot be decoded") from error


def extension(data: bytes) -> str:
    """``jpg``, ``png`` or ``webp``, by content.

    Raises:
        DataError: the bytes are none of these.
    """
    kind = sniff.kind(data)
    if kind not in _EXTENSIONS:
        raise DataError(f"not a JPEG, PNG or WebP picture: the content {sniff.resemblance(data)}")
    return _EXTENSIONS[kind]


def _normalise(data: bytes, kind: str, limits: ImageLimits) -> Picture | Refused:
    trap = sniff.trap(data, kind, limits.max_pixels)
    if trap is not None:
        return Refused(Drop.BROKEN_IMAGE, f"It is made to overwhelm a decoder: {trap}.")
    canvas = sniff.webp_canvas(data) if kind == "WEBP" else None
    refused = _too_many(canvas, limits)
    if refused is not None:
        return refused
    bare, exif = sniff.take_exif(data) if kind == "JPEG" else (data, b"")
    with _READERS[kind](BytesIO(bare)) as image:
        refused = _too_many(image.size, limits) or _bad_shape(image.size, limits)
        if refused is not None:
            return refused
        turn = _orientation(image, kind, data, exif)
        if _keeps(image, kind, data, turn, limits):
            return _kept(image, data)
        small = _upright(flat(_shrunk(image, limits)), turn)
        return _encoded(small, kind, limits)


def _as_if_read(image: Image.Image, limits: ImageLimits) -> Image.Image:
    kind = {"MPO": "JPEG"}.get(image.format or "", image.format or "")  # PIL's name of a JPEG with more pictures in it
    turn = _orientation(image, kind, b"", b"")
    one = kind == "JPEG" or getattr(image, "n_frames", 1) == 1
    # One of no known format, as from memory, is as good as one of a format that stays.
    stays = kind not in _READERS or kind in _EXTENSIONS
    if stays and one and _is_plain(image, turn, limits):
        return image.convert("RGB")
    # PIL turns these into RGB by way of the modes in which the transparency is not multiplied in.
    plain = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode]) if image.mode in ("La", "RGBa") else image
    return decode(_encoded(_upright(flat(_shrunk(plain, limits)), turn), kind, limits).data)


def _too_many(size: tuple[int, int] | None, limits: ImageLimits) -> Refused | None:
    if size is None or size[0] * size[1] <= limits.max_pixels:
        return None
    detail = f"It has {size[0]:,} x {size[1]:,} pixels; at most {limits.max_pixels:,} in all are decoded."
    return Refused(Drop.TOO_MANY_PIXELS, detail)


def _bad_shape(size: tuple[int, int], limits: ImageLimits) -> Refused | None:
    shorter, longer = sorted(size)
    if shorter < limits.min_side:
        return Refused(
            Drop.TOO_SMALL,
            f"It has {size[0]} x {size[1]} pixels; the shorter side must have at least {limits.min_side}.",
        )
    if longer > limits.max_aspect * shorter:
        detail = f"It has {size[0]} x {size[1]} pixels; one side is over {limits.max_aspect:g} times the other."
        return Refused(Drop.BAD_ASPECT, detail)
    return None


def _orientation(image: Image.Image, kind: str, data: bytes, exif: bytes) -> int:
    if kind == "TIFF":
        return 1  # PIL's TIFF reader turns it upright itself
    found = exif or image.info.get("exif", b"") or (sniff.png_exif(data) if kind == "PNG" else b"")
    return sniff.orientation(found) if isinstance(found, bytes) else 1


def _keeps(image: Image.Image, kind: str, data: bytes, turn: int, limits: ImageLimits) -> bool:
    """Whether the bytes may stay as they are, if they decode to the end."""
    return (
        kind in _EXTENSIONS
        and getattr(image, "n_frames", 1) == 1
        and not (kind == "PNG" and data[24] == 16)
        and _is_plain(image, turn, limits)
    )


def _is_plain(image: Image.Image, turn: int, limits: ImageLimits) -> bool:
    """Whether these pixels are those of the picture that is made of it."""
    return (
        image.mode in ("RGB", "L")
        and turn == 1
        and max(image.size) <= limits.max_side
        and "transparency" not in image.info
        and foreign_profile(image) is None
    )


def _kept(image: ImageFile.ImageFile, data: bytes) -> Picture:
    width, height = image.size
    # A reduced grey decode reads every coefficient of a JPEG: it proves the file whole at a third of the cost, and
    # is what the hash looks at.
    image.draft("L", (likeness.SIDE, likeness.SIDE))
    image.load()
    return _picture(data, image, (width, height))


def _shrunk(image: Image.Image, limits: ImageLimits) -> Image.Image:
    """The picture with its longer side at most ``max_side``, its mode kept where resampling allows."""
    width, height = image.size
    scale = limits.max_side / max(width, height)
    if scale >= 1:
        image.load()
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # A JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the cost; what is left of the way is resampled.
    image.draft(None, size)
    image.load()
    small = resized(resampable(image), size)
    small.info = {name: value for name, value in image.info.items() if name == "icc_profile"}
    return small


def _upright(image: Image.Image, turn: int) -> Image.Image:
    return image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else image


def _encoded(image: Image.Image, kind: str, limits: ImageLimits) -> Picture:
    out = BytesIO()
    # Drawings and screenshots, which come as anything but JPEG, show colour fringes with halved chroma.
    subsampling = "4:2:0" if kind == "JPEG" else "4:4:4"
    image.info = {}  # else the encoder copies the profile and comments of the original
    image.save(out, "JPEG", quality=limits.quality, subsampling=subsampling)
    return _picture(out.getvalue(), image, image.size)


def _picture(data: bytes, shows: Image.Image, size: tuple[int, int]) -> Picture:
    return Picture(data, *size, sha256=hashlib.sha256(data).hexdigest(), phash=likeness.phash(shows))


class _Quiet:
    """Ignores warnings that PIL's own modules raise while any thread is inside, and nobody else's.

    ``warnings.catch_warnings`` swaps the process's filters and so is not safe in threads; this puts one filter,
    limited to PIL, in front while somebody needs it, and takes it away with the last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filter: object = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._filter not in warnings.filters:
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._filter = warnings.filters[0]
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside and self._filter in warnings.filters:
                    warnings.filters.remove(self._filter)  # type: ignore[attr-defined]


_quiet = _Quiet()
# Memory of pictures is kept for the next ones, at most 64 MB: to get it anew costs more than to fill it.
Image.core.set_blocks_max(4)  # type: ignore[attr-defined]
# PIL logs what it makes of some files; where nobody set up logging, that would go to standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _require(good: bool, field: str, value: object, range_: str) -> None:
    if not good:
        raise RecipeError(f"{value} is out of range", where=f"images.{field}", mend=f"Give {range_}.")

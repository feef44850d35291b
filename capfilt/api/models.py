"""Captioner and filter for a few pictures at hand: by name, from files, in batches.

The roles themselves (``capfilt.roles``) take decoded pictures and seeds of rows; these take what a user has. Knows
models and pictures; knows no rows and no thresholds.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from PIL import Image

from capfilt import images, roles
from capfilt.catalog import model_folder
from capfilt.errors import DataError, ModelError, RecipeError, require_one_of, require_within
from capfilt.inputs import open_read
from capfilt.med.device import device_of, precision_of
from capfilt.peers.opening import open_captioner, open_filter
from capfilt.roles import Score, Writing
from capfilt.stages.config import Decoding, Dtype

Picture = str | Path | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray[Any, Any]
"""A file or URL, an encoded picture (bytes or a file open for reading them), or a decoded one: of PIL, or uint8
(H, W, 3) RGB or (H, W) grey."""

_LIMITS = images.ImageLimits(min_side=1, max_aspect=1000.0)
_TAKEN = "Give files, URLs, bytes, binary files, pictures of PIL, or uint8 arrays (H, W, 3) or (H, W)."


class Captioner:
    """Writes captions for pictures.

    >>> import capfilt
    >>> captioner = capfilt.Captioner.load("med-mini/captioner", decoding="beam")
    >>> [[caption]] = captioner.write(["pictures/scissors.jpg"])
    >>> caption
    'scissors'

    Nucleus sampling gives several captions; equal pictures get equal ones, in whatever batch and order:

    >>> captioner = capfilt.Captioner.load("med-mini/captioner")
    >>> both = captioner.write(["pictures/penguin.jpg", "pictures/guitar.jpg"], captions=3)
    >>> [len(captions) for captions in both]
    [3, 3]
    >>> captioner.write(["pictures/guitar.jpg"], captions=3) == both[1:]
    True
    """

    def __init__(self, inner: roles.Captioner) -> None:
        self.inner = inner

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        decoding: Decoding = "nucleus",
        beams: int = 3,
        top_p: float = 0.9,
        min_length: int = 5,
        max_length: int = 20,
        prompt: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Self:
        """A captioner of the catalogue or of a folder.

        Args:
            model: a name of ``capfilt models``, a model folder, or a folder that ``transformers`` saved.
            decoding: ``nucleus`` samples; ``beam`` and ``greedy`` take what is likely.
            beams: hypotheses of beam search, 1 or more.
            top_p: probability mass that the nucleus holds, in (0, 1].
            min_length: tokens at least, a MED's prompt counted.
            max_length: tokens at most, counted likewise.
            prompt: what another captioner than a MED is asked.
            device: ``auto`` takes a GPU where there is one; else ``cpu``, ``cuda``, ``cuda:1``, ...
            dtype: ``auto``, ``float32``, ``bfloat16``, ``float16``, or ``int8`` of a MED on a CPU.

        Raises:
            ModelError: there is no such model, or it is none that writes. EngineError: there is no such device.
            RecipeError: a setting is out of range.
        """
        require_one_of("decoding", decoding, Decoding)
        require_one_of("dtype", dtype, Dtype)
        _require_number("top_p", top_p, 1e-6, 1.0)
        _require_whole("beams", beams, 1, 64)
        _require_whole("max_length", max_length, 2, 512)
        _require_whole("min_length", min_length, 0, max_length)
        writing = Writing(
            beams={"nucleus": None, "beam": beams, "greedy": 1}[decoding],
            top_p=top_p,
            min_length=min_length,
            max_length=max_length,
        )
        where = device_of(device)
        precision = precision_of(dtype, where)
        folder = model_folder(str(model))
        return cls(open_captioner(folder, writing, prompt=prompt, device=where, dtype=precision))

    def write(
        self, pictures: Iterable[Picture], *, captions: int = 1, seed: int = 0, batch_size: int = 32
    ) -> list[list[str]]:
        """Captions for each picture.

        Args:
            pictures: files, URLs, encoded pictures (bytes, files open for reading bytes) or decoded ones (of PIL, uint8
                arrays (H, W, 3) or (H, W)), also one after the other from a generator. One of PIL is read as its file
                would be: turned by its EXIF, transparency laid on white.
            captions: so many for each, 1 to 1024; beam search gives at most as many as it has beams.
            seed: of the sampling; another one gives other captions.
            batch_size: pictures at once, 1 to 4096.

        Returns:
            For each picture as many captions, cleaned, without the prompt.

        Raises:
            SourceError: a file is not there. DataError: it is no picture; where it has no name, its place is told,
            counted from 0. RecipeError: a number is out of range, or there are more captions than beams. ModelError: a
            captioner of one's own gives fewer or more captions than it was asked for.
        """
        _require_whole("captions", captions, 1, 1024)
        _require_whole("batch_size", batch_size, 1, 4096)
        self._require_beams(captions)
        texts: list[list[str]] = []
        for some in _batches(pictures, batch_size):
            seeds = [[_seed(picture, seed, k) for k in range(captions)] for picture in some]
            texts += _as_many(self.inner.write(some, seeds), [captions] * len(some), self.inner, "captions")
        return texts

    def _require_beams(self, captions: int) -> None:
        how = getattr(self.inner, "writing", None)  # a captioner of one's own need not tell
        if isinstance(how, Writing) and how.beams is not None and captions > how.beams:
            name = "greedy decoding" if how.beams == 1 else f"beam search with {how.beams} beams"
            raise RecipeError(
                f"{name} cannot give {captions} captions an image",
                where="captions",
                mend="Raise beams, lower captions, or take decoding: nucleus.",
            )


class Filter:
    """Says how well texts match pictures.

    >>> import capfilt
    >>> filter = capfilt.Filter.load("med-mini/filter")
    >>> [[right, wrong]] = filter.score(["pictures/penguin.jpg"], [["a penguin", "an apple"]])
    >>> right.itm > wrong.itm
    True
    """

    def __init__(self, inner: roles.Filter) -> None:
        self.inner = inner

    @classmethod
    def load(cls, model: str | Path, *, device: str = "auto", dtype: str = "auto") -> Self:
        """A filter of the catalogue or of a folder.

        Args:
            model: a name of ``capfilt models``, a model folder, or a folder that ``transformers`` saved (CLIP, SigLIP).
            device: ``auto`` takes a GPU where there is one; else ``cpu``, ``cuda``, ``cuda:1``, ...
            dtype: ``auto``, ``float32``, ``bfloat16``, ``float16``, or ``int8`` of a MED on a CPU.

        Raises:
            ModelError: there is no such model, or it is none that scores. EngineError: there is no such device.
            RecipeError: there is no such dtype.
        """
        require_one_of("dtype", dtype, Dtype)
        where = device_of(device)
        return cls(open_filter(model_folder(str(model)), device=where, dtype=precision_of(dtype, where)))

    def score(
        self, pictures: Iterable[Picture], texts: Iterable[Iterable[str]], *, batch_size: int = 32
    ) -> list[list[Score]]:
        """A score for each text of each picture.

        Args:
            pictures: files, URLs, encoded pictures (bytes, files open for reading bytes) or decoded ones (of PIL, uint8
                arrays (H, W, 3) or (H, W)), also one after the other from a generator. One of PIL is read as its file
                would be: turned by its EXIF, transparency laid on white.
            texts: for each picture any number of texts.
            batch_size: pictures at once, 1 to 4096.

        Returns:
            As ``texts``. ``itm`` is P(match) in [0, 1], or None of a model that knows only cosines; ``itc`` is that.

        Raises:
            SourceError: a file is not there. DataError: it is no picture, or there are not as many lists of texts, or
            something in them is no text; where a picture has no name, its place is told, counted from 0.
            RecipeError: ``batch_size`` is out of range. ModelError: a filter of one's own gives fewer or more scores
            than it was asked for.
        """
        _require_whole("batch_size", batch_size, 1, 4096)
        rows = _texts(texts)
        if isinstance(pictures, Sized) and not _is_one(pictures):
            _require_rows(len(rows), len(pictures))
        scores: list[list[Score]] = []
        seen = 0
        for some in _batches(pictures, batch_size):
            own, seen = rows[seen : seen + len(some)], seen + len(some)
            if len(own) < len(some):
                _require_rows(len(rows), seen, "or more")
            scores += _as_many(self.inner.score(some, own), [len(row) for row in own], self.inner, "scores")
        _require_rows(len(rows), seen)
        return scores


def _require_number(field: str, value: object, low: float, high: float) -> None:
    if not isinstance(value, int | float | np.integer | np.floating):
        raise RecipeError(f"{value!r} is no number", where=field, mend=f"Give one within [{low:g}, {high:g}].")
    require_within(field, float(value), low, high)


def _require_whole(field: str, value: object, low: int, high: int) -> None:
    try:
        whole = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise RecipeError(
            f"{value!r} is no whole number", where=field, mend=f"Give one within [{low}, {high}]."
        ) from error
    require_within(field, whole, low, high)


def _require_rows(rows: int, pictures: int, more: str = "") -> None:
    if rows != pictures:
        raise DataError(
            f"{rows} lists of texts for {pictures} {more}".rstrip() + " pictures",
            mend="Give each picture a list of texts.",
        )


def _texts(texts: Iterable[Iterable[str]]) -> list[list[str]]:
    """The texts as a tokenizer takes them: lone surrogates, which are no text in UTF-8, become question marks."""
    mend = 'Give each picture a list of texts: [["a penguin"]].'
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise DataError(f"{_what(texts)} where lists of texts are meant", where="texts", mend=mend)
    rows = []
    for place, row in enumerate(texts):
        if isinstance(row, str) or not isinstance(row, Iterable):
            raise DataError(
                f"{_what(row)} where a list of texts is meant", where=f"the texts of picture {place}", mend=mend
            )
        rows.append([_text(text, at, place) for at, text in enumerate(row)])
    return rows


def _text(text: object, at: int, place: int) -> str:
    if not isinstance(text, str):
        raise DataError(f"{_what(text)} is no text", where=f"text {at} of picture {place}", mend="Leave it out.")
    return text.encode("utf-8", "replace").decode()


def _as_many(results: Any, wanted: Sequence[int], inner: object, what: str) -> list[list[Any]]:
    """What a model gave, once it is known to be what it was asked for: else it would go to other pictures."""
    rows = list(results) if isinstance(results, Iterable) and not isinstance(results, str) else []
    found = [len(row) if isinstance(row, Sized) and not isinstance(row, str) else -1 for row in rows]
    if len(rows) != len(wanted):
        told = f"it gave {what} for {len(rows)} pictures of {len(wanted)}"
    elif found != list(wanted):
        at = next(i for i, (have, want) in enumerate(zip(found, wanted, strict=True)) if have != want)
        told = f"it gave {max(found[at], 0)} {what} for a picture, not {wanted[at]}"
    else:
        return [list(row) for row in rows]
    raise ModelError(told, where=type(inner).__name__, mend="Let it give a list for each picture, in their order.")


def _batches(pictures: Iterable[Picture], size: int) -> Iterator[list[Image.Image]]:
    if _is_one(pictures):
        raise DataError(
            f"{_what(pictures)} where several pictures are meant", where="pictures", mend='Give a list: ["a.jpg"].'
        )
    if not isinstance(pictures, Iterable):
        raise DataError(f"{_what(pictures)} where pictures are meant", where="pictures", mend=_TAKEN)
    opened = (_opened(picture, place) for place, picture in zip(count(), pictures, strict=False))
    while some := list(islice(opened, size)):
        yield some


def _is_one(pictures: object) -> bool:
    """Whether it is a picture, or the name of one, though pictures are meant; it may be iterable all the same."""
    if isinstance(pictures, np.ndarray):
        return pictures.ndim < 4 and pictures.dtype != object
    return isinstance(pictures, str | Path | bytes | bytearray | memoryview | Image.Image) or hasattr(pictures, "read")


def _opened(picture: object, place: int) -> Image.Image:
    """The RGB image of what a user gives as a picture."""
    name = f"picture {place}"
    if isinstance(picture, np.ndarray):
        return _decoded(_of_array(picture, name), name)
    if isinstance(picture, Image.Image):
        return _decoded(picture, name)
    mend = "Leave it out."
    if isinstance(picture, str | Path):
        name = str(picture)
        with open_read(name) as file:
            data = file.read(_LIMITS.max_bytes + 1)
    elif isinstance(picture, bytes | bytearray | memoryview):
        data = bytes(picture)
    elif hasattr(picture, "read"):
        data, mend = _read(picture, name), "Leave it out, or go to its beginning first: file.seek(0)."
    else:
        raise DataError(f"{_what(picture)} is no picture", where=name, mend=_TAKEN)
    found = images.normalise(data, _LIMITS)
    if isinstance(found, images.Refused):
        raise DataError(f"it cannot be decoded: {found.detail}", where=name, mend=mend)
    return images.decode(found.data)


def _decoded(picture: Image.Image, name: str) -> Image.Image:
    found = images.normalise_decoded(picture, _LIMITS)
    if isinstance(found, images.Refused):
        raise DataError(f"it cannot be read: {found.detail}", where=name, mend="Leave it out.")
    return found


def _of_array(array: np.ndarray[Any, Any], name: str) -> Image.Image:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not shaped or not array.size:
        raise DataError(f"{_what(array)} is no picture", where=name, mend="Give uint8 (H, W, 3) or (H, W).")
    return Image.fromarray(np.ascontiguousarray(array))


def _read(file: Any, name: str) -> bytes:
    try:
        data = file.read(_LIMITS.max_bytes + 1)
    except (OSError, ValueError, TypeError) as error:  # it fails, is closed, or reads in another way than files do
        raise DataError(f"it cannot be read: {error}", where=name, mend="Give a file open for reading.") from error
    if not isinstance(data, bytes):
        raise DataError(
            f"{_what(file)} gives {_what(data)}, not bytes", where=name, mend='Open it for bytes: open(name, "rb").'
        )
    return data


def _what(thing: object) -> str:
    """What it is, for a person."""
    if isinstance(thing, np.ndarray):
        return f"an array of {thing.dtype} {thing.shape}"
    if thing is None:
        return "None"
    name = type(thing).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _seed(picture: Image.Image, seed: int, k: int) -> int:
    """128 bits of what the picture shows, so that neither its place nor its batch matters."""
    digest = hashlib.blake2b(f"{seed}:{k}:{picture.size}:".encode(), digest_size=16)
    digest.update(picture.tobytes())
    return int.from_bytes(digest.digest(), "big")

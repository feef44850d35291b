"""Captioner and filter for a few pictures at hand: by name, from files, in batches.

The roles themselves (``capfilt.roles``) take decoded pictures and seeds of rows; these take what a user has. Knows
models and pictures; knows no rows and no thresholds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Self

from PIL import Image

from capfilt import images, roles
from capfilt.catalog import model_folder
from capfilt.errors import DataError
from capfilt.inputs import open_read
from capfilt.med.device import device_of, precision_of
from capfilt.peers.opening import open_captioner, open_filter
from capfilt.roles import Score, Writing

Picture = str | Path | bytes | Image.Image
"""A file or URL, an encoded picture, or a decoded one."""
Decoding = Literal["nucleus", "beam", "greedy"]

_LIMITS = images.ImageLimits(min_side=1, max_aspect=1000.0)


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
        """
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
        self, pictures: Sequence[Picture], *, captions: int = 1, seed: int = 0, batch_size: int = 32
    ) -> list[list[str]]:
        """Captions for each picture.

        Args:
            pictures: files, URLs, encoded or decoded pictures.
            captions: so many for each; beam search gives at most as many as it has beams.
            seed: of the sampling; another one gives other captions.
            batch_size: pictures at once.

        Returns:
            For each picture as many captions, cleaned, without the prompt.

        Raises:
            SourceError: a file is not there. DataError: it is no picture.
        """
        texts: list[list[str]] = []
        for some in _batches(pictures, batch_size):
            seeds = [[_seed(picture, seed, k) for k in range(captions)] for picture in some]
            texts += self.inner.write(some, seeds)
        return texts


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
        """
        where = device_of(device)
        return cls(open_filter(model_folder(str(model)), device=where, dtype=precision_of(dtype, where)))

    def score(
        self, pictures: Sequence[Picture], texts: Sequence[Sequence[str]], *, batch_size: int = 32
    ) -> list[list[Score]]:
        """A score for each text of each picture.

        Args:
            pictures: files, URLs, encoded or decoded pictures.
            texts: for each picture any number of texts.
            batch_size: pictures at once.

        Returns:
            As ``texts``. ``itm`` is P(match) in [0, 1], or None of a model that knows only cosines; ``itc`` is that.

        Raises:
            SourceError: a file is not there. DataError: it is no picture, or there are not as many lists of texts.
        """
        if len(texts) != len(pictures):
            raise DataError(
                f"{len(texts)} lists of texts for {len(pictures)} pictures", mend="Give each picture a list of texts."
            )
        scores: list[list[Score]] = []
        for some in _batches(pictures, batch_size):
            scores += self.inner.score(some, texts[len(scores) : len(scores) + len(some)])
        return scores


def _batches(pictures: Sequence[Picture], size: int) -> Iterator[list[Image.Image]]:
    for first in range(0, len(pictures), size):
        yield [_opened(picture) for picture in pictures[first : first + size]]


def _opened(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    where = "" if isinstance(picture, bytes) else str(picture)
    found = images.normalise(picture if isinstance(picture, bytes) else _bytes(where), _LIMITS)
    if isinstance(found, images.Refused):
        raise DataError(f"it cannot be decoded: {found.detail}", where=where or "a picture", mend="Leave it out.")
    return images.decode(found.data)


def _bytes(where: str) -> bytes:
    with open_read(where) as file:
        return file.read(_LIMITS.max_bytes + 1)


def _seed(picture: Image.Image, seed: int, k: int) -> int:
    """128 bits of what the picture shows, so that neither its place nor its batch matters."""
    digest = hashlib.blake2b(f"{seed}:{k}:{picture.size}:".encode(), digest_size=16)
    digest.update(picture.tobytes())
    return int.from_bytes(digest.digest(), "big")

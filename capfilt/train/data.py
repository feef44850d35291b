"""Batches from pairs: pictures decoded and augmented, texts tokenised, in background processes if asked.

A picture that cannot be decoded is told of and its row taken by another of the batch, so that all processes of a run
stay at the same place. Knows pairs and tokens; knows no model weights and no losses.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from capfilt.errors import CapfiltError, DataError, TrainingError
from capfilt.med.pixels import normalise, to_uint8
from capfilt.med.tasks import Batch, Unmatched
from capfilt.med.tokenizer import MEDTokenizer, Tokens
from capfilt.train import augment
from capfilt.train.pairs import Pair, Pairs, Place


@dataclass(frozen=True)
class Raw:
    """A collated batch before it reaches the device: uint8 pixels (B, 3, S, S), tokens, ids (B,)."""

    pixels: Tensor
    tokens: Tokens
    images: Tensor
    texts: Tensor
    names: tuple[str, ...]
    """Where each row's pair is (``shard#key``)."""
    unmatched: Unmatched | None = None
    """Texts that describe no picture, and the rows that they stand beside."""
    places: Mapping[int, Place] = field(default_factory=dict)
    """How far the streams of the loader process that made it are, this batch behind them."""
    bad: tuple[tuple[str, str], ...] = ()
    """(name, reason) of what was passed over on the way."""

    def to(self, device: torch.device) -> Batch:
        """Normalised on the device."""
        pixels = normalise(self.pixels.to(device, non_blocking=True))
        images, texts = (t.to(device, non_blocking=True) for t in (self.images, self.texts))
        unmatched = self.unmatched and Unmatched(
            self.unmatched.tokens.to(device), self.unmatched.rows.to(device, non_blocking=True)
        )
        return Batch(pixels, self.tokens.to(device), images, texts, unmatched)

    def pin_memory(self) -> Raw:
        """The same in page-locked memory, which a GPU copies from without waiting."""
        tokens = _pinned(self.tokens)
        unmatched = self.unmatched and Unmatched(_pinned(self.unmatched.tokens), self.unmatched.rows.pin_memory())
        pixels, images, texts = (t.pin_memory() for t in (self.pixels, self.images, self.texts))
        return replace(self, pixels=pixels, tokens=tokens, images=images, texts=texts, unmatched=unmatched)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a batch is made to.

    Args:
        size: side of the pictures in px. batch_size: pairs, those of all processes of the run. rows: this process's
            share of them. prompt: put before each text.
    """

    size: int
    batch_size: int
    rows: slice
    prompt: str = ""


class BatchStream(IterableDataset[Raw | CapfiltError]):
    """Endless batches. Every process of a run decodes its own rows of each batch, augmented as they would be in the
    whole batch, and reads the streams that these rows are of: a batch is made of as many rows of each stream, one
    stream behind the other.

    An error that a user can mend is the last item: raised in a loader process, it would reach the run as text only.

    Args:
        pairs: counted. tokenizer: of the model. shape: of a batch. seed: of order and augmentation.
        skip: batches that are behind the run. places: how far each stream of each loader process is, by ``loader
            process * streams + stream``.
    """

    def __init__(
        self,
        pairs: Pairs,
        tokenizer: MEDTokenizer,
        shape: Shape,
        *,
        seed: int,
        skip: int = 0,
        places: Mapping[int, Place] | None = None,
    ) -> None:
        self.pairs, self.tokenizer, self.shape = pairs, tokenizer, shape
        self.seed, self.skip, self.places = seed, skip, dict(places or {})

    def __iter__(self) -> Iterator[Raw | CapfiltError]:
        """Batches of this loader process: every ``workers``-th of all."""
        info = get_worker_info()
        place, workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            torch.set_num_threads(1)
        # The loader asks its processes in turn, from 0; after a resume it must begin with the one whose turn it was.
        worker = (place + self.skip) % workers
        passed = (self.skip - worker + workers - 1) // workers
        streams = self.pairs.config.streams
        rows = range(self.shape.batch_size)[self.shape.rows]
        of_each = self.shape.batch_size // streams
        try:
            mine = {
                stream: self.pairs.shuffled(
                    seed=self.seed,
                    worker=worker,
                    workers=workers,
                    start=self.places.get(worker * streams + stream, Place()),
                    stream=stream,
                )
                for stream in sorted({row // of_each for row in rows})
            }
            for number in count(passed):
                taken = {stream: [next(pairs) for _ in range(of_each)] for stream, pairs in mine.items()}
                own = [taken[row // of_each][row % of_each][0] for row in rows]
                batch = self._batch(own, rows, number * workers + worker)
                bad = (*self.pairs.take_bad(), *batch.bad)
                places = {worker * streams + stream: pairs[-1][1] for stream, pairs in taken.items()}
                yield replace(batch, places=places, bad=bad)
        except CapfiltError as error:
            yield error

    def _batch(self, pairs: list[Pair], rows: range, number: int) -> Raw:
        bad: list[tuple[str, str]] = []
        found: list[tuple[Pair, Tensor] | None] = []
        for pair, row in zip(pairs, rows, strict=True):
            try:
                picture = _decode(pair.image)
            except Exception as error:  # noqa: BLE001 parsers raise anything on a stranger's bytes
                bad.append(self.refused(pair, error))
                found.append(None)
            else:
                found.append((pair, self._pixels(picture, self._generator(number, row))))
        return replace(_collated(_filled(found), self), unmatched=self._unmatched(number), bad=tuple(bad))

    def _unmatched(self, number: int) -> Unmatched | None:
        """Which of this process's rows ITM is shown with boilerplate, and with which: the same however many processes
        there are."""
        texts, share = self.pairs.boilerplate, self.pairs.config.boilerplate_share
        if not texts or not share:
            return None
        drawn: list[tuple[int, str]] = []
        for at, row in enumerate(range(self.shape.batch_size)[self.shape.rows]):
            draw = random.Random(f"{self.seed}:{number}:{row}:boilerplate")
            if draw.random() < share:
                drawn.append((at, draw.choice(texts)))
        if not drawn:
            return None
        tokens = self.tokenizer([text for _, text in drawn], max_tokens=self.pairs.config.max_tokens)
        return Unmatched(tokens, torch.tensor([at for at, _ in drawn]))

    def refused(self, pair: Pair, error: Exception) -> tuple[str, str]:
        """Name of a pair whose picture cannot be decoded, and the reason.

        Raises:
            DataError: ``data.strict``.
        """
        reason = f"the picture cannot be decoded: {str(error) or type(error).__name__}"
        if self.pairs.config.strict:
            mend = "Run `capfilt verify` on the data set, or train without --strict."
            raise DataError(reason, where=pair.name, mend=mend) from error
        return pair.name, reason

    def _generator(self, number: int, row: int) -> torch.Generator:
        """Of one picture's augmentation: whichever process decodes it draws the same."""
        seed = _hash64(f"{self.seed}:{number}:{row}".encode()) & (2**63 - 1)
        return torch.Generator().manual_seed(seed)

    def _pixels(self, picture_CHW: Tensor, generator: torch.Generator) -> Tensor:
        config = self.pairs.config
        x_CHW = augment.crop(picture_CHW, self.shape.size, config.min_scale, generator)
        if config.flip:
            x_CHW = augment.mirror(x_CHW, generator)
        return augment.distort(x_CHW, generator) if config.rand_augment else x_CHW


def loader(stream: BatchStream, *, processes: int, pin: bool) -> DataLoader[Any]:
    """The stream in ``processes`` background processes, 0 for none."""
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=processes,
        pin_memory=pin,
        prefetch_factor=4 if processes else None,
        persistent_workers=bool(processes),
        # The loader draws a seed when it starts; from the run's own generator that would move a resumed run's dropout.
        generator=torch.Generator(),
    )


def plain_batches(pairs: Pairs, tokenizer: MEDTokenizer, shape: Shape, *, limit: int) -> Iterator[Raw]:
    """The first ``limit`` whole batches in the order of the shards, not augmented: pictures are squeezed to the square.

    What cannot be decoded is left out and told with the batch that follows.

    Raises:
        DataError: ``data.strict``, and a picture cannot be decoded.
    """
    taken: list[tuple[Pair, Tensor]] = []
    bad: list[tuple[str, str]] = []
    stream = BatchStream(pairs, tokenizer, shape, seed=0)
    made = 0
    for pair in (pair for source in pairs.sources for pair in pairs.read(source)):
        try:
            with Image.open(io.BytesIO(pair.image), formats=("JPEG", "PNG", "WEBP")) as image:
                taken.append((pair, to_uint8(image.convert("RGB"), shape.size)))
        except Exception as error:  # noqa: BLE001 as above
            bad.append(stream.refused(pair, error))
            continue
        if len(taken) == shape.batch_size:
            yield replace(_collated(taken[shape.rows], stream), bad=(*pairs.take_bad(), *bad))
            taken, bad, made = [], [], made + 1
            if made == limit:
                return


def _filled(found: Sequence[tuple[Pair, Tensor] | None]) -> list[tuple[Pair, Tensor]]:
    """Each row that could not be decoded becomes the next one that could, the first one again behind the last."""
    if not any(found):
        raise TrainingError(
            "no picture of a whole batch can be decoded", mend="Run `capfilt verify` on the data set; see skipped.csv."
        )
    rows: list[tuple[Pair, Tensor]] = []
    for i in range(len(found)):
        rows.append(next(row for row in (*found[i:], *found[:i]) if row))
    return rows


def _collated(rows: Sequence[tuple[Pair, Tensor]], stream: BatchStream) -> Raw:
    pairs = [pair for pair, _ in rows]
    return Raw(
        torch.stack([pixels for _, pixels in rows]),
        stream.tokenizer(
            [stream.shape.prompt + pair.text for pair in pairs], max_tokens=stream.pairs.config.max_tokens
        ),
        torch.tensor([_hash64(pair.image) for pair in pairs]),
        torch.tensor([_hash64(pair.text.encode()) for pair in pairs]),
        tuple(pair.name for pair in pairs),
    )


def _pinned(tokens: Tokens) -> Tokens:
    return Tokens(tokens.ids.pin_memory(), tokens.mask.pin_memory())


def _decode(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _hash64(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)

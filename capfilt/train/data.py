"""Batches from shards: images expanded to (image, caption) pairs, shuffled, augmented, tokenised.

The order of pairs is a function of the seed alone, so a run that goes on from a checkpoint passes over what
it has seen without decoding it. Knows shards and tokens; knows no model weights and no losses.
"""

from __future__ import annotations

import hashlib
import io
import logging
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from capfilt.captions import clean
from capfilt.errors import SourceError, TrainingError
from capfilt.med.pixels import normalise
from capfilt.med.tasks import Batch
from capfilt.med.tokenizer import MEDTokenizer, Tokens
from capfilt.records import Caption
from capfilt.shards.read import samples, shards_of
from capfilt.train import augment
from capfilt.train.config import DataConfig

_LOG = logging.getLogger("capfilt")


@dataclass(frozen=True)
class Pair:
    """One (image, caption): encoded picture and cleaned text."""

    image: bytes
    text: str


@dataclass(frozen=True)
class Raw:
    """A collated batch before it reaches the device: uint8 pixels (B, 3, S, S), tokens, ids (B,)."""

    pixels: Tensor
    tokens: Tokens
    images: Tensor
    texts: Tensor

    def to(self, device: torch.device) -> Batch:
        """Normalised on the device."""
        pixels = normalise(self.pixels.to(device, non_blocking=True))
        images, texts = (t.to(device, non_blocking=True) for t in (self.images, self.texts))
        return Batch(pixels, self.tokens.to(device), images, texts)

    def pin_memory(self) -> Raw:
        """The same in page-locked memory, which a GPU copies from without waiting."""
        tokens = Tokens(self.tokens.ids.pin_memory(), self.tokens.mask.pin_memory())
        return Raw(self.pixels.pin_memory(), tokens, self.images.pin_memory(), self.texts.pin_memory())


def shard_urls(entries: Iterable[str]) -> list[str]:
    """Shards named by files, globs, folders, or data sets that ``capfilt bootstrap`` wrote.

    Raises:
        SourceError: an entry names no shard.
    """
    urls: list[str] = []
    for entry in entries:
        urls += shards_of(entry)
    if not urls:
        raise SourceError("no shards were named", where="data.shards", mend="Name at least one shard or folder.")
    return urls


def wanted(caption: Caption, config: DataConfig) -> bool:
    """Whether a caption is trained on: its origin, its verdict and its score."""
    if caption["origin"] not in config.origins or (config.kept_only and not caption["kept"]):
        return False
    return caption["itm"] is None or caption["itm"] >= config.min_itm


class Pairs:
    """The pairs of some shards.

    Args:
        config: which shards and which captions.
        bad: by reason, the first thing that could not be read and how many; the pass that counts logs it.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.urls = shard_urls(config.shards)
        self.bad: dict[str, tuple[str, int]] = {}

    def __len__(self) -> int:
        """Pairs in all, counted by one pass.

        Raises:
            TrainingError: there is none.
        """
        self.bad.clear()
        total = sum(1 for _ in self.read(self.urls))
        if not total:
            raise TrainingError(
                "the shards hold no caption that training wants",
                where=", ".join(self.config.shards),
                mend="Check data.origins, data.kept_only and data.min_itm.",
            )
        for reason, (name, times) in self.bad.items():
            _LOG.warning("passed over in training: %s%s: %s", name, f" and {times - 1} more" * (times > 1), reason)
        return total

    def read(self, urls: list[str]) -> Iterator[Pair]:
        """Pairs in the order of the shards."""
        for sample in samples(urls, on_bad=self._bad):
            texts = (clean(caption["text"]) for caption in sample.captions if wanted(caption, self.config))
            for text in islice(filter(None, texts), self.config.captions_per_image):
                yield Pair(sample.image, text)

    def shuffled(self, *, seed: int, worker: int, workers: int) -> Iterator[Pair]:
        """Every ``workers``-th pair, epoch after epoch without end, shards and a buffer shuffled anew each time."""
        for epoch in count():
            order = random.Random(f"{seed}:{epoch}")
            urls = sorted(self.urls)
            order.shuffle(urls)
            mine = (pair for i, pair in enumerate(self.read(urls)) if i % workers == worker)
            yield from _buffered(mine, self.config.shuffle_buffer, random.Random(f"{seed}:{epoch}:{worker}"))

    def _bad(self, name: str, reason: str) -> None:
        first, times = self.bad.get(reason, (name, 0))
        self.bad[reason] = (first, times + 1)


def _buffered(pairs: Iterator[Pair], size: int, order: random.Random) -> Iterator[Pair]:
    buffer: list[Pair] = []
    for pair in pairs:
        if len(buffer) < size:
            buffer.append(pair)
            continue
        place = order.randrange(size)
        yield buffer[place]
        buffer[place] = pair
    order.shuffle(buffer)
    yield from buffer


class BatchStream(IterableDataset[Raw]):
    """Endless batches; ``skip`` of them are passed over without decoding.

    Every process of a run reads the same batches and decodes its own ``rows`` of each, augmented as they would be in
    the whole batch.
    """

    def __init__(
        self,
        pairs: Pairs,
        tokenizer: MEDTokenizer,
        *,
        size: int,
        batch_size: int,
        seed: int,
        skip: int,
        prompt: str = "",
        rows: slice | None = None,
    ) -> None:
        self.pairs, self.tokenizer = pairs, tokenizer
        self.size, self.batch_size, self.seed, self.skip, self.prompt = size, batch_size, seed, skip, prompt
        self.rows = rows or slice(0, batch_size)

    def __iter__(self) -> Iterator[Raw]:
        """Batches of this loader process: every ``workers``-th of all."""
        info = get_worker_info()
        place, workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            torch.set_num_threads(1)
        # The loader asks its processes in turn, from 0; after a resume it must begin with the one whose turn it was.
        worker = (place + self.skip) % workers
        passed = (self.skip - worker + workers - 1) // workers
        pairs = self.pairs.shuffled(seed=self.seed, worker=worker, workers=workers)
        for number in count():
            taken = [next(pairs) for _ in range(self.batch_size)]
            if number >= passed:
                yield self._batch(taken[self.rows], number * workers + worker)

    def _batch(self, pairs: list[Pair], number: int) -> Raw:
        places = range(self.batch_size)[self.rows]
        pixels = torch.stack(
            [self._pixels(pair.image, self._generator(number, i)) for pair, i in zip(pairs, places, strict=True)]
        )
        texts = [self.prompt + pair.text for pair in pairs]
        return Raw(
            pixels,
            self.tokenizer(texts, max_tokens=self.pairs.config.max_tokens),
            torch.tensor([_hash64(pair.image) for pair in pairs]),
            torch.tensor([_hash64(pair.text.encode()) for pair in pairs]),
        )

    def _generator(self, number: int, place: int) -> torch.Generator:
        """Of one picture's augmentation: whichever process decodes it draws the same."""
        seed = _hash64(f"{self.seed}:{number}:{place}".encode()) & (2**63 - 1)
        return torch.Generator().manual_seed(seed)

    def _pixels(self, image: bytes, generator: torch.Generator) -> Tensor:
        config = self.pairs.config
        x_CHW = augment.crop(_decode(image), self.size, config.min_scale, generator)
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


def _decode(data: bytes) -> Tensor:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise TrainingError(
            f"a picture in the shards cannot be decoded: {error}", mend="Run `capfilt verify` on the data set."
        ) from error


def _hash64(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)

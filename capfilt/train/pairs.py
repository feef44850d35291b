"""Which (image, caption) pairs a run sees, and in what order: sources weighted, spread over an epoch, shuffled.

The order is a function of the settings and the shards alone, so a place in it is two numbers and a run goes on from
there. Knows shards and captions; decodes no picture.
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice

from capfilt.captions import clean
from capfilt.errors import SourceError, TrainingError
from capfilt.inputs import open_read
from capfilt.records import Caption
from capfilt.shards.read import samples, shards_of
from capfilt.train.config import DataConfig

_LOG = logging.getLogger("capfilt")
BOILERPLATE_BYTES = 16 << 20
"""Most that ``data.boilerplate`` may hold."""


@dataclass(frozen=True)
class Pair:
    """One (image, caption): encoded picture, cleaned text, and where it is (``shard#key``)."""

    image: bytes
    text: str
    name: str


@dataclass(frozen=True)
class Place:
    """How far a loader process is: ``pairs`` of ``epoch`` are behind it."""

    epoch: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class Source:
    """One source of the mix: its settings, its shards, and how often an epoch sees each of its pairs."""

    config: DataConfig
    urls: list[str]
    weight: float


@dataclass(frozen=True)
class _Pass:
    """One reading of a source in an epoch; ``share`` of its pairs take part, each in its turn of epochs."""

    source: int
    share: float


def sources_of(config: DataConfig) -> list[Source]:
    """The sources that the settings name, with their shards.

    Raises:
        SourceError: an entry names no shard.
    """
    if not config.mix:
        return [Source(config, shard_urls(config.shards), 1.0)]
    found = []
    for part in config.mix:
        own = {
            name: value
            for name in ("origins", "kept_only", "min_itm", "captions_per_image")
            if (value := getattr(part, name)) is not None
        }
        mine = replace(config, mix=(), shards=part.shards or config.shards, **own)
        found.append(Source(mine, shard_urls(mine.shards), part.weight))
    return found


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


def boilerplate_of(config: DataConfig) -> tuple[str, ...]:
    """The cleaned texts of ``data.boilerplate``, each once, in their order; none where it names no file.

    Raises:
        SourceError: the file cannot be read, is too large or holds no text.
    """
    if config.boilerplate is None:
        return ()
    with open_read(config.boilerplate) as file:
        data = file.read(BOILERPLATE_BYTES + 1)
    mend = "Write one text on each line, the commonest first, or set data.boilerplate: null."
    if len(data) > BOILERPLATE_BYTES:
        raise SourceError(f"more than {BOILERPLATE_BYTES:,} bytes of boilerplate", where=config.boilerplate, mend=mend)
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"not UTF-8: {error}", where=config.boilerplate, mend=mend) from error
    texts = tuple(dict.fromkeys(text for line in lines if (text := clean(line))))
    if not texts:
        raise SourceError("holds no text", where=config.boilerplate, mend=mend)
    return texts


class Pairs:
    """The pairs of the sources of a run.

    Args:
        config: which shards, which captions, how they are mixed.

    Raises:
        SourceError: an entry names no shard, or ``data.boilerplate`` no file of texts.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.sources = sources_of(config)
        self.boilerplate = boilerplate_of(config)
        """Cleaned texts that describe no picture."""
        self._left_out = frozenset(self.boilerplate)
        self.counts: list[int] = []
        """Pairs of each source, once :meth:`count` has been called."""
        self._bad: list[tuple[str, str]] = []

    def count(self) -> int:
        """Pairs an epoch, on average, by one pass over all shards; warns of what cannot be read.

        Raises:
            TrainingError: a source has none. DataError: ``strict``, and something cannot be read.
        """
        self.counts = [sum(1 for _ in self.read(source)) for source in self.sources]
        if 0 in self.counts:
            empty = self.sources[self.counts.index(0)].config
            raise TrainingError(
                "the shards hold no caption that training wants",
                where=", ".join(empty.shards),
                mend="Check data.origins, data.kept_only and data.min_itm.",
            )
        _warn_of(self.take_bad())
        return round(sum(n * source.weight for n, source in zip(self.counts, self.sources, strict=True)))

    def read(self, source: Source, urls: list[str] | None = None) -> Iterator[Pair]:
        """A source's pairs in the order of its shards, or of the ``urls`` given."""
        on_bad = None if self.config.strict else lambda name, reason: self._bad.append((name, reason))
        for url in source.urls if urls is None else urls:
            for sample in samples([url], on_bad=on_bad):
                texts = (clean(caption["text"]) for caption in sample.captions if wanted(caption, source.config))
                good = (text for text in texts if text and text not in self._left_out)
                for text in islice(good, source.config.captions_per_image):
                    yield Pair(sample.image, text, f"{url}#{sample.key}")

    def take_bad(self) -> list[tuple[str, str]]:
        """(name, reason) of what has been passed over since the last call."""
        bad, self._bad = self._bad, []
        return bad

    def shuffled(self, *, seed: int, worker: int, workers: int, start: Place) -> Iterator[tuple[Pair, Place]]:
        """Every ``workers``-th pair, epoch after epoch without end, and the place behind each.

        Args:
            seed: of the order. worker, workers: which share. start: where to go on; what is before is read only.

        Raises:
            TrainingError: a whole epoch has nothing that can be read.
        """
        for epoch in count(start.epoch):
            self._read_any = False
            mine = (pair for i, pair in enumerate(self._epoch(epoch, seed)) if i % workers == worker)
            behind = start.pairs if epoch == start.epoch else 0
            order = random.Random(f"{seed}:{epoch}:{worker}")
            for i, pair in enumerate(_buffered(mine, self.config.shuffle_buffer, order)):
                if i >= behind:
                    yield pair, Place(epoch, i + 1)
            if not self._read_any:
                raise TrainingError(
                    "the shards hold nothing that can be read any more",
                    where=", ".join(self.config.shards),
                    mend="They were there when the run began: check the disk or the network.",
                )

    def _epoch(self, epoch: int, seed: int) -> Iterator[Pair]:
        """All pairs of an epoch. Sources take turns by chance, by what is left of each, so that they end together."""
        passes = [p for i, source in enumerate(self.sources) for p in _passes(i, source.weight)]
        streams = [self._pass(p, number, epoch, seed) for number, p in enumerate(passes)]
        left = [max(1.0, self.counts[p.source] * p.share) for p in passes]
        chance = random.Random(f"{seed}:{epoch}")
        while streams:
            at = chance.choices(range(len(streams)), left)[0] if len(streams) > 1 else 0
            pair = next(streams[at], None)
            if pair is None:
                del streams[at], left[at]
                continue
            left[at] = max(1.0, left[at] - 1)
            yield pair

    def _pass(self, this: _Pass, number: int, epoch: int, seed: int) -> Iterator[Pair]:
        source = self.sources[this.source]
        urls = sorted(source.urls)
        random.Random(f"{seed}:{epoch}:pass {number}").shuffle(urls)
        for pair in self.read(source, urls):
            self._read_any = True
            if _turn(pair, this.share, epoch):
                yield pair


def _passes(source: int, weight: float) -> list[_Pass]:
    whole, rest = int(weight), weight - int(weight)
    return [_Pass(source, 1.0)] * whole + ([_Pass(source, rest)] if rest > 1e-9 else [])


def _turn(pair: Pair, share: float, epoch: int) -> bool:
    """Whether a pair takes part in this epoch, if ``share`` of all do; in the end each does as often as another."""
    if share == 1.0:
        return True
    digest = hashlib.blake2b(f"{pair.name.rpartition('#')[2]}\0{pair.text}".encode(), digest_size=8).digest()
    own = int.from_bytes(digest, "little") / 2**64
    return math.floor((epoch + 1) * share + own) > math.floor(epoch * share + own)


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


def _warn_of(bad: Iterable[tuple[str, str]]) -> None:
    by_reason: dict[str, tuple[str, int]] = {}
    for name, reason in bad:
        first, times = by_reason.get(reason, (name, 0))
        by_reason[reason] = (first, times + 1)
    for reason, (name, times) in by_reason.items():
        _LOG.warning("passed over in training: %s%s: %s", name, f" and {times - 1} more" * (times > 1), reason)

"""Which (image, caption) pairs a run sees, and in what order: sources weighted, spread over an epoch, shuffled.

The order is a function of the settings and the shards alone, so a place in it is two numbers and a run goes on from
there. Knows shards and captions; decodes no picture.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import math
import random
from collections.abc import Iterable, Iterator, Sequence
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


_DEALS = 3


@dataclass(frozen=True)
class Pair:
    """One (image, caption): encoded picture, cleaned text, and where it is (``shard#key``)."""

    image: bytes
    text: str
    name: str


@dataclass(frozen=True)
class Place:
    """How far a stream of a loader process is: ``pairs`` of ``epoch`` are behind it."""

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


@dataclass
class _Found:
    """Whether an epoch has had a pair that could be read."""

    any: bool = False


@dataclass(frozen=True)
class _Share:
    """What a stream reads of each source: its shards and how many pairs they hold."""

    urls: list[list[str]]
    counts: list[int]
    salt: str = ""
    """Of its order, so that no two streams have the same."""


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
        self.by_shard: list[list[int]] = []
        """The same of each of its shards."""
        self._deals: dict[tuple[int, int], list[_Share]] = {}
        self._bad: list[tuple[str, str]] = []

    def count(self) -> int:
        """Pairs an epoch, on average, by one pass over all shards; warns of what cannot be read.

        Raises:
            TrainingError: a source has none. DataError: ``strict``, and something cannot be read.
        """
        return self.counted(self.tally())

    def tally(self, *, rank: int = 0, size: int = 1) -> list[int]:
        """Pairs of each shard of each source, of every ``size``-th of them from ``rank`` on; 0 for the others.

        Raises:
            DataError: ``strict``, and something cannot be read.
        """
        shards = [(source, url) for source in self.sources for url in source.urls]
        return [
            sum(1 for _ in self.read(source, [url])) if at % size == rank else 0
            for at, (source, url) in enumerate(shards)
        ]

    def counted(self, numbers: Sequence[int]) -> int:
        """Take what :meth:`tally` gives for all shards, and tell the pairs of an epoch, on average.

        Raises:
            TrainingError: a source has none.
        """
        left = iter(numbers)
        self.by_shard = [list(islice(left, len(source.urls))) for source in self.sources]
        self.counts = [sum(held) for held in self.by_shard]
        self._deals.clear()
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

    def shuffled(
        self, *, seed: int, worker: int, workers: int, start: Place, stream: int = 0
    ) -> Iterator[tuple[Pair, Place]]:
        """The pairs of a loader process, epoch after epoch without end, and the place behind each.

        Without streams they are every ``workers``-th pair of all shards, with streams the pairs of the shards dealt to
        this one, whose epoch ends with these shards. Each epoch deals them anew.

        Args:
            seed: of the order. worker, workers: which loader process. start: where to go on; what is before is read
                only. stream: which of ``data.streams``.

        Raises:
            TrainingError: a whole epoch has nothing that can be read.
        """
        streams = self.config.streams
        number = worker * streams + stream
        every, first = (1, 0) if streams > 1 else (workers, worker)
        for epoch in count(start.epoch):
            share = self._dealt(streams * workers, epoch, seed)[number] if streams > 1 else self._whole()
            found = _Found()
            mine = islice(self._epoch(epoch, seed, share, found), first, None, every)
            behind = start.pairs if epoch == start.epoch else 0
            order = random.Random(f"{seed}:{epoch}:{number}")
            for i, pair in enumerate(_buffered(mine, max(1, self.config.shuffle_buffer // streams), order)):
                if i >= behind:
                    yield pair, Place(epoch, i + 1)
            if not found.any:
                raise TrainingError(
                    "the shards hold nothing that can be read any more",
                    where=", ".join(url for urls in share.urls for url in urls[:2]),
                    mend="They were there when the run began: check the disk or the network.",
                )

    def check_streams(self, workers: int) -> None:
        """That there is a shard of every source for each stream of each loader process; once they are counted, one that
        holds pairs.

        Raises:
            TrainingError: there are too few.
        """
        if self.config.streams == 1:
            return
        shares = self.config.streams * workers
        for at, source in enumerate(self.sources):
            shards = sum(map(bool, self.by_shard[at])) if self.by_shard else len(source.urls)
            if shards < shares:
                raise TrainingError(
                    f"{self.config.streams} streams of {workers} loader processes are too many for {shards} shards",
                    where=", ".join(source.config.shards),
                    mend="Each of these needs one that holds pairs: lower data.streams or data.loaders.",
                )

    def _whole(self) -> _Share:
        return _Share([source.urls for source in self.sources], self.counts)

    def _dealt(self, shares: int, epoch: int, seed: int) -> list[_Share]:
        """The shards of each source dealt out for an epoch, full ones first, each to the share that holds the fewest
        pairs. Streams are in one epoch or in neighbouring ones, so that few deals are held."""
        if (found := self._deals.get((shares, epoch))) is not None:
            return found
        dealt = [_Share([[] for _ in self.sources], [0] * len(self.sources), f":share {i}") for i in range(shares)]
        chance = random.Random(f"{seed}:{epoch}:deal")
        for at, (source, held) in enumerate(zip(self.sources, self.by_shard, strict=True)):
            # Of shards that hold about as many, others meet in every epoch, and another stream has the smallest share.
            order = sorted(zip(source.urls, held, strict=True))
            chance.shuffle(order)
            order.sort(key=lambda of: -int(4 * math.log2(of[1] + 1)))
            fewest = [(0, chance.random(), i) for i in range(shares)]
            heapq.heapify(fewest)
            for url, pairs in order:
                so_far, turn, i = heapq.heappop(fewest)
                dealt[i].urls[at].append(url)
                dealt[i].counts[at] += pairs
                heapq.heappush(fewest, (so_far + pairs, turn, i))
        while len(self._deals) > _DEALS:
            self._deals.pop(next(iter(self._deals)))
        self._deals[shares, epoch] = dealt
        return dealt

    def _epoch(self, epoch: int, seed: int, share: _Share, found: _Found) -> Iterator[Pair]:
        """All pairs of an epoch. Sources take turns by chance, by what is left of each, so that they end together."""
        passes = [p for i, source in enumerate(self.sources) for p in _passes(i, source.weight)]
        streams = [self._pass(p, number, epoch, seed, share, found) for number, p in enumerate(passes)]
        left = [max(1.0, share.counts[p.source] * p.share) for p in passes]
        chance = random.Random(f"{seed}:{epoch}{share.salt}")
        while streams:
            at = chance.choices(range(len(streams)), left)[0] if len(streams) > 1 else 0
            pair = next(streams[at], None)
            if pair is None:
                del streams[at], left[at]
                continue
            left[at] = max(1.0, left[at] - 1)
            yield pair

    def _pass(self, this: _Pass, number: int, epoch: int, seed: int, share: _Share, found: _Found) -> Iterator[Pair]:
        source = self.sources[this.source]
        urls = sorted(share.urls[this.source])
        random.Random(f"{seed}:{epoch}:pass {number}{share.salt}").shuffle(urls)
        for pair in self.read(source, urls):
            found.any = True
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

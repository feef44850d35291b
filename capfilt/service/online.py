"""``/v1/caption``, ``/v1/score``, ``/v1/capfilt``: pictures and texts in, captions, scores and verdicts out.

A picture that cannot be had or read is a result with a reason, as in the ledger; it spoils no other. Knows the wire,
the safe client and the models' face; knows no model.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from capfilt.fetch.client import Client, Fetched
from capfilt.images import Refused, normalise
from capfilt.records import Drop
from capfilt.service.config import ServiceConfig
from capfilt.service.engine import Outcome, Work
from capfilt.service.metrics import Metrics
from capfilt.service.models import Busy, Models
from capfilt.service.problems import Refusal
from capfilt.service.wire import Kind, Picture, PictureWithTexts, Result, Results, Said

_REMEMBERED_S = 30.0


class Room:
    """How many pictures may wait or be worked on at once, and how long until there is room again.

    Args:
        places: pictures at once.
        metrics: where it is counted.
    """

    def __init__(self, places: int, metrics: Metrics) -> None:
        self._places, self._metrics = places, metrics
        self._taken = 0
        self._rate, self._at = 0.0, time.monotonic()

    @contextmanager
    def of(self, pictures: int) -> Iterator[None]:
        """Holds places while the block runs.

        Raises:
            Refusal: 429, there are too few.
        """
        if self._taken + pictures > self._places:
            raise self.full()
        self._taken += pictures
        self._metrics.waiting.set(self._taken)
        try:
            yield
        finally:
            self._taken -= pictures
            self._metrics.waiting.set(self._taken)
            self._learn(pictures)

    def full(self) -> Refusal:
        """The refusal, with the seconds after which to come again."""
        self._metrics.refused.labels("queue").inc()
        wait = self._taken / self._rate if self._rate > 0 else 1.0
        seconds = min(60, max(1, math.ceil(wait)))
        mend = "Come again after the seconds of Retry-After."
        return Refusal(429, "too many pictures are waiting", mend=mend, headers={"Retry-After": str(seconds)})

    def _learn(self, pictures: int) -> None:
        """Pictures a second, as of late."""
        now = time.monotonic()
        passed, self._at = max(now - self._at, 1e-3), now
        share = min(1.0, passed / _REMEMBERED_S)
        self._rate += share * (pictures / passed - self._rate) if self._rate else pictures / max(passed, 1.0)


class Online:
    """The three questions. Made and used within one event loop.

    Args:
        config: bounds and fetching.
        models: who answers.
        metrics: where it is counted.
    """

    def __init__(self, config: ServiceConfig, models: Models, metrics: Metrics) -> None:
        self._config, self._models, self._metrics = config, models, metrics
        self._room = Room(config.limits.queue, metrics)
        self._client = Client(config.fetch)
        self._pool = ThreadPoolExecutor(config.fetch.threads, thread_name_prefix="pictures")

    async def answer(self, kind: Kind, pictures: Sequence[Picture]) -> Results:
        """One result for each picture.

        Raises:
            Refusal: 429, there is no room; 503, it took too long.
        """
        with self._room.of(len(pictures)):
            try:
                async with asyncio.timeout(self._config.limits.timeout_s):
                    return Results(results=await self._done(kind, pictures))
            except TimeoutError:
                self._metrics.refused.labels("timeout").inc()
                again = {"Retry-After": "5"}
                raise Refusal(503, "it took too long", mend="Come again with fewer pictures.", headers=again) from None
            except Busy:
                raise self._room.full() from None

    async def close(self) -> None:
        """Closes connections and threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        await self._client.close()

    async def _done(self, kind: Kind, pictures: Sequence[Picture]) -> list[Result]:
        found = await asyncio.gather(*map(self._picture, pictures))
        works = {
            at: Work(
                kind=kind,
                id=asked.id or hashlib.sha256(got.data).hexdigest(),
                image=got.data,
                texts=tuple(asked.texts) if isinstance(asked, PictureWithTexts) else (),
            )
            for at, (asked, got) in enumerate(zip(pictures, found, strict=True))
            if not isinstance(got, Refused)
        }
        outcomes = dict(zip(works, await self._models.run(list(works.values())) if works else [], strict=True))
        return [self._result(kind, got, outcomes.get(at)) for at, got in enumerate(found)]

    async def _picture(self, asked: Picture) -> Fetched:
        if asked.url is not None:
            return await self._client.fetch(asked.url)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, asked.image or "")

    def _read(self, text: str) -> Fetched:
        limits = self._config.fetch.images
        if len(text) * 3 // 4 > limits.max_bytes + 2:
            return Refused(Drop.TOO_LARGE, f"The picture has more than {limits.max_bytes:,} bytes.")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return Refused(Drop.NOT_AN_IMAGE, "The image is no base64.")
        return normalise(data, limits)

    def _result(self, kind: Kind, got: Fetched, outcome: Outcome | None) -> Result:
        if isinstance(got, Refused) or outcome is None:
            drop, detail = (got.drop, got.detail) if isinstance(got, Refused) else (Drop.QUARANTINED, "")
            self._metrics.pictures.labels(kind, str(drop)).inc()
            return Result(captions=[], width=None, height=None, drop=str(drop), detail=detail)
        if outcome.batch:
            self._metrics.batch.observe(outcome.batch)
            self._metrics.queued.observe(outcome.waited_s)
            self._metrics.worked.observe(outcome.worked_s)
        drop_ = str(Drop.QUARANTINED) if outcome.fault else None
        self._metrics.pictures.labels(kind, drop_ or "done").inc()
        captions = [Said.model_validate(caption) for caption in outcome.captions]
        detail_ = outcome.fault or None
        return Result(captions=captions, width=got.width, height=got.height, drop=drop_, detail=detail_)

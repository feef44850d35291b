"""The models at work for requests: pictures that come one by one go through them in batches.

A batch is whatever waits when the models are free, up to the size that pays; so a lone request is not held up, and a
crowd is worked on as a job would be. Pictures are decoded and resized in a thread while the models work on those
before. Knows the stage's worker and threads; knows no HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from capfilt.errors import CapfiltError, DataError
from capfilt.images import decode
from capfilt.med.pixels import Pictures, Seen
from capfilt.records import Caption, web_caption
from capfilt.service.wire import Kind
from capfilt.stages.careful import Careful, Fault
from capfilt.stages.config import CapFiltConfig
from capfilt.stages.worker import CapFiltWorker, open_worker


@dataclass(frozen=True, kw_only=True)
class Work:
    """One picture and what is asked of it."""

    kind: Kind
    id: str
    """Seeds the sampling."""
    image: bytes
    """A normalised picture."""
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one picture."""

    captions: list[Caption]
    fault: str = ""
    """Why there are none, in a sentence; empty if it went well."""
    batch: int = 0
    """Pictures that were in its batch."""
    waited_s: float = 0.0
    """From its coming to the beginning of its batch."""
    worked_s: float = 0.0
    """That its batch took."""


@dataclass
class _Waiting:
    work: Work
    seen: Seen
    since: float
    done: Future[Outcome]


class Engine:
    """Both models, their queue and the threads that serve it.

    Args:
        config: models, decoding and threshold.
        wait_s: how long idle models wait for a batch to fill.

    Raises:
        ModelError: a model is unknown or damaged.
    """

    def __init__(self, config: CapFiltConfig, *, wait_s: float = 0.0) -> None:
        whole = open_worker(config)
        self._wait_s, self.sizes = wait_s, whole.sizes
        self.batch_size = whole.batch_size
        # The same models under each question; a worker without a role does not ask for it.
        self._workers: dict[Kind, CapFiltWorker] = {"capfilt": whole}
        if whole.captioner is not None:
            self._workers["caption"] = CapFiltWorker(replace(config, filter=None), whole.captioner, None)
        if whole.judge is not None:
            self._workers["score"] = CapFiltWorker(replace(config, captioner=None), None, whole.judge)
        for worker in self._workers.values():
            # A model is asked by one thread at a time, whatever the question.
            worker.writing, worker.judging = whole.writing, whole.judging
        self._decoding = ThreadPoolExecutor(max(1, whole.turns), thread_name_prefix="decode")
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._threads = [threading.Thread(target=self._serve, name="models", daemon=True) for _ in range(whole.turns)]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work) -> Future[Outcome]:
        """Queues one picture. What is cancelled before its turn costs nothing more.

        Raises:
            CapfiltError: no model that plays the role is there.
        """
        if work.kind not in self._workers:
            raise CapfiltError(f"no model is there for {work.kind}", mend="Start the service with both models.")
        done: Future[Outcome] = Future()
        self._decoding.submit(self._admit, work, done, time.monotonic())
        return done

    def close(self) -> None:
        """Ends the threads after the batch that they are at; what waits is cancelled."""
        with self._changed:
            self._open = False
            left, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
        for one in left:
            one.done.cancel()
        self._decoding.shutdown(wait=True, cancel_futures=True)
        for thread in self._threads:
            thread.join()

    def _admit(self, work: Work, done: Future[Outcome], since: float) -> None:
        if done.cancelled():
            return
        try:
            seen = Seen(decode(work.image), self.sizes)
        except DataError as error:
            done.set_result(Outcome(captions=[], fault=f"Its picture cannot be decoded: {error.what}."))
            return
        except Exception as error:  # noqa: BLE001 whatever fails here belongs to who waits; nobody else would learn of it
            done.set_exception(error)
            return
        # What is waiting needs no bytes any more.
        with self._changed:
            if not self._open:
                done.cancel()
                return
            self._waiting.append(_Waiting(replace(work, image=b""), seen, since, done))
            self._changed.notify()

    def _serve(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._work(batch)
            except Exception as error:  # noqa: BLE001 whatever fails here belongs to those who wait, not to the thread
                for one in batch:
                    if not one.done.done():
                        one.done.set_exception(error)

    def _next(self) -> list[_Waiting] | None:
        """The batch whose turn it is; None at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or not self._open)
                if not self._open:
                    return None
                if self._wait_s and len(self._waiting) < self.batch_size:
                    full = time.monotonic() + self._wait_s
                    while self._open and len(self._waiting) < self.batch_size and (left := full - time.monotonic()) > 0:
                        self._changed.wait(left)
                if batch := self._take():
                    return batch

    def _take(self) -> list[_Waiting]:
        """Those of the eldest's kind that wait, in order, up to a batch."""
        batch: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        while self._waiting and len(batch) < self.batch_size:
            one = self._waiting.popleft()
            if batch and one.work.kind != batch[0].work.kind:
                others.append(one)
            elif one.done.set_running_or_notify_cancel():
                batch.append(one)
        self._waiting.extendleft(reversed(others))
        return batch

    def _work(self, batch: Sequence[_Waiting]) -> None:
        started = time.monotonic()
        worker = self._workers[batch[0].work.kind]

        def work(rows: Sequence[int]) -> list[list[Caption]]:
            some = [batch[i] for i in rows]
            web = [[web_caption(text) for text in one.work.texts] for one in some]
            return worker.work([one.work.id for one in some], Pictures([one.seen for one in some]), web)

        careful: Careful[list[Caption]] = Careful(work, self.batch_size, where=worker.names, total=len(batch))
        results = list(careful(range(len(batch))))
        self.batch_size = min(self.batch_size, careful.largest)
        worked = time.monotonic() - started
        for i, result in results:
            one = batch[i]
            fault = result.detail if isinstance(result, Fault) else ""
            one.done.set_result(
                Outcome(
                    captions=[] if isinstance(result, Fault) else result,
                    fault=fault,
                    batch=len(batch),
                    waited_s=started - one.since,
                    worked_s=worked,
                )
            )

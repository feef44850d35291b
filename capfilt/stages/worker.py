"""The capfilt stage at work: both models on a worker, batches through them, verdicts.

Apart from the stage itself, since it brings torch, which takes seconds and which a driver needs not. Knows records and
models; knows no engine and no files.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import TypeVar

import pyarrow as pa
import torch

from capfilt.captions import clean
from capfilt.catalog import model_folder
from capfilt.errors import DataError, ModelError
from capfilt.images import decode
from capfilt.med.device import device_of, precision_of
from capfilt.med.pixels import Pictures, Seen
from capfilt.peers.opening import open_captioner, open_filter
from capfilt.records import Caption, Drop, Origin, replace
from capfilt.roles import Captioner, Filter, Score, Writing
from capfilt.stages.careful import Careful, Fault, RowError, Streak
from capfilt.stages.config import CapFiltConfig

T = TypeVar("T")

MOST = {"cpu": 32, "cuda": 256}
"""Images a batch beyond which nothing is gained."""
UNKNOWN = {"cpu": 16, "cuda": 32}
"""Images a batch of models whose need of memory is not known."""
ROOM = 2**30
"""Bytes that a batch may take on a CPU, where other workers and the caches of files want memory too."""
SHARE = 0.7
"""Of a GPU's free memory, since the allocator cannot use all of it."""
TURNS = 2
"""Batches that a GPU has under way at once."""
RAMP = 4
"""The first batch of a part, for whose pictures a GPU waits, is so many times smaller than the others."""
WEB_TEXTS = 2
"""Texts of a picture that are reckoned with beside the synthetic ones."""


def seed_of(row_id: str, seed: int, k: int) -> int:
    """The sampling seed of a row's k-th caption: 128 bits from its id, so that order never matters."""
    data = f"{seed}:{row_id}:{k}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=16).digest(), "little")


def open_worker(config: CapFiltConfig) -> CapFiltWorker:
    """Both models, loaded on this worker.

    Raises:
        ModelError: a model is unknown or damaged.
    """
    device = device_of(config.device)
    if device == "cpu":
        torch.set_num_threads(max(1, math.ceil(config.cpus)))
    dtype = precision_of(config.dtype, device)
    captioner: Captioner | None = None
    if config.captioner is not None:
        folder, how = model_folder(config.captioner), writing_of(config)
        captioner = open_captioner(folder, how, prompt=config.prompt, device=device, dtype=dtype)
    judge = None if config.filter is None else open_filter(model_folder(config.filter), device=device, dtype=dtype)
    return CapFiltWorker(config, captioner, judge, device=device)


def writing_of(config: CapFiltConfig) -> Writing:
    """The part of the settings that the captioner needs."""
    return Writing(
        beams={"nucleus": None, "beam": config.num_beams, "greedy": 1}[config.decoding],
        top_p=config.top_p,
        top_k=config.top_k,
        repetition_penalty=config.repetition_penalty,
        max_length=config.max_length,
        min_length=config.min_length,
        recorded=config.cuda_graphs,
    )


def batch_size_of(config: CapFiltConfig, captioner: Captioner | None, judge: Filter | None, *, device: str) -> int:
    """Images a batch where the settings leave it open: a power of 2, as many as pay on ``device`` and have room."""
    where = torch.device(device)
    if where.type == "cuda":
        most, unknown = MOST["cuda"], UNKNOWN["cuda"]
        room = torch.cuda.mem_get_info(where)[0] * min(1.0, config.gpus or 1.0) * SHARE / TURNS
    else:
        most, unknown, room = MOST["cpu"], UNKNOWN["cpu"], ROOM
    count = config.captions_per_image
    needed = [
        *([captioner.picture_bytes(count)] if captioner else []),
        *([judge.picture_bytes(count + WEB_TEXTS)] if judge else []),
    ]
    known = [one for one in needed if one is not None]
    if len(known) < len(needed):
        most = min(most, unknown)
    return 1 << max(0, min(most, int(room / max(known, default=1))).bit_length() - 1)


class CapFiltWorker:
    """The opened stage: pictures of the next batch are decoded and resized while the models work on this one.

    Args:
        turns: batches that the models have under way at once, 1 or more; None is :data:`TURNS` on a GPU, else 1.
    """

    def __init__(
        self,
        config: CapFiltConfig,
        captioner: Captioner | None,
        judge: Filter | None,
        *,
        device: str = "cpu",
        turns: int | None = None,
    ) -> None:
        self.config, self.captioner, self.judge = config, captioner, judge
        self.batch_size = config.batch_size or batch_size_of(config, captioner, judge, device=device)
        self._streak = Streak()
        self.names = " and ".join(name for name in (config.captioner, config.filter) if name)
        sizes = [role.image_size for role in (captioner, judge) if role is not None]
        # Where one of the models wants the picture itself, nothing is resized ahead.
        self.sizes = () if None in sizes else tuple(sorted({size for size in sizes if size}))
        # On a CPU the models take all threads that there are: one more is enough.
        gpu = torch.device(device).type != "cpu"
        self.pool = ThreadPoolExecutor(max(1, math.ceil(config.cpus)) if gpu else 1, thread_name_prefix="decode")
        # A GPU writes captions of one batch while the host reads those of the batch before, and judges them.
        self.turns = turns or (TURNS if gpu else 1)
        own = partial(_own_stream, device)
        self.models = ThreadPoolExecutor(self.turns, "models", initializer=own) if self.turns > 1 else None
        self.writing, self.judging = Lock(), Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        """The part with its captions written and judged; rows that no model bears are quarantined."""
        captions: list[list[Caption]] = table.column("captions").to_pylist()
        drops, details = table.column("drop").to_pylist(), table.column("detail").to_pylist()
        live = [i for i, drop in enumerate(drops) if drop is None]
        ids, data = table.column("id").to_pylist(), table.column("image")
        batches = batches_of(live, self.batch_size, ramp=self.models is not None)

        def load(row: int) -> Seen | DataError:
            return _seen(data[row].as_py(), self.sizes)

        seen: dict[int, Seen | DataError] = {}

        def work(rows: Sequence[int]) -> list[list[Caption]]:
            pictures = Pictures([_or_raise(seen[i]) for i in rows])
            return self.work([ids[i] for i in rows], pictures, [captions[i] for i in rows])

        careful = Careful(work, self.batch_size, where=self.names, total=len(live), streak=self._streak)

        def turn(rows: Sequence[int]) -> list[tuple[int, list[Caption] | Fault]]:
            return list(careful(rows))

        for rows, results in side_by_side(self.models, self.turns, turn, self._loaded(load, batches, seen)):
            for i in rows:
                del seen[i]
            for i, result in results:
                if isinstance(result, Fault):
                    drops[i], details[i] = str(Drop.QUARANTINED), result.detail
                else:
                    captions[i] = result
        self.batch_size = careful.largest
        return replace(table, {"captions": captions, "drop": drops, "detail": details})

    def _loaded(
        self, load: Callable[[int], Seen | DataError], batches: Sequence[list[int]], seen: dict[int, Seen | DataError]
    ) -> Iterator[list[int]]:
        """Each batch, once its pictures are in ``seen``."""
        for rows, pictures in ahead(self.pool, load, batches):
            seen.update(zip(rows, pictures, strict=True))
            yield rows

    def work(self, ids: list[str], pictures: Pictures, web: list[list[Caption]]) -> list[list[Caption]]:
        """Caption and judge one batch."""
        captions = [list(row) for row in web]
        if self.captioner is not None:
            k = self.config.captions_per_image
            seeds = [[seed_of(row, self.config.seed, j) for j in range(k)] for row in ids]
            with self.writing:
                written = self.captioner.write(pictures, seeds)
            for row, texts in zip(captions, written, strict=True):
                self._join(row, texts)
        if self.judge is None:
            return [[Caption(**{**c, "kept": bool(clean(c["text"]))}) for c in row] for row in captions]
        with self.judging:
            scores = self.judge.score(pictures, [[c["text"] for c in row] for row in captions])
        return [self._verdicts(row, row_scores) for row, row_scores in zip(captions, scores, strict=True)]

    def _join(self, row: list[Caption], texts: list[str]) -> None:
        there = {clean(c["text"]) for c in row}
        for text in texts:
            if not text or (self.config.skip_repeats and clean(text) in there):
                continue
            there.add(clean(text))
            row.append(Caption(text=text, origin=str(Origin.SYNTHETIC), itm=None, itc=None, kept=False))

    def _verdicts(self, row: list[Caption], scores: list[Score]) -> list[Caption]:
        judged = []
        for caption, score in zip(row, scores, strict=True):
            decisive = score.itm if self.config.judge_by == "itm" else score.itc
            if decisive is None:
                raise ModelError(
                    "it knows no probability of a match, only cosines",
                    where=str(self.config.filter),
                    mend="Set capfilt.judge_by: itc and a threshold for cosines, such as 0.28 for a CLIP.",
                )
            if not all(math.isfinite(value) for value in (score.itm, score.itc) if value is not None):
                raise RowError(f"The filter gave a score that is not a number in {self.config.dtype}")
            human = caption["origin"] == Origin.HUMAN
            # Human texts join unfiltered (paper, section 3.3); a text of nothing but punctuation is none.
            kept = bool(clean(caption["text"])) and (human or decisive >= self.config.threshold)
            judged.append(Caption(**{**caption, "itm": score.itm, "itc": score.itc, "kept": kept}))
        return judged


def batches_of(rows: Sequence[int], size: int, *, ramp: bool = False) -> list[list[int]]:
    """As few batches of at most ``size`` rows as will do, of about the same size; with ``ramp`` a smaller one first."""
    first = rows[: size // RAMP] if ramp and len(rows) > size // RAMP else rows[:0]
    rest = rows[len(first) :]
    count = -(-len(rest) // size)
    bounds = [len(rest) * at // max(count, 1) for at in range(count + 1)]
    return [batch for batch in [list(first), *(list(rest[a:b]) for a, b in pairwise(bounds))] if batch]


def side_by_side(
    pool: ThreadPoolExecutor | None, turns: int, work: Callable[[list[int]], T], batches: Iterable[list[int]]
) -> Iterator[tuple[list[int], T]]:
    """Each batch with what ``work`` makes of it, in order: so many under way in the pool, without one here."""
    if pool is None:
        for batch in batches:
            yield batch, work(batch)
        return
    waiting: deque[tuple[list[int], Future[T]]] = deque()
    for batch in batches:
        waiting.append((batch, pool.submit(work, batch)))
        if len(waiting) >= turns:
            rows, done = waiting.popleft()
            yield rows, done.result()
    for rows, done in waiting:
        yield rows, done.result()


def _own_stream(device: str) -> None:
    """What this thread gives to a GPU does not wait for what others have given to it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)  # the models are there
        torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def _seen(data: bytes, sizes: Sequence[int]) -> Seen | DataError:
    try:
        return Seen(decode(data), sizes)
    except DataError as error:
        return error


def _or_raise(picture: Seen | DataError) -> Seen:
    if isinstance(picture, DataError):
        raise RowError(f"Its picture cannot be decoded: {picture.what}")
    return picture


def ahead(
    pool: ThreadPoolExecutor, load: Callable[[int], T], batches: Sequence[list[int]]
) -> Iterator[tuple[list[int], list[T]]]:
    """Each batch with what its rows load as, the next one being loaded meanwhile by all threads of the pool."""
    waiting: deque[tuple[list[int], list[Future[T]]]] = deque()
    for at in range(len(batches) + 1):
        if at < len(batches):
            waiting.append((batches[at], [pool.submit(load, row) for row in batches[at]]))
        if at:
            rows, futures = waiting.popleft()
            yield rows, [future.result() for future in futures]

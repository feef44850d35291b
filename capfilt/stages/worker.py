"""The capfilt stage at work: both models on a worker, batches through them, verdicts.

Apart from the stage itself, since it brings torch, which takes seconds and which a driver needs not. Knows records and
models; knows no engine and no files.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import torch
from PIL import Image

from capfilt.captions import clean
from capfilt.catalog import model_folder
from capfilt.errors import DataError, ModelError
from capfilt.images import decode
from capfilt.med.device import device_of
from capfilt.peers.opening import open_captioner, open_filter
from capfilt.records import Caption, Drop, Origin, replace
from capfilt.roles import Captioner, Filter, Score, Writing
from capfilt.stages.careful import Careful, Fault, RowError
from capfilt.stages.config import CapFiltConfig

T = TypeVar("T")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}


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
    dtype = DTYPES[config.dtype]
    captioner: Captioner | None = None
    if config.captioner is not None:
        folder, how = model_folder(config.captioner), writing_of(config)
        captioner = open_captioner(folder, how, prompt=config.prompt, device=device, dtype=dtype)
    judge = None if config.filter is None else open_filter(model_folder(config.filter), device=device, dtype=dtype)
    return CapFiltWorker(config, captioner, judge)


def writing_of(config: CapFiltConfig) -> Writing:
    """The part of the settings that the captioner needs."""
    return Writing(
        beams={"nucleus": None, "beam": config.num_beams, "greedy": 1}[config.decoding],
        top_p=config.top_p,
        top_k=config.top_k,
        repetition_penalty=config.repetition_penalty,
        max_length=config.max_length,
        min_length=config.min_length,
    )


class CapFiltWorker:
    """The opened stage: pictures of the next batch are decoded while the models work on this one."""

    def __init__(self, config: CapFiltConfig, captioner: Captioner | None, judge: Filter | None) -> None:
        self.config, self.captioner, self.judge = config, captioner, judge
        self.batch_size = config.batch_size
        self.names = " and ".join(name for name in (config.captioner, config.filter) if name)
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def __call__(self, table: pa.Table) -> pa.Table:
        """The part with its captions written and judged; rows that no model bears are quarantined."""
        captions: list[list[Caption]] = table.column("captions").to_pylist()
        drops, details = table.column("drop").to_pylist(), table.column("detail").to_pylist()
        live = [i for i, drop in enumerate(drops) if drop is None]
        ids, data = table.column("id").to_pylist(), table.column("image")
        batches = [live[i : i + self.batch_size] for i in range(0, len(live), self.batch_size)]

        def load(rows: list[int]) -> list[Image.Image | DataError]:
            return [_decoded(data[i].as_py()) for i in rows]

        decoded: dict[int, Image.Image | DataError] = {}

        def work(rows: Sequence[int]) -> list[list[Caption]]:
            pictures = [_or_raise(decoded[i]) for i in rows]
            return self.work([ids[i] for i in rows], pictures, [captions[i] for i in rows])

        careful = Careful(work, self.batch_size, where=self.names)
        for rows, pictures in ahead(self.pool, load, batches):
            decoded = dict(zip(rows, pictures, strict=True))
            for i, result in careful(rows):
                if isinstance(result, Fault):
                    drops[i], details[i] = str(Drop.QUARANTINED), result.detail
                else:
                    captions[i] = result
        self.batch_size = careful.largest
        return replace(table, {"captions": captions, "drop": drops, "detail": details})

    def work(self, ids: list[str], pictures: list[Image.Image], web: list[list[Caption]]) -> list[list[Caption]]:
        """Caption and judge one batch."""
        captions = [list(row) for row in web]
        if self.captioner is not None:
            k = self.config.captions_per_image
            seeds = [[seed_of(row, self.config.seed, j) for j in range(k)] for row in ids]
            for row, texts in zip(captions, self.captioner.write(pictures, seeds), strict=True):
                self._join(row, texts)
        if self.judge is None:
            return [[Caption(**{**c, "kept": bool(clean(c["text"]))}) for c in row] for row in captions]
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


def _decoded(data: bytes) -> Image.Image | DataError:
    try:
        return decode(data)
    except DataError as error:
        return error


def _or_raise(picture: Image.Image | DataError) -> Image.Image:
    if isinstance(picture, DataError):
        raise RowError(f"Its picture cannot be decoded: {picture.what}")
    return picture


def ahead(
    pool: ThreadPoolExecutor, load: Callable[[list[int]], list[T]], batches: list[list[int]]
) -> Iterator[tuple[list[int], list[T]]]:
    """Each batch with its pictures, the next one being loaded meanwhile."""
    waiting: list[tuple[list[int], Future[Any]]] = []
    source = iter(batches)
    for rows in islice(source, 2):
        waiting.append((rows, pool.submit(load, rows)))
    while waiting:
        rows, future = waiting.pop(0)
        pictures = future.result()
        for more in islice(source, 1):
            waiting.append((more, pool.submit(load, more)))
        yield rows, pictures

"""A random few rows of a source through the models, before anyone spends days: what would be kept, and how fast.

Runs in this process and writes no data set. Knows the order of things; each of them is another room's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from capfilt.flow.local import run_local
from capfilt.flow.pace import CAPFILT, FETCH, Spent
from capfilt.flow.part import Finished
from capfilt.recipe import Recipe
from capfilt.records import SCHEMA
from capfilt.report.trial import Looked, Speed, looked_at
from capfilt.shards.rule import Rule
from capfilt.sources.parts import Part, cut
from capfilt.sources.sampling import Sample, sample
from capfilt.stages.base import Needs, Work
from capfilt.stages.capfilt import CapFilt
from capfilt.stages.fetch import FetchImages

_ROUNDS = 4
"""Pieces that a sample goes through in: the first warms the models up, the others tell how fast they are."""


@dataclass(frozen=True)
class _Drawn:
    """A sample as a source."""

    rows: pa.Table
    has_bytes: bool
    origin: str

    def read(self, part: Part) -> pa.Table:
        return self.rows.slice(part.start, part.stop - part.start)

    def parts(self, part_rows: int) -> Any:
        return cut([("sample", self.rows.num_rows, "")], part_rows)

    def describe(self) -> dict[str, Any]:
        return {"kind": "sample", "rows": self.rows.num_rows}


@dataclass(frozen=True, kw_only=True)
class _Keep:
    """The stage that keeps what came out, with its pictures."""

    into: list[pa.Table] = field(default_factory=list)
    name: str = "keep"
    reads: tuple[str, ...] = tuple(SCHEMA.names)
    writes: tuple[str, ...] = ()

    @property
    def needs(self) -> Needs:
        return Needs(cpus=0.25)

    def open(self) -> Work:
        return self._keep

    def _keep(self, table: pa.Table) -> pa.Table:
        self.into.append(table)
        return table


def preview(
    recipe: Recipe, *, rows: int = 64, seed: int = 0, on_rows: Callable[[int, int], None] | None = None
) -> Looked:
    """Fetches, captions and judges a random few rows.

    Args:
        recipe: its source, its fetching and its models; what it writes does not matter.
        rows: how many, 1 to :data:`capfilt.sources.sampling.MOST`.
        seed: chooses them.
        on_rows: told of rows done and rows in all.

    Raises:
        CapfiltError: a mistake in source, recipe or models.
    """
    drawn = sample(recipe.source, rows, seed=seed)
    source = _Drawn(drawn.table, drawn.carries, recipe.source.origin)
    # One worker has this machine for itself.
    stage = replace(recipe.capfilt, cpus=float(os.cpu_count() or 1))
    keep, finished, total = _Keep(), list[Finished](), drawn.table.num_rows
    start = time.perf_counter()

    def tell(part: Finished) -> None:
        finished.append(part)
        if on_rows:
            on_rows(sum(one.tally.rows for one in finished), total)

    if on_rows:
        on_rows(0, total)
    pieces = source.parts(-(-total // _ROUNDS))
    from capfilt.med.device import threads_kept  # noqa: PLC0415 torch, which the first piece would load

    with threads_kept():  # this process is the caller's
        run_local(source, pieces, [FetchImages(fetch=recipe.fetch), CapFilt(capfilt=stage), keep], tell)
    speed = _speed(drawn, finished, wall=time.perf_counter() - start)
    rule = Rule(
        threshold=None if recipe.capfilt.filter is None else recipe.capfilt.threshold,
        judge_by=recipe.capfilt.judge_by,
    )
    return looked_at(
        pa.concat_tables(keep.into),
        rule=rule,
        source=recipe.source.path,
        rows=drawn.rows,
        exact=drawn.exact,
        drawn_from=drawn.drawn_from,
        seed=seed,
        models={"captioner": recipe.capfilt.captioner, "filter": recipe.capfilt.filter},
        speed=speed,
    )


def _speed(drawn: Sample, finished: Sequence[Finished], *, wall: float) -> Speed:
    fetched = _sum(finished, FETCH)
    # The first piece pays for what happens once.
    warm = _sum(finished[1:], CAPFILT)
    models = warm if warm.rows else _sum(finished, CAPFILT)
    reached = _sum(finished, CAPFILT).rows / max(1, drawn.table.num_rows)
    return Speed(
        wall_s=wall,
        fetch_s=fetched.seconds / max(1, fetched.rows),
        image_s=models.seconds / models.rows if models.rows else None,
        reached=reached,
    )


def _sum(finished: Sequence[Finished], stage: str) -> Spent:
    return sum(_of(finished, stage), Spent())


def _of(finished: Sequence[Finished], stage: str) -> Iterator[Spent]:
    for part in finished:
        if stage in part.spent:
            yield part.spent[stage]

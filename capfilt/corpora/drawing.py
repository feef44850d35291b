"""Draws many pictures in a few processes, in the order they were asked for.

Knows jobs and processes; knows no corpora.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from capfilt.corpora.pictures import Unfit, encode, from_raster, is_blank, render


@dataclass(frozen=True)
class Job:
    """One picture to draw: a vector drawing (``str``) or an encoded picture (``bytes``)."""

    name: str
    source: str | bytes


@dataclass(frozen=True)
class Drawn:
    """What came of a job: WebP bytes, or why there are none."""

    name: str
    picture: bytes | Unfit


def draw(job: Job) -> Drawn:
    """One job; a picture that cannot be used is an :class:`Unfit`, never an exception."""
    if isinstance(job.source, bytes):
        square = from_raster(job.source)
    else:
        try:
            square = render(job.source)
        except ValueError:
            square = Unfit("not_a_picture")
    if isinstance(square, Unfit):
        return Drawn(job.name, square)
    return Drawn(job.name, Unfit("blank") if is_blank(square) else encode(square))


def draw_all(jobs: Iterable[Job], *, processes: int) -> Iterator[Drawn]:
    """The jobs in their order, by so many processes (1: in this one)."""
    if processes == 1:
        yield from map(draw, jobs)
        return
    # Spawned, not forked: the parent may hold threads.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(draw, jobs, chunksize=16)

"""How many pairs there are to train on, counted by all processes together, and whether they are enough.

Knows pairs and processes; knows no model.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch

from capfilt.errors import CapfiltError, SourceError, TrainingError
from capfilt.inputs import is_local, size_of
from capfilt.med import ranks
from capfilt.train.config import DataConfig, TrainConfig
from capfilt.train.group import agree, all_well, summed
from capfilt.train.pairs import Pairs


def held_out_pairs(config: TrainConfig, data: DataConfig) -> Pairs | None:
    """The pairs of ``config.held_out``, counted; None where it names none.

    Raises:
        SourceError: shards are missing. TrainingError: they do not fill a batch.
    """
    if not config.held_out:
        return None
    pairs = Pairs(replace(data, shards=config.held_out, mix=()))
    if pairs.count() < config.batch_size // config.accumulate:
        raise too_few(config)
    return pairs


def too_few(config: TrainConfig, what: str = "pairs") -> TrainingError:
    """What is raised where held-out ``what`` do not fill a batch."""
    return TrainingError(
        f"fewer {what} than a batch of {config.batch_size // config.accumulate}",
        where="held_out",
        mend="Name more shards, or take a smaller batch.",
    )


def check_size(found: int, config: TrainConfig) -> None:
    """Passes where ``found`` pairs an epoch are enough for a batch and for all loader processes.

    Raises:
        TrainingError: they are not.
    """
    if found < config.batch_size:
        raise TrainingError(
            f"{found} pairs do not fill one batch of {config.batch_size}",
            where="batch_size",
            mend=f"Set batch_size to {max(2, found)} or less, or train on more shards.",
        )
    if config.data.loaders > found:  # each takes every so many-th pair
        raise TrainingError(
            f"{found} pairs an epoch are too few for {config.data.loaders} loader processes",
            where="data.loaders",
            mend=f"Set it to {found} or less; one for each core is enough.",
        )


def counted(pairs: Pairs, device: torch.device) -> int:
    """The pairs of an epoch; each process reads its share of the shards, which must be the same to all.

    Raises:
        TrainingError: the processes see other shards, a source has no pair, or another process has failed.
        DataError: ``data.strict``, and this process cannot read something.
    """
    rank, size = ranks.world()
    if size > 1:
        shards = [(url, _bytes(url)) for source in pairs.sources for url in source.urls]
        agree("the number of shards", len(shards), device)
        agree("the bytes of the shards on their disks", sum(held for _, held in shards), device)
        digest = hashlib.blake2b(repr(shards).encode(), digest_size=6).digest()
        agree("the names and sizes of the shards, as a digest", int.from_bytes(digest), device)
    mine: list[int] = []
    error = None
    try:
        mine = pairs.tally(rank=rank, size=size)
    except CapfiltError as own:
        error = own
    all_well(error, device)
    return pairs.counted(summed(mine, device))


def _bytes(url: str) -> int:
    """Of a shard on a disk, which another machine may have a copy of that is not whole; 0 where all ask one store."""
    try:
        return (size_of(url) or 0) if is_local(url) else 0
    except SourceError:
        return -1  # gone; reading it tells

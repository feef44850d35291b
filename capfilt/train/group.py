"""Several processes that train one model: torchrun's environment, the device of each, and what they tell each other.

Knows processes; knows no model and no data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from capfilt.errors import CapfiltError, TrainingError
from capfilt.med import ranks
from capfilt.med.device import device_of

_PATIENCE = timedelta(hours=2)
_WORDS = 500
_LINE = 12 * 3 * _WORDS + 64
"""Bytes that three parts of so many characters take as JSON at most."""
_LOST = ("closed by peer", "reset by peer", "Broken pipe")


@contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """Join the group that ``torchrun``, or whoever sets RANK, WORLD_SIZE and MASTER_ADDR, describes, if there is one.

    A group that is initialised already is used as it is, and left.

    Args:
        device: ``auto`` takes the GPU of this process's LOCAL_RANK where there is one, else the CPU.

    Yields:
        The device of this process.

    Raises:
        TrainingError: another process has stopped; not in a group that others have made, who see to that.
    """
    place = _device(device)
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield place
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    # The first to have counted its shards waits for the last; one that dies is told of by the connection.
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield place
    except RuntimeError as error:
        if any(sign in str(error) for sign in _LOST):
            raise TrainingError(
                "another process of the run has stopped",
                mend="Its own message says why; then the same command goes on from the newest checkpoint.",
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def _device(device: str) -> torch.device:
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return torch.device(device_of(device))


def rows_of(batch_size: int) -> slice:
    """This process's rows of a batch.

    Raises:
        TrainingError: they cannot be shared out evenly.
    """
    rank, size = ranks.world()
    rows = share_of(batch_size, size)
    return slice(rank * rows, (rank + 1) * rows)


def share_of(batch_size: int, size: int) -> int:
    """Rows of a batch for each of ``size`` processes.

    Raises:
        TrainingError: they cannot be shared out evenly.
    """
    if batch_size % size or batch_size < 2 * size:
        raise TrainingError(
            f"a batch of {batch_size} cannot be shared by {size} processes, 2 rows or more each",
            where="batch_size",
            mend=f"Take a multiple of {size}; it counts the rows of all processes.",
        )
    return batch_size // size


def means(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Each value's mean over the processes."""
    _, size = ranks.world()
    if size == 1:
        return dict(values)
    told = torch.tensor(list(values.values()), dtype=torch.float64 if device.type == "cpu" else torch.float32).to(
        device
    )
    dist.all_reduce(told)
    return dict(zip(values, (told / size).tolist(), strict=True))


def summed(values: Sequence[int], device: torch.device) -> list[int]:
    """Each value's sum over the processes."""
    told = torch.tensor(values, dtype=torch.int64, device=device)
    if ranks.world()[1] > 1:
        dist.all_reduce(told)
    found: list[int] = told.tolist()
    return found


def all_well(error: CapfiltError | None, device: torch.device) -> None:
    """Whether every process has done a piece of work that each does alone; without this, the others would wait.

    Raises:
        CapfiltError: this process's own ``error``. TrainingError: another one's, in its words: who watches the
            processes may hear this one only.
    """
    failed = ranks.gathered(torch.tensor([int(error is not None)], device=device)).tolist()
    if not any(failed):
        return
    words = json.dumps([part[:_WORDS] for part in (error.what, error.where, error.mend)] if error else [])
    theirs = of_all(torch.tensor(list(words.ljust(_LINE).encode()), dtype=torch.uint8), device)[failed.index(1)]
    if error is not None:
        raise error
    what, where, mend = json.loads(bytes(theirs.tolist()))
    raise TrainingError(what, where=where, mend=mend)


def agree(what: str, value: int, device: torch.device) -> None:
    """All processes must have found the same, or they would train on different batches and wait for each other.

    Raises:
        TrainingError: they have not; raised in every process.
    """
    found = ranks.gathered(torch.tensor([value], device=device)).tolist()
    if len(set(found)) > 1:
        raise TrainingError(
            f"the processes do not agree on {what}: {', '.join(map(str, found))}",
            mend="All must read the same shards and the same output folder.",
        )


def of_all(state: Tensor, device: torch.device) -> list[Tensor]:
    """A tensor of the same shape from every process, in their order."""
    found = ranks.gathered(state.to(device)[None])
    return list(found.cpu())


def wait() -> None:
    """Until all processes are here."""
    if ranks.world()[1] > 1:
        dist.barrier()

"""Objectives over the batch of all ranks: what a loss needs of the others, so that W ranks give one process's result.

Shapes: b rows of this rank, B = W * b rows of all, in the order of ranks. Every rank must have as many rows. Without
an initialised process group there is one rank, and all of this is the identity. Knows tensors; knows no model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def world() -> tuple[int, int]:
    """This rank and the number of ranks."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def first_row(rows: int) -> int:
    """Where this rank's ``rows`` begin among those of all."""
    return world()[0] * rows


def gathered(x: Tensor) -> Tensor:
    """(b, ...) of every rank: (B, ...), without gradient."""
    _, size = world()
    if size == 1:
        return x
    x = x.detach().contiguous()
    rooms = [torch.empty_like(x) for _ in range(size)]
    dist.all_gather(rooms, x)
    return torch.cat(rooms)


def gathered_texts(ids_bL: Tensor, mask_bL: Tensor) -> tuple[Tensor, Tensor]:
    """Ids and mask of every rank, padded to the longest text of all."""
    if world()[1] == 1:
        return ids_bL, mask_bL
    longest = torch.tensor(ids_bL.shape[1], device=ids_bL.device)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    more = (0, int(longest) - ids_bL.shape[1])
    # Bytes, for not every backend gathers booleans.
    return gathered(F.pad(ids_bL, more)), gathered(F.pad(mask_bL, more).to(torch.uint8)).bool()


def gathered_with_gradient(x: Tensor) -> Tensor:
    """As :func:`gathered`; the gradient of a row is the sum of what all ranks' losses send back to it."""
    if world()[1] == 1:
        return x
    out: Tensor = _Gather.apply(x)
    return out


def from_others(x: Tensor, rows_R: Tensor) -> tuple[Tensor | None, Tensor]:
    """What of other ranks' ``x`` is asked for: (F, ...), none if there are no others, with gradient to their ranks.

    Args:
        x: (b, ...).
        rows_R: int64, rows of all ranks.

    Returns:
        The F rows, and for each of ``rows_R`` its place among this rank's b and the F behind them, int64 (R,).
    """
    if world()[1] == 1:
        return None, rows_R
    first, size = first_row(x.shape[0]), x.shape[0]
    foreign_R = (rows_R < first) | (rows_R >= first + size)
    # A rank that asks for none takes part all the same, or the others would wait for its gradients.
    others = gathered_with_gradient(x).index_select(0, rows_R[foreign_R])
    return others, torch.where(foreign_R, size - 1 + foreign_R.cumsum(0), rows_R - first)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        return gathered(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        first = first_row(ctx.rows)
        return grad[first : first + ctx.rows]


def same_seed(device: torch.device) -> int:
    """A seed from rank 0's generator, the same on every rank."""
    seed = torch.randint(2**62, (1,))
    if world()[1] > 1:
        seed = seed.to(device)
        dist.broadcast(seed, 0)
    return int(seed)


def share(count: Tensor | int, device: torch.device) -> Tensor | float:
    """What a mean over ``count`` terms of this rank is to be multiplied with, so that the mean over ranks is the mean
    over all their terms."""
    _, size = world()
    if size == 1:
        return 1.0
    mine = torch.as_tensor(count, device=device).float()
    total = mine.clone()
    dist.all_reduce(total)
    return mine * size / total.clamp(min=1.0)

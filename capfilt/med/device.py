"""Where a model computes: a name from a user becomes a device of this machine. Knows torch only."""

from __future__ import annotations

import torch
from torch import Tensor

from capfilt.errors import EngineError

_AMPERE = (8, 0)


def device_of(device: str) -> str:
    """``auto`` becomes ``cuda`` where there is a GPU, else ``cpu``.

    Raises:
        EngineError: it is no device of this machine.
    """
    if device != "auto":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise EngineError(
                f"no such device here: {str(error).splitlines()[0]}",
                where=device,
                mend="Say auto, cpu or a GPU there is.",
            ) from error
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def precision_of(name: str, device: str) -> torch.dtype:
    """The dtype of this name on this device; ``auto`` is what its arithmetic is made for.

    That is bfloat16 on a GPU that multiplies in it (compute capability 8.0: Ampere and later), float16 on older ones,
    and float32 on a CPU.
    """
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    where = torch.device(device)
    if where.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(where) >= _AMPERE else torch.float16


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on ``device``. A GPU fetches it in its turn, and nobody waits for what is queued there."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

"""Where a model computes: a name from a user becomes a device of this machine. Knows torch only."""

from __future__ import annotations

import torch

from capfilt.errors import EngineError


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

"""Where a model computes: a name from a user becomes a device of this machine. Knows torch only."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from capfilt.errors import EngineError

_AMPERE = (8, 0)
_CPU_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})
"""Instructions that multiply in bfloat16; without them it is several times slower than float32."""


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

    That is bfloat16 on a GPU that multiplies in it (compute capability 8.0: Ampere and later) and float16 on an older
    one; on a CPU bfloat16 where it has instructions for that (AMX, AVX-512 BF16), else float32.
    """
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    where = torch.device(device)
    if where.type == "cpu":
        return torch.bfloat16 if _CPU_BFLOAT16 & cpu_features() else torch.float32
    if where.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(where) >= _AMPERE else torch.float16


class _ThreadsKept:
    """Gives torch its threads back. The setting is the process's and not that of the work that changes it.

    Where several threads are inside at once, those who come later find what the first has set: what was there before
    the first is what all of them give back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = self._before = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._before = torch.get_num_threads()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                torch.set_num_threads(self._before)


threads_kept = _ThreadsKept()
"""``with threads_kept():`` what is done within may set torch's threads; afterwards they are as before, also on errors.
"""


@functools.cache
def cpu_features() -> frozenset[str]:
    """Names of the instructions that torch finds on this CPU; none where it does not tell (before 2.11)."""
    told: Callable[[], dict[str, object]] | None = getattr(torch.cpu, "get_capabilities", None)
    return frozenset(name for name, value in told().items() if value is True) if told else frozenset()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on ``device``. A GPU fetches it in its turn, and nobody waits for what is queued there."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

"""All checks, in the order in which they are told. Loads torch and Ray only for a full examination."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from capfilt.doctor import machine, reach, software
from capfilt.doctor.check import Check, fail, ok


def examine(models: Mapping[str, str | None], *, dest: str | None = None, full: bool = False) -> Iterator[Check]:
    """Looks at everything; about a tenth of a second, and a little more where an answer is waited for.

    Args:
        models: those that are to be used, from role to name or folder.
        dest: where a data set would go; None looks at the current folder's disk only.
        full: also load torch and multiply on each device, and start or join Ray; takes some ten seconds.
    """
    with ThreadPoolExecutor(3, thread_name_prefix="doctor") as pool:
        # Those that wait for others are asked first.
        cluster, hub = pool.submit(software.ray_cluster), pool.submit(reach.hub)
        gpus = pool.submit(lambda: list(machine.gpus()))
        yield software.python()
        yield from software.packages()
        yield software.extras()
        yield machine.cores()
        yield machine.memory()
        yield from machine.shared_memory()
        yield from machine.disks(dest)
        yield from machine.open_files()
        yield from gpus.result()
        yield cluster.result()
        yield from reach.models(models)
        yield hub.result()
        yield from reach.accounts()
        if dest is not None:
            yield reach.destination(dest)
        if full:
            yield from _torch()
            yield from _ray()


def _torch() -> Iterator[Check]:
    try:
        import torch  # noqa: PLC0415 takes seconds, and only a full examination needs it
    except (ImportError, OSError) as error:
        yield fail("torch at work", f"cannot be loaded: {error}", "Install torch again, for this system and Python.")
        return
    for device in ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]:
        try:
            square = torch.ones(1024, 1024, device=device)
            start = time.perf_counter()
            total = float((square @ square).sum())
            took = time.perf_counter() - start
        except RuntimeError as error:
            mend = (
                "Look at the driver with nvidia-smi; another process may hold the GPU, or torch is built for another."
            )
            yield fail("torch at work", f"{device}: {str(error).splitlines()[0]}", mend)
            continue
        right = total == 1024.0**3
        found = f"{device} multiplies {'rightly' if right else 'wrongly'}, {took * 1000:.0f} ms"
        yield (
            ok("torch at work", found)
            if right
            else fail("torch at work", found, "This device is broken: leave it out.")
        )


def _ray() -> Iterator[Check]:
    from capfilt.errors import CapfiltError  # noqa: PLC0415 with the next one
    from capfilt.flow.cluster import machines, running  # noqa: PLC0415 Ray takes seconds
    from capfilt.flow.config import RunConfig  # noqa: PLC0415

    try:
        with running(2, RunConfig(), without="--runner local") as _:
            there = machines()
    except CapfiltError as error:
        yield fail("ray at work", error.what, error.mend)
        return
    told = f"{sum(m.cpus for m in there):g} CPUs and {sum(m.gpus for m in there):g} GPUs"
    yield ok("ray at work", f"{len(there)} machine{'s' if len(there) != 1 else ''} with {told}")

"""The machine: cores, memory, shared memory, disks, open files, GPUs. Knows the system; loads no library of models."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from capfilt.doctor.check import Check, fail, ok, warn

GIB = 1 << 30
_GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What Linux shows of GPUs: NVIDIA's, AMD's, and those of Windows around it."""
_SPILL_SHARE = 0.95
"""Ray makes no more objects once the disk of its folder is so full."""
_OPEN_FILES = 1024


def cores() -> Check:
    """Cores that this process may use."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if mine < 2:
        return warn(
            "cores", "1", "Take --runner local: Ray wants a core for the models and one for the tasks that feed them."
        )
    return ok("cores", f"{mine}")


def memory() -> Check:
    """Memory that is free, within what a container may take."""
    total, free = _memory()
    if total is None or free is None:
        return ok("memory", "this system does not say how much there is")
    found = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    mend = "Close what takes memory, take --runner local or fewer --workers, and lower plan.part_rows."
    if free < GIB:
        return fail("memory", found, mend)
    return warn("memory", found, mend) if free < 4 * GIB else ok("memory", found)


def shared_memory() -> Iterator[Check]:
    """Where Ray keeps what its workers share, on Linux."""
    place = Path("/dev/shm")  # noqa: S108 where Ray keeps it
    if not place.is_dir():
        return
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free in {place}"
    if free < 2 * GIB:
        yield warn("shared memory", found, "Give the container more (--shm-size=4g), or take --runner local.")
    else:
        yield ok("shared memory", found)


def disks(dest: str | None) -> Iterator[Check]:
    """Room where data sets go, where temporaries go, and where the hub's cache is."""
    cache = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    places = {"disk here": dest or ".", "disk of temporaries": temporary, "disk of the hub's cache": cache}
    for name, place in places.items():
        if "://" not in place:
            yield _disk(name, Path(place))


def open_files() -> Iterator[Check]:
    """How many files and connections may be open at once."""
    try:
        import resource  # noqa: PLC0415 not on Windows
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        most = "unlimited" if hard == resource.RLIM_INFINITY else f"{hard}"
        yield warn("open files", f"{soft} at most", f"Raise it before a run: ulimit -n {_OPEN_FILES} (here {most}).")
    else:
        yield ok("open files", "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} at most")


def gpus() -> Iterator[Check]:
    """GPUs that the driver shows, and whether the installed torch is built for them."""
    there = [name for name in _GPU_FILES if Path(name).exists()]
    if sys.platform != "linux":
        yield ok("gpus", "not looked for on this system; --full asks torch")
        return
    if not there:
        yield warn(
            "gpus",
            "none: models run on the CPU, which is slow for other models than med-mini",
            "If this machine has one, install its driver, and start the container with it (--gpus all).",
        )
        return
    shown, built = _nvidia(), _torch_builds()
    if shown is None:
        yield warn(
            "gpus", f"{there[0]} is there, but nvidia-smi does not answer", "Look at the driver: run nvidia-smi."
        )
    elif not built:
        yield fail(
            "gpus",
            f"{'; '.join(shown)}, but the installed torch is built for CPUs only",
            "Install a torch that is built for CUDA: https://pytorch.org/get-started/locally.",
        )
    else:
        yield ok("gpus", f"{'; '.join(shown)}; torch is built for {built}")


def _memory() -> tuple[float | None, float | None]:
    """(bytes in all, bytes free); a container's bounds count where they are lower."""
    try:
        told = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text("ascii"), re.M))
        total, free = int(told["MemTotal"]) * 1024, int(told["MemAvailable"]) * 1024
    except (OSError, KeyError):
        try:
            return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), None
        except (AttributeError, ValueError, OSError):
            return None, None
    bound = _number("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    used = _number("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")
    if bound is None or bound >= total:
        return total, free
    return bound, min(free, max(0, bound - (used or 0)))


def _number(*files: str) -> int | None:
    for file in files:
        try:
            return int(Path(file).read_text("ascii"))
        except (OSError, ValueError):
            continue  # not there, or "max"
    return None


def _disk(name: str, place: Path) -> Check:
    standing = place.expanduser().absolute()
    while not standing.exists() and standing != standing.parent:
        standing = standing.parent
    usage = shutil.disk_usage(standing)
    found = f"{usage.free / GIB:.1f} GiB free at {place}"
    mend = f"Make room there, or choose another place{_CHOICES.get(name, '')}."
    if usage.free < GIB:
        return fail(name, found, mend)
    full = name == "disk of temporaries" and 1 - usage.free / usage.total > _SPILL_SHARE
    if full:
        return warn(name, f"{found}, more than {_SPILL_SHARE:.0%} full, where Ray stops making objects", mend)
    return warn(name, found, mend) if usage.free < 10 * GIB else ok(name, found)


_CHOICES = {"disk of temporaries": " with RAY_TMPDIR and TMPDIR", "disk of the hub's cache": " with HF_HOME"}


def _nvidia() -> list[str] | None:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603 a fixed command
    except (OSError, subprocess.SubprocessError):
        return None
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _torch_builds() -> str:
    """What the installed torch is built for, read from its file: importing it takes seconds. Empty: CPUs only."""
    found = find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return ""
    try:
        text = Path(found.submodule_search_locations[0], "version.py").read_text("utf-8")
    except OSError:
        return ""
    told = re.search(r"^(cuda|hip)\b[^=\n]*= *'([^']+)'", text, re.M)
    return f"{told[1].upper()} {told[2]}" if told else ""

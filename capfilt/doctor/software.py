"""What is installed: Python, capfilt and what it needs, Ray, extras. Reads metadata; imports none of it."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from capfilt.doctor.check import Check, Status, fail, ok, warn

_EXTRAS = {
    "img2dataset": ("img2dataset", "fetch.engine: img2dataset"),
    "pycocoevalcap": ("eval", "capfilt evaluate --measure captioning"),
    "matplotlib": ("eval", "plots of capfilt evaluate and of training"),
    "wandb": ("track", "track: wandb"),
    "mlflow": ("track", "track: mlflow"),
    "fastapi": ("service", "capfilt serve"),
    "uvicorn": ("service", "capfilt serve"),
    "sqlalchemy": ("service", "jobs over HTTP"),
    "httpx": ("service", "capfilt jobs"),
}
"""From package to the extra it comes with, and what it is needed for."""
_RAY_PORT = 6379


def python() -> Check:
    """The interpreter: its version, and that it is a 64-bit one."""
    told = f"{platform.python_version()} ({sys.executable})"
    if sys.maxsize < 1 << 32:
        return fail("python", f"{told} has 32 bits", "Take a Python of 64 bits: there is no torch for others.")
    return ok("python", told)


def packages() -> Iterator[Check]:
    """capfilt and every package it needs, each with a version that it can be used with."""
    try:
        needed = [Requirement(text) for text in requires("capfilt") or ()]
        yield ok("capfilt", version("capfilt"))
    except PackageNotFoundError:
        yield warn("capfilt", "runs from its sources and is not installed", "Install it: pip install .")
        return
    wrong = [problem for need in needed if _applies(need) for problem in _wrong(need)]
    if wrong:
        yield fail("packages", "; ".join(wrong), "Install capfilt again into this environment: pip install -U capfilt.")
    else:
        yield ok("packages", f"all {sum(map(_applies, needed))} that capfilt needs are there")
    for name in ("torch", "ray"):
        if not any(told.startswith(f"{name} ") for told in wrong):
            yield ok(name, version(name))


def extras() -> Check:
    """What is needed for some jobs only."""
    missing = {name: why for name, (_, why) in _EXTRAS.items() if _version(name) is None}
    if not missing:
        return ok("extras", "all are installed")
    told = ", ".join(f"{name} (for {why})" for name, why in missing.items())
    wanted = ",".join(sorted({_EXTRAS[name][0] for name in missing}))
    # Not wanting them is no fault.
    return Check(name="extras", status=Status.OK, found=f"not installed: {told}", mend=_pip(wanted))


def ray_cluster(environment: Mapping[str, str] = os.environ) -> Check:
    """Whether a cluster that RAY_ADDRESS names answers; without one Ray is started here."""
    address = environment.get("RAY_ADDRESS", "")
    if address in {"", "local"}:
        return ok("ray cluster", "none is named (RAY_ADDRESS); Ray starts on this machine")
    if address == "auto":
        return ok("ray cluster", "the one that this machine belongs to (RAY_ADDRESS=auto)")
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname or "", parts.port or _RAY_PORT
        with socket.create_connection((host, port), timeout=2):
            return ok("ray cluster", f"{host}:{port} answers (RAY_ADDRESS)")
    except (OSError, ValueError) as error:
        return fail(
            "ray cluster",
            f"RAY_ADDRESS is {address}, which does not answer: {error}",
            "Start the cluster or mend the address; unset RAY_ADDRESS to run on this machine.",
        )


def _applies(need: Requirement) -> bool:
    return need.marker is None or need.marker.evaluate({"extra": ""})


def _wrong(need: Requirement) -> Iterator[str]:
    there = _version(need.name)
    if there is None:
        yield f"{need.name} is not installed"
    elif not need.specifier.contains(there, prereleases=True):
        yield f"{need.name} {there} is not {need.specifier}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _pip(extras_: str) -> str:
    return f"Only if you need them: pip install 'capfilt[{extras_}]'."

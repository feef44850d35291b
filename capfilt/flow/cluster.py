"""Ray itself: joined or started for the length of a block, quiet unless asked, and what it offers.

Knows processes and machines; knows not what runs on them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions

from capfilt.errors import EngineError
from capfilt.flow.config import RunConfig
from capfilt.flow.farewell import farewell
from capfilt.flow.plan import TASK_CPUS, Machine

START_ATTEMPTS = 2
"""Ray gives its own processes half a minute, which a busy machine may miss; the second time they are cached."""
DIED = (
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.RayActorError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfDiskError,
)
"""What Ray raises when a process of its own is gone."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "100000",  # Ray's own patience ends sooner than a busy laptop needs
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; unset, it warns
}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machines() -> list[Machine]:
    """What the machines of the running Ray offer, whether it is taken or free."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    return [Machine(cpus=found.get("CPU", 0.0), gpus=found.get("GPU", 0.0)) for found in alive]


@contextmanager
def running(cpus: int, config: RunConfig, *, without: str) -> Iterator[bool]:
    """Ray, for the length of the block; one that runs already is used as it is, and left.

    Args:
        cpus: logical CPUs of a Ray that is started here.
        config: where it is, if anywhere.
        without: how to do without Ray, as an error is to say it.

    Yields:
        Whether it was started here, with that many CPUs.

    Raises:
        EngineError: it cannot be reached, or does not start.
    """
    if ray.is_initialized():
        yield False
        return
    address = config.cluster
    # Ray ends workers beyond one a CPU when they rest for a second, and starts others a moment later; tasks that take
    # a part of a CPU have more.
    told = ({} if config.verbose else _QUIET) | {"RAY_num_workers_soft_limit": str(round(cpus / TASK_CPUS))}
    with environment(told), _quietly(config):
        how = {} if address else {"num_cpus": cpus, "include_dashboard": False}
        _connect(address, how, config, without)
        with farewell():
            try:
                yield not address
            finally:
                ray.shutdown()


def _connect(address: str | None, how: dict[str, Any], config: RunConfig, without: str) -> None:
    attempts = 1 if address else START_ATTEMPTS
    for left in reversed(range(attempts)):
        try:
            ray.init(
                address=address or "local",
                log_to_driver=config.verbose,
                logging_level=logging.INFO if config.verbose else logging.CRITICAL,
                **how,
            )
            return
        except Exception as error:  # other processes: when they do not come up, Ray raises just that
            ray.shutdown()
            if not left:
                raise _no_ray(address, error, without) from error


def _unknown(error: BaseException) -> bool:
    """Whether it comes of a token that the cluster did not take."""
    causes: list[BaseException] = []
    while error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__ or error
    # Ray keeps of it only what it said.
    return any("AuthenticationError" in f"{type(cause).__name__} {cause}" for cause in causes)


def _no_ray(address: str | None, error: Exception, without: str) -> EngineError:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    if address and _unknown(error):
        # To a cluster that is named by its address Ray shows no token unless it is told to.
        mend = "Set RAY_AUTH_MODE=token, and the cluster's own token in RAY_AUTH_TOKEN or ~/.ray/auth_token."
        return EngineError("the Ray cluster wants a token, or another one", where=address, mend=mend)
    if address:
        mend = "Check the address, and that the cluster runs the same Ray and Python."
        return EngineError(f"Ray cannot be reached: {first}", where=address, mend=mend)
    mend = f"Run again when the machine is less busy, or {without}, which needs no Ray."
    return EngineError(f"Ray did not start: {first}", where="this machine", mend=mend)


@contextmanager
def _quietly(config: RunConfig) -> Iterator[None]:
    logger = logging.getLogger("ray")
    level = logger.level
    if not config.verbose:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables that Ray reads when it starts; what the user has set stays."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)

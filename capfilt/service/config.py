"""The settings of the service. Knows no HTTP and starts nothing."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Literal

from capfilt.errors import RecipeError, require_within
from capfilt.fetch.config import FetchConfig
from capfilt.stages.config import CapFiltConfig


def _patient() -> FetchConfig:
    # Somebody waits for the answer: no second tries, and no half minute for a slow host.
    return FetchConfig(timeout_connect_s=5.0, timeout_read_s=5.0, timeout_total_s=15.0, retries=0)


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """What one request may bring, and what all of them may take together. Counts and lengths within a request are
    fixed (:mod:`capfilt.service.wire`)."""

    body_bytes: int = 32 * 1024 * 1024
    """Largest body of a request in bytes, 1024 or more; pictures in base64 take 4 bytes for 3."""
    bodies_bytes: int = 256 * 1024 * 1024
    """Bytes of all bodies that are under way at once, as much as ``body_bytes`` or more; beyond them callers are asked
    to come again."""
    queue: int = 256
    """Pictures of all requests that wait or are worked on at once, 64 or more; beyond them callers are asked to come
    again."""
    wait_ms: float = 2.0
    """Milliseconds that an idle model waits for a batch to fill, 0 to 1000."""
    timeout_s: float = 60.0
    """Seconds in which a request is read, and again in which its pictures are fetched and done, 1 to 3600."""

    def __post_init__(self) -> None:
        require_within("limits.body_bytes", self.body_bytes, 1024, 2**40)
        require_within("limits.bodies_bytes", self.bodies_bytes, self.body_bytes, 2**50)
        require_within("limits.queue", self.queue, 64, 10**7)
        require_within("limits.wait_ms", self.wait_ms, 0, 1000)
        require_within("limits.timeout_s", self.timeout_s, 1, 3600)


@dataclass(frozen=True, kw_only=True)
class JobsConfig:
    """How jobs are kept and run."""

    state: str | None = None
    """Folder for the jobs' books and logs; null runs no jobs."""
    database: str | None = None
    """Where the jobs' books are, as SQLAlchemy writes it (``postgresql+psycopg://...``); null: SQLite in ``state``."""
    via: Literal["process", "ray"] = "process"
    """``process`` runs each job as a process on this machine; ``ray`` gives it to a cluster's Ray Jobs."""
    address: str = "http://127.0.0.1:8265"
    """The dashboard of the cluster that Ray Jobs are given to."""
    runner: Literal["ray", "local"] = "ray"
    """What a job's bootstrap runs on: Ray, or its own process alone. Ray Jobs take ``ray``."""
    at_once: int = 1
    """Jobs that run at once, 1 to 1000; others wait."""
    attempts: int = 3
    """Times that a job is begun whose process dies, 1 to 100; each goes on where the one before stopped."""
    pause_s: float = 60.0
    """Seconds before a job is begun anew that failed by what may pass, such as a store that is away, 0 to 86400; twice
    as long before each further attempt."""
    poll_s: float = 0.5
    """Seconds between looks at the jobs, 0.05 to 60."""

    def __post_init__(self) -> None:
        require_within("jobs.at_once", self.at_once, 1, 1000)
        require_within("jobs.attempts", self.attempts, 1, 100)
        require_within("jobs.pause_s", self.pause_s, 0, 86400)
        require_within("jobs.poll_s", self.poll_s, 0.05, 60)


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """Where the service listens, the models behind it, and its bounds."""

    host: str = "127.0.0.1"
    """Address to listen at. Beyond this machine only with tokens."""
    port: int = 8642
    """Port to listen at, 0 to 65535; 0 takes any that is free."""
    runner: Literal["ray", "local"] = "ray"
    """``ray`` is Ray Serve; ``local`` is one process without Ray."""
    address: str | None = None
    """The Ray cluster that Ray Serve runs on; null starts Ray here, unless RAY_ADDRESS names a cluster."""
    replicas: int = 1
    """Copies of the models on Ray Serve, each with ``capfilt.cpus`` and ``capfilt.gpus``, 1 to 1024."""
    capfilt: CapFiltConfig = field(default_factory=CapFiltConfig)
    """The models and how they caption and judge."""
    fetch: FetchConfig = field(default_factory=_patient)
    """How pictures are fetched by URL, and the bounds of every picture (``fetch.images``)."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """Bounds of requests."""
    jobs: JobsConfig = field(default_factory=JobsConfig)
    """How jobs are kept and run."""
    tokens: str | None = None
    """File of those who may ask (`capfilt tokens new`); null lets everybody on this machine."""
    sources: tuple[str, ...] = ()
    """Without tokens: folders and URLs that jobs may read from."""
    dests: tuple[str, ...] = ()
    """Without tokens: folders and URLs that jobs may write to."""

    def __post_init__(self) -> None:
        require_within("port", self.port, 0, 65535)
        require_within("replicas", self.replicas, 1, 1024)
        if not self.host:
            raise RecipeError("it is empty", where="host", mend="Give an address, as 127.0.0.1.")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

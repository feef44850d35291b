"""The settings of fetching. Knows no HTTP."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Literal

from capfilt.errors import RecipeError
from capfilt.images import ImageLimits

_ROBOT = "capfilt"
_PRODUCT = re.compile(r"[A-Za-z_-]+")
_DIRECTIVE = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """How pictures are fetched: bounds, manners, and which addresses are open."""

    engine: Literal["native", "img2dataset"] = "native"
    """What makes the requests: our own asynchronous client, or img2dataset's downloader (an extra). The rules are the
    same for both."""
    timeout_connect_s: float = 10.0
    """Seconds for name lookup, connection and TLS together, more than 0."""
    timeout_read_s: float = 10.0
    """Longest silence in seconds while an answer is awaited or read, more than 0."""
    timeout_total_s: float = 60.0
    """Seconds for one attempt, redirects included, waiting for its turn excluded, more than 0."""
    concurrency: int = 64
    """Requests of one worker process under way at once, 1 to 4096. A slot is held until its picture is normalised,
    so that at most this many bodies are in memory."""
    per_host: int = 8
    """Requests of one worker process to one host at once, 1 or more."""
    per_host_rate: float = 0.0
    """Requests a second of one worker process to one host, evenly spaced, 0 to 1000; 0 sets no bound."""
    max_redirects: int = 5
    """Redirects that are followed for one URL, 0 to 20."""
    retries: int = 2
    """Further attempts after a failure that may pass (429, 5xx, broken connections), 0 to 10."""
    retry_wait_s: float = 0.5
    """Wait in seconds before the first further attempt, doubled each time and spread by half, 0 or more."""
    retry_after_max_s: float = 10.0
    """Longest Retry-After in seconds that is waited for, by every request to that host; a host asking for more is
    not asked again before its time, at most an hour. 0 or more."""
    user_agent: str = "capfilt/0.1 (image-text data set builder)"
    """What the worker calls itself. Put a way to reach you in it. Its first word, up to a slash, is the name by which
    robots.txt and X-Robots-Tag speak to it."""
    allow_addresses: tuple[str, ...] = ()
    """Address ranges (CIDR, as ``127.0.0.0/8``) that are open though they are not public."""
    opt_outs: tuple[str, ...] = ("noai", "noimageai", "noml", "noindex", "noimageindex", "none")
    """Directives of X-Robots-Tag that drop the row unread; empty honours none."""
    robots_txt: bool = False
    """Whether the robots.txt of each host is read first, and what it disallows left out."""
    same_picture_max: int = 5
    """URLs of one part that may give the very same picture; of more it is taken for a placeholder and all those rows
    are dropped. 0 or more; 0 drops none."""
    threads: int = 2
    """Threads of one worker process that decode and re-encode pictures, 1 to 64."""
    images: ImageLimits = field(default_factory=ImageLimits)
    """Bounds of each picture; ``images.max_bytes`` also caps each download."""

    def __post_init__(self) -> None:
        self._require(self.engine in ("native", "img2dataset"), "engine", "native or img2dataset")
        self._require(self.timeout_connect_s > 0, "timeout_connect_s", "more than 0 seconds")
        self._require(self.timeout_read_s > 0, "timeout_read_s", "more than 0 seconds")
        self._require(self.timeout_total_s > 0, "timeout_total_s", "more than 0 seconds")
        self._require(self.retry_wait_s >= 0, "retry_wait_s", "0 or more seconds")
        self._require(self.retry_after_max_s >= 0, "retry_after_max_s", "0 or more seconds")
        self._require(1 <= self.concurrency <= 4096, "concurrency", "1 to 4096")
        self._require(self.per_host >= 1, "per_host", "1 or more")
        self._require(0 <= self.per_host_rate <= 1000, "per_host_rate", "0 to 1000 requests a second")
        self._require(0 <= self.max_redirects <= 20, "max_redirects", "0 to 20")
        self._require(0 <= self.retries <= 10, "retries", "0 to 10")
        self._require(self.same_picture_max >= 0, "same_picture_max", "0 or more")
        self._require(1 <= self.threads <= 64, "threads", "1 to 64")
        sendable = self.user_agent.isascii() and self.user_agent.isprintable() and self.user_agent.strip() != ""
        self._require(sendable, "user_agent", "printable ASCII text, not empty")
        words = all(_DIRECTIVE.fullmatch(word) for word in self.opt_outs)
        self._require(words, "opt_outs", "directives in lower case, as [noai, noindex]")
        for cidr in self.allow_addresses:
            _network(cidr)

    def _require(self, good: bool, name: str, range_: str) -> None:
        if not good:
            raise RecipeError(f"{getattr(self, name)!r} is out of range", where=f"fetch.{name}", mend=f"Give {range_}.")

    @property
    def robot(self) -> str:
        """The name by which robots.txt speaks to the worker, lower case."""
        product = _PRODUCT.match(self.user_agent)
        return product[0].lower() if product else _ROBOT

    @property
    def robot_names(self) -> frozenset[str]:
        """The names by which X-Robots-Tag does: its own, and this software's."""
        return frozenset({self.robot, _ROBOT})

    @property
    def open_networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """``allow_addresses``, parsed."""
        return tuple(_network(cidr) for cidr in self.allow_addresses)


def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        raise RecipeError(
            f"{cidr!r} is no range of addresses",
            where="fetch.allow_addresses",
            mend="Give CIDR ranges, as 127.0.0.0/8 or fd00::/8.",
        ) from None

"""What the service counts, for Prometheus. Knows no request."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one app; a registry of its own, so that several may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        on: Any = {"registry": self.registry}
        self.requests = Counter("capfilt_requests", "Requests answered", ["method", "route", "status"], **on)
        self.seconds = Histogram("capfilt_request_seconds", "Until the answer", ["route"], buckets=_SECONDS, **on)
        self.refused = Counter("capfilt_refused", "Requests refused for want of room", ["reason"], **on)
        self.pictures = Counter("capfilt_pictures", "Pictures done", ["kind", "outcome"], **on)
        self.waiting = Gauge("capfilt_pictures_under_way", "Pictures that wait or are worked on", **on)
        self.bodies = Gauge("capfilt_body_bytes_under_way", "Bytes of bodies that are being read or worked on", **on)
        self.batch = Histogram("capfilt_batch_pictures", "Pictures of a batch, by picture", buckets=_PICTURES, **on)
        self.queued = Histogram("capfilt_queued_seconds", "A picture's wait for its batch", buckets=_SECONDS, **on)
        self.worked = Histogram("capfilt_batch_seconds", "The models' time with a batch", buckets=_SECONDS, **on)
        self.jobs = Gauge("capfilt_jobs", "Jobs by state", ["state"], **on)
        self.ready = Gauge("capfilt_ready", "1 when the models are there", **on)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)

"""What the app asks of the models, wherever they are: in this process, or in replicas of Ray Serve."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from capfilt.service.config import ServiceConfig
from capfilt.service.engine import Engine, Outcome, Work


class Busy(Exception):  # noqa: N818 no fault: the caller is asked to come again
    """More is asked than can wait."""


class Models(Protocol):
    """Pictures in, outcomes out."""

    async def open(self) -> None:
        """Waits until the models are there."""
        ...

    async def run(self, works: Sequence[Work]) -> list[Outcome]:
        """An outcome for each picture, in order.

        Raises:
            Busy: too much waits already.
        """
        ...

    async def close(self) -> None:
        """Lets them go."""
        ...


class LocalModels:
    """The models in this process."""

    def __init__(self, config: ServiceConfig) -> None:
        self._config = config
        self._engine: Engine | None = None

    async def open(self) -> None:
        """Loads them in a thread, so that health is answered meanwhile."""
        self._engine = await asyncio.to_thread(opened, self._config)

    async def run(self, works: Sequence[Work]) -> list[Outcome]:
        """See :class:`Models`."""
        assert self._engine is not None  # noqa: S101 the app answers "not ready" before
        return await asyncio.gather(*(asyncio.wrap_future(self._engine.submit(work)) for work in works))

    async def close(self) -> None:
        """Ends their threads."""
        if self._engine is not None:
            await asyncio.to_thread(self._engine.close)


def opened(config: ServiceConfig) -> Engine:
    """The engine of a configuration.

    Raises:
        ModelError: a model is unknown or damaged.
    """
    return Engine(config.capfilt, wait_s=config.limits.wait_ms / 1000)

"""The service on Ray Serve: the app as ingress, the models as replicas behind it. The only one here that knows Ray.

The models batch in their replica what all requests bring; the ingress bounds what may wait, and Ray Serve refuses what
would wait at a replica beyond that.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import threading
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from ray import serve as _serve
from ray.serve.exceptions import BackPressureError

from capfilt.errors import EngineError
from capfilt.flow.cluster import cores, running
from capfilt.flow.config import RunConfig
from capfilt.recipe import load_config
from capfilt.service.access import Access
from capfilt.service.app import build_app
from capfilt.service.config import ServiceConfig
from capfilt.service.engine import Outcome, Work
from capfilt.service.local import KEEP_ALIVE_S
from capfilt.service.logs import to_stderr
from capfilt.service.models import Busy, opened

NAME = "capfilt"
_MODELS = "Models"
serve: Any = _serve
"""Ray Serve; its types say less than it does."""
_log = logging.getLogger(__name__)


class Replica:
    """The models on a worker of Ray Serve."""

    def __init__(self, config: ServiceConfig) -> None:
        self._engine = opened(config)

    async def run(self, works: Sequence[Work]) -> list[Outcome]:
        """An outcome for each picture; pictures of several calls share batches."""
        return await asyncio.gather(*(asyncio.wrap_future(self._engine.submit(work)) for work in works))


class RayModels:
    """The replicas, as the app sees them."""

    def __init__(self, _: ServiceConfig) -> None:
        self._handle: Any = None

    async def open(self) -> None:
        """Finds the replicas; Ray Serve starts the ingress when they are there."""
        self._handle = serve.get_deployment_handle(_MODELS, app_name=NAME)
        await self._handle.run.remote([])

    async def run(self, works: Sequence[Work]) -> list[Outcome]:
        """See :class:`capfilt.service.models.Models`."""
        try:
            done: list[Outcome] = await self._handle.run.remote(list(works))
        except BackPressureError:
            raise Busy from None
        return done

    async def close(self) -> None:
        """The replicas are Ray Serve's."""


def application(config: ServiceConfig) -> Any:
    """What Ray Serve deploys, under the name :data:`NAME`."""
    c, most = config.capfilt, config.limits.queue
    models = serve.deployment(
        Replica,
        name=_MODELS,
        num_replicas=config.replicas,
        ray_actor_options={"num_cpus": c.cpus, "num_gpus": c.gpus},
        max_ongoing_requests=most,
        max_queued_requests=most,
        graceful_shutdown_timeout_s=10,
    ).bind(config)

    def app() -> FastAPI:  # Ray Serve takes a builder only if it is a plain function
        to_stderr()
        return build_app(config, RayModels)

    ingress = serve.ingress(app)()
    return serve.deployment(
        ingress,
        name="Api",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=1024,
        graceful_shutdown_timeout_s=10,
    ).bind(models)


def built(told: dict[str, str]) -> Any:
    """What Ray Serve deploys when it is told by a config file of its own, as on Kubernetes: ``import_path:
    capfilt.service.deployment:built``. The application is to be named :data:`NAME`; host and port are that file's.

    Args:
        told: under ``config`` the file of settings, which is at the same path on every node.

    Raises:
        CapfiltError: a setting is wrong, or the tokens cannot be read.
    """
    config = load_config(ServiceConfig, told["config"], ())
    Access.of(config)
    return application(config)


def serve_ray(config: ServiceConfig, *, verbose: bool = False) -> None:
    """Starts Ray if there is none, deploys, and answers until SIGINT or SIGTERM.

    Raises:
        EngineError: Ray or Ray Serve does not start.
        CapfiltError: the tokens cannot be read, or are needed and not given.
    """
    cpus = max(cores(), math.ceil(config.replicas * config.capfilt.cpus))
    run = RunConfig(address=config.address, verbose=verbose)
    with running(cpus, run, without="say --runner local"):
        # Ray, once connected, has a handler that ends the process; it answers before `deploy` is through.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            deploy(config)
            _log.info("listening at http://%s:%d", config.host, config.port)
            threading.Event().wait()
        except KeyboardInterrupt:
            _log.info("told to end")
        finally:
            serve.shutdown()


def deploy(config: ServiceConfig) -> None:
    """Deploys onto the Ray that is connected, and waits until the replicas are there.

    Raises:
        EngineError: they do not come up.
    """
    try:
        serve.start(
            http_options={
                "host": config.host,
                "port": config.port,
                "request_timeout_s": 3 * config.limits.timeout_s,
                "keep_alive_timeout_s": KEEP_ALIVE_S,
            }
        )
        serve.run(application(config), name=NAME, route_prefix="/")
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        mend = "Look at Ray Serve's logs, or say --runner local."
        raise EngineError(f"Ray Serve does not come up: {first}", where="this cluster", mend=mend) from error

"""The app: its routes, put together; the same whether Ray Serve or one process runs it.

Knows how rooms of the service are joined; the work is theirs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from capfilt.errors import CapfiltError
from capfilt.service import problems
from capfilt.service.access import Access, Role, allowed
from capfilt.service.config import ServiceConfig
from capfilt.service.described import describe
from capfilt.service.edge import Edge
from capfilt.service.jobs.desk import Desk
from capfilt.service.jobs.launch import launcher
from capfilt.service.jobs.routes import router
from capfilt.service.jobs.store import JobStore, sqlite_url
from capfilt.service.jobs.supervise import Supervisor, state_folder
from capfilt.service.jobs.wire import State
from capfilt.service.metrics import CONTENT_TYPE, Metrics
from capfilt.service.models import Models
from capfilt.service.online import Online
from capfilt.service.page.routes import router as page_router
from capfilt.service.problems import Refusal, responses
from capfilt.service.wire import About, CapFiltRequest, CaptionRequest, Health, Kind, Picture, Results, ScoreRequest

_log = logging.getLogger(__name__)
_AGAIN_S = 5.0
_ONLINE = responses(400, 401, 403, 408, 413, 415, 422, 429, 503)
DESCRIPTION = """Captions pictures and judges which texts fit them, one request at a time or a data set as a job.

A picture that cannot be fetched or read does not fail its request: its result says why. Refusals are a `Problem`.
"""


class Service:
    """What the routes share while the app lives."""

    def __init__(self, config: ServiceConfig, models: Models) -> None:
        self.config, self.models, self.metrics = config, models, Metrics()
        self.access = Access.of(config)
        self.online: Online | None = None
        self.desk: Desk | None = None
        self.failure = self.jobs_failure = ""

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        """Loads the models beside, so that health is answered at once; closes all at the end."""
        online = Online(self.config, self.models, self.metrics)
        beside = [asyncio.create_task(self._open(online))]
        if self.config.jobs.state is not None:
            beside.append(asyncio.create_task(self._look_after_jobs()))
        try:
            yield
        finally:
            self.online = self.desk = None
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await online.close()
            await self.models.close()

    async def _open(self, online: Online) -> None:
        try:
            await self.models.open()
        except Exception as error:  # noqa: BLE001 nobody waits for this task: what is not told here is told nowhere
            self.failure = _brief(error)
            _told("the models do not open", error)
            return
        self.online = online
        self.metrics.ready.set(1)
        _log.info("ready")

    async def _look_after_jobs(self) -> None:
        jobs, state = self.config.jobs, state_folder(self.config.jobs)
        store: JobStore | None = None
        while True:
            try:
                store = await asyncio.to_thread(JobStore, jobs.database or sqlite_url(str(state)))
                launched = await asyncio.to_thread(launcher, jobs, state)
                break
            except Exception as error:  # noqa: BLE001 as above; and a database or cluster may come yet
                self.jobs_failure = _brief(error)
                _told("jobs do not start yet", error)
                if store is not None:
                    store.close()
                await asyncio.sleep(_AGAIN_S)
        self.desk = Desk(self.config, store, launched)
        try:
            await Supervisor(jobs, store, launched).run()
        finally:
            store.close()

    def need_desk(self) -> Desk:
        """The jobs' desk.

        Raises:
            Refusal: 503, jobs are off or not there yet.
        """
        if self.desk is None:
            off = self.config.jobs.state is None
            mend = "Start the service with --state DIR." if off else "Come again."
            what = f"jobs do not start: {self.jobs_failure}" if self.jobs_failure else "jobs start"
            raise Refusal(503, "jobs are off" if off else what, mend=mend, headers={"Retry-After": "5"})
        return self.desk

    async def answer(self, kind: Kind, pictures: list[Picture]) -> Results:
        """See :class:`Online`."""
        if self.online is None:
            what = f"the models do not open: {self.failure}" if self.failure else "the models are being loaded"
            raise Refusal(503, what, mend="Ask /readyz until it says ok.", headers={"Retry-After": "5"})
        return await self.online.answer(kind, pictures)


def _brief(error: Exception) -> str:
    if isinstance(error, CapfiltError):
        return str(error).partition("\n")[0]
    # Its text is not meant for callers.
    return f"{type(error).__name__}, of which the service's log has more"


def _told(what: str, error: Exception) -> None:
    """Into the log: a mistake in its words, a fault with where it came from."""
    _log.error("%s: %s", what, error, exc_info=None if isinstance(error, CapfiltError) else error)


def build_app(config: ServiceConfig, models: Callable[[ServiceConfig], Models]) -> FastAPI:
    """The app of a configuration.

    Args:
        config: bounds, fetching, who may ask.
        models: makes the models' face; called once.

    Raises:
        CapfiltError: the tokens cannot be read, or are needed and not given.
    """
    service = Service(config, models(config))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.life():
            yield

    app = FastAPI(
        title="CapFilt",
        description=DESCRIPTION,
        version=version("capfilt"),
        lifespan=lifespan,
        docs_url=None,  # it would load scripts of another host
        redoc_url=None,
    )
    problems.install(app)
    _watching(app, service)
    _asking(app, service)
    app.include_router(router(service.need_desk, config.jobs.poll_s))
    app.include_router(page_router())
    describe(app)
    app.add_middleware(
        Edge,
        limits=config.limits,
        metrics=service.metrics,
        identify=service.access.identify,
        local_only=service.access.anonymous is not None,
    )
    return app


def _watching(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["watching"], response_model=Health)
    async def health() -> Health:
        """Whether the process answers."""
        return Health(status="ok")

    @app.get("/readyz", tags=["watching"], response_model=Health, responses={503: {"model": Health}})
    async def ready() -> JSONResponse:
        """Whether requests would be done."""
        if service.online is not None:
            return JSONResponse(Health(status="ok").model_dump())
        status = "failing" if service.failure else "starting"
        told = Health.model_validate({"status": status, "detail": service.failure})
        return JSONResponse(told.model_dump(), 503, headers={"Retry-After": "5"})

    @app.get(
        "/metrics",
        tags=["watching"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **responses(401, 403)},
        dependencies=[Depends(allowed(Role.WATCH))],
    )
    async def metrics() -> Response:
        """Counters for Prometheus."""
        if service.desk is not None:
            counts = await asyncio.to_thread(service.desk.store.counts)
            for state in State:
                service.metrics.jobs.labels(str(state)).set(counts.get(str(state), 0))
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/v1/about", tags=["watching"], responses=responses(401))
    async def about(_: Request) -> About:
        """The models behind the service, and its bounds."""
        c = service.config
        return About(
            version=app.version,
            captioner=c.capfilt.captioner,
            filter=c.capfilt.filter,
            threshold=c.capfilt.threshold,
            max_body_bytes=c.limits.body_bytes,
        )


def _asking(app: FastAPI, service: Service) -> None:
    may = [Depends(allowed(Role.ONLINE))]

    @app.post("/v1/caption", tags=["online"], responses=_ONLINE, dependencies=may)
    async def caption(request: CaptionRequest) -> Results:
        """Captions for pictures, unjudged."""
        return await service.answer("caption", list(request.pictures))

    @app.post("/v1/score", tags=["online"], responses=_ONLINE, dependencies=may)
    async def score(request: ScoreRequest) -> Results:
        """Scores and verdicts for texts of pictures."""
        return await service.answer("score", list(request.pictures))

    @app.post("/v1/capfilt", tags=["online"], responses=_ONLINE, dependencies=may)
    async def capfilt(request: CapFiltRequest) -> Results:
        """Captions for pictures; they and the texts that came along, judged."""
        return await service.answer("capfilt", list(request.pictures))

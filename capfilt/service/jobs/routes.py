"""``/v1/jobs``: the desk over HTTP, and a job's events as they happen (SSE)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse

from capfilt.service.access import Caller, Role, allowed
from capfilt.service.jobs.desk import Desk, shown
from capfilt.service.jobs.wire import ACTIVE, Audit, Audited, AuditPage, Job, JobRequest, Jobs, Page, RetryRequest
from capfilt.service.problems import Refusal, responses

STREAMS = 200
"""Callers that may follow events at once."""
_BEAT_S = 15.0
_READ = responses(401, 403, 404, 422, 503)
_WRITE = responses(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503)
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", description="The job's id.")]
Sees = Annotated[Caller, Depends(allowed(Role.JOBS, Role.WATCH))]
Works = Annotated[Caller, Depends(allowed(Role.JOBS))]
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[!-~]{1,128}$")]


def router(desk_of: Callable[[], Desk], poll_s: float) -> APIRouter:
    """The routes.

    Args:
        desk_of: gives the desk, or raises a Refusal while there is none.
        poll_s: seconds between looks of who follows events.
    """
    routes = APIRouter(prefix="/v1", tags=["jobs"])
    _reading(routes, desk_of)
    _changing(routes, desk_of)
    _following(routes, desk_of, poll_s)
    return routes


def _reading(routes: APIRouter, desk_of: Callable[[], Desk]) -> None:
    @routes.get("/jobs", responses=responses(401, 403, 422, 503))
    def listed(caller: Sees, asked: Annotated[Page, Query()]) -> Jobs:
        """Jobs, the newest first: one's own, or with the role `watch` everybody's."""
        owner = None if caller.may(Role.WATCH) else caller.name
        rows = desk_of().store.list(owner, asked.state, asked.before, asked.limit)
        return Jobs(jobs=[shown(row) for row in rows], next=rows[-1].id if len(rows) == asked.limit else None)

    @routes.get("/jobs/{id}", responses=_READ)
    def job(request: Request, caller: Sees, id: JobId) -> Job:  # noqa: A002 the path's own name
        """A job: its state, books, and how long the rest will take."""
        request.state.job = id
        return shown(desk_of().find(caller, id))

    @routes.get("/jobs/{id}/log", response_class=Response, responses={**_READ, 200: _content("text/plain")})
    def log(caller: Sees, id: JobId) -> PlainTextResponse:  # noqa: A002
        """The end of what its last attempt wrote: JSON lines, and tracebacks."""
        desk = desk_of()
        return PlainTextResponse(desk.log(desk.find(caller, id)))

    @routes.get("/jobs/{id}/manifest", response_class=Response, responses={**_READ, 200: _content("application/json")})
    def manifest(caller: Sees, id: JobId) -> Response:  # noqa: A002
        """The books of the finished data set."""
        desk = desk_of()
        data = desk.written(desk.find(caller, id), "manifest.json")
        return Response(data, media_type="application/json")

    @routes.get("/jobs/{id}/report", response_class=Response, responses={**_READ, 200: _content("text/html")})
    def report(caller: Sees, id: JobId) -> HTMLResponse:  # noqa: A002
        """What happened, as a page."""
        desk = desk_of()
        data = desk.written(desk.find(caller, id), "report.html")
        # Captions of strangers are in it: it runs apart from the service's own pages, whatever it holds.
        return HTMLResponse(data, headers={"Content-Security-Policy": "sandbox allow-scripts"})

    @routes.get("/audit", responses=responses(401, 403, 422, 503))
    def audit(_: Annotated[Caller, Depends(allowed(Role.ADMIN))], asked: Annotated[AuditPage, Query()]) -> Audit:
        """Who submitted, cancelled and retried what, and what was refused; the newest first."""
        return Audit(entries=[Audited.model_validate(dict(entry)) for entry in desk_of().store.audited(asked.limit)])


def _changing(routes: APIRouter, desk_of: Callable[[], Desk]) -> None:
    made: dict[int | str, dict[str, Any]] = {200: {"model": Job, "description": "The job that this key was used for."}}

    @routes.post("/jobs", status_code=201, responses={**_WRITE, **made})
    def submit(request: Request, response: Response, caller: Works, asked: JobRequest, key: Key = None) -> Job:
        """Submits a job. With the same Idempotency-Key, the same job again."""
        row, fresh = desk_of().submit(caller, asked, key, request.state.request_id)
        request.state.job = row.id
        response.status_code = 201 if fresh else 200
        response.headers["Location"] = f"/v1/jobs/{row.id}"
        return shown(row)

    @routes.post("/jobs/{id}/cancel", responses=_WRITE)
    def cancel(request: Request, caller: Works, id: JobId) -> Job:  # noqa: A002
        """Asks a job to end; what is committed stays."""
        request.state.job = id
        return shown(desk_of().cancel(caller, id, request.state.request_id))

    @routes.post("/jobs/{id}/retry", responses=_WRITE)
    def retry(request: Request, caller: Works, id: JobId, asked: RetryRequest) -> Job:  # noqa: A002
        """Queues a job that has ended once more: it goes on where it stopped."""
        request.state.job = id
        return shown(desk_of().retry(caller, id, asked.reasons, request.state.request_id))


def _following(routes: APIRouter, desk_of: Callable[[], Desk], poll_s: float) -> None:
    following = 0

    @routes.get(
        "/jobs/{id}/events",
        response_class=StreamingResponse,
        responses={**_READ, **responses(429), 200: _content("text/event-stream")},
    )
    async def events(caller: Sees, id: JobId) -> StreamingResponse:  # noqa: A002
        """The job whenever it changes, as server-sent events; ends when it does."""
        nonlocal following
        desk = desk_of()
        await asyncio.to_thread(desk.find, caller, id)
        if following >= STREAMS:
            raise Refusal(429, "too many follow events", mend="Ask for the job itself.", headers={"Retry-After": "30"})

        async def told() -> AsyncIterator[bytes]:
            nonlocal following
            following += 1
            try:
                async for piece in _told(desk, caller, id, poll_s):
                    yield piece
            finally:
                following -= 1

        return StreamingResponse(told(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _told(desk: Desk, caller: Caller, job: str, poll_s: float) -> AsyncIterator[bytes]:
    last, at = "", time.monotonic()
    while True:
        row = await asyncio.to_thread(desk.find, caller, job)
        now = json.dumps(shown(row).model_dump(mode="json"))
        if now != last:
            last, at = now, time.monotonic()
            yield f"event: job\ndata: {now}\n\n".encode()
        elif time.monotonic() - at > _BEAT_S:
            at = time.monotonic()
            yield b": still there\n\n"
        if row.state not in ACTIVE:
            return
        await asyncio.sleep(poll_s)


def _content(kind: str) -> dict[str, Any]:
    return {"content": {kind: {}}, "description": "As it is."}

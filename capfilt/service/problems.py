"""Every refusal of the service as one kind of answer: a status, and what, where and mend as JSON.

Knows the error tree and FastAPI; knows no route.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from capfilt.errors import CapfiltError, DestinationError, EngineError, ModelError
from capfilt.service.described import methods
from capfilt.service.wire import Problem

_log = logging.getLogger(__name__)
_FAULT = Problem(what="a fault of the service, not yours", mend="Tell its operator the X-Request-Id of this answer.")


class Refusal(Exception):  # noqa: N818 no fault of ours
    """A request that is not done.

    Args:
        status: HTTP.
        what: one sentence: what is wrong.
        where: the field it concerns.
        mend: one sentence: what to do about it.
        headers: of the answer.
    """

    def __init__(
        self, status: int, what: str, *, where: str = "", mend: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, what)
        self.status, self.headers = status, dict(headers or {})
        self.problem = Problem(what=what, where=where, mend=mend)

    def answer(self) -> JSONResponse:
        """As HTTP."""
        return JSONResponse(self.problem.model_dump(), self.status, headers=self.headers)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI says of a route's refusals."""
    meaning = {
        400: "The request is no JSON.",
        401: "No token, or one that is unknown.",
        403: "The token does not allow it.",
        404: "There is no such thing, or it is another's.",
        406: "The answer cannot be had in the form asked for.",
        408: "The request came too slowly.",
        409: "It contradicts what is there.",
        413: "The body is too large.",
        415: "The body is no application/json.",
        422: "A field is wrong.",
        429: "Too much at once; come again after Retry-After seconds.",
        503: "The service is starting or failing; come again after Retry-After seconds.",
    }
    return {status: {"model": Problem, "description": meaning[status]} for status in statuses}


def install(app: FastAPI) -> None:
    """Lets the app answer every failure as a :class:`Problem`."""
    app.add_exception_handler(Refusal, _refusal)
    app.add_exception_handler(CapfiltError, _mistake)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


async def _refusal(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)  # noqa: S101 as it was registered
    return error.answer()


async def _mistake(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CapfiltError)  # noqa: S101 as it was registered
    problem = Problem(what=error.what, where=error.where, mend=error.mend)
    if isinstance(error, ModelError | EngineError | DestinationError):
        _log.error("the service fails: %s", error)
        return JSONResponse(problem.model_dump(), 503, headers={"Retry-After": "30"})
    return JSONResponse(problem.model_dump(), 422)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 as it was registered
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return JSONResponse(Problem(what="the body is no JSON", where="body", mend="Send JSON.").model_dump(), 400)
    # Values stay out: a picture in base64 would be sent back.
    told = [f"{'.'.join(str(piece) for piece in one['loc'])}: {one['msg']}" for one in found[:5]]
    where = ".".join(str(piece) for piece in found[0]["loc"])
    problem = Problem(what="; ".join(told), where=where, mend="Send what /openapi.json describes.")
    return JSONResponse(problem.model_dump(), 422)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 as it was registered
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # The framework names the methods of the first route at this path alone.
        headers |= methods(request.app, request.url.path)
    return JSONResponse(Problem(what=str(error.detail)).model_dump(), error.status_code, headers=headers)


def fault() -> JSONResponse:
    """What is answered when something of ours failed."""
    return JSONResponse(_FAULT.model_dump(), 500)

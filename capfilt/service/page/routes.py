"""``/``: the service's page, whole in one answer, and what it needs besides the API.

The page asks the API like any client and holds nothing of it, so it is open to all. It runs its own script alone, and
loads and sends nothing elsewhere. Reports run in ``/report``, a frame without an origin.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse

from capfilt.service.access import Role, allowed
from capfilt.service.form import Form, recipe_form
from capfilt.service.problems import responses

_SCRIPTS = ("core.js", "jobs.js", "form.js", "try.js", "route.js")
_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {}}, "description": "As it is."}}


def router() -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["page"])
    script, style = "\n".join(map(_text, _SCRIPTS)), _text("page.css")
    page = _text("page.html").replace("%STYLE%", style).replace("%SCRIPT%", script)
    frame_script = _text("frame.js")
    frame = _text("frame.html").replace("%SCRIPT%", frame_script)
    own = f"script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; frame-src 'self'"
    policy = (
        f"default-src 'none'; {own}; img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    # A report brings its own script, and a policy that knows it.
    inline = "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
    apart = f"sandbox allow-scripts; default-src 'none'; {inline}"
    form = recipe_form()

    @routes.get("/", response_class=HTMLResponse, responses=_HTML)
    async def whole() -> HTMLResponse:
        """The page: jobs, their submission and reports, and a picture tried at once."""
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @routes.get("/report", response_class=HTMLResponse, responses=_HTML)
    async def report() -> HTMLResponse:
        """The empty frame that the page shows a report in."""
        return HTMLResponse(frame, headers={"Content-Security-Policy": apart})

    @routes.get(
        "/v1/recipe-form", responses=responses(401, 403), dependencies=[Depends(allowed(Role.JOBS, Role.WATCH))]
    )
    async def fields() -> Form:
        """The fields of a recipe: kinds, choices, defaults and what they mean."""
        return form

    return routes


def _text(name: str) -> str:
    return (files("capfilt.service.page") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

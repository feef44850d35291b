"""What the OpenAPI says beyond the routes' own words: how a token is brought, and which routes take one.

Knows the document alone.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json", "/", "/report"})
"""Paths that ask for no token."""
_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token of the operator's. A service without tokens answers this machine alone, and asks for none.",
}


def describe(app: FastAPI) -> None:
    """Lets the app's document say so too."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            told = plain()
            told["components"]["securitySchemes"] = {"bearer": _SCHEME}
            for path, item in told["paths"].items():
                for operation in item.values():
                    operation["security"] = [] if path in OPEN else [{"bearer": []}]
            app.openapi_schema = told
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's pages say to do it


def methods(app: FastAPI, path: str) -> dict[str, str]:
    """The header Allow of a path, from all that the document has for it; none of a path that is not in it."""
    for template, item in app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path):
            return {"allow": ", ".join(sorted(map(str.upper, item)))}
    return {}

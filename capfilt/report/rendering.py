"""The one place where text becomes HTML: a Jinja environment that escapes everything, and pictures as data URIs.

Pages made here load nothing: their content security policy forbids it, and only our own script, named by its
hash, may run.
"""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_ENVIRONMENT = Environment(
    loader=PackageLoader("capfilt.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(template: str, *, script: str = "", **values: Any) -> str:
    """A whole page from a template of this package.

    Args:
        template: its file name in ``templates/``.
        script: file name of the one script the page may run; empty for a page without scripts.
        values: what the template shows; all strings are escaped.
    """
    code = _source(script) if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            "style-src 'unsafe-inline'",
            f"script-src 'sha256-{digest}'" if code else "script-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    # Our own files, not data: the only two texts that are not escaped.
    trusted = {"style": Markup(_source("style.css")), "script": Markup(code)}  # noqa: S704
    return _ENVIRONMENT.get_template(template).render(policy=policy, **trusted, **values)


def _source(name: str) -> str:
    loader = _ENVIRONMENT.loader
    assert loader is not None  # noqa: S101 - given above
    return loader.get_source(_ENVIRONMENT, name)[0]


def data_uri(jpeg: bytes) -> str:
    """A JPEG as the value of an ``img``'s ``src``."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def percent(share: float | None) -> str:
    """``0.4137`` as ``41%``, small shares with a digit more, and no rounding to 0% or 100% of what is not."""
    if share is None:
        return "–"
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 < share < 1:
        return ">99.9%"
    return f"{share:.1%}" if (0 < share < 0.0995) or (0.9905 < share < 1) else f"{share:.0%}"


def hours(value: float) -> str:
    """Hours in the unit that suits: ``40 s``, ``12 min``, ``3.4 h``, ``12 days``, and from 3 years on ``5 years``."""
    for unit, size, most in (("s", 1 / 3600, 100), ("min", 1 / 60, 100), ("h", 1, 72), ("days", 24, 1000)):
        if value / size < most:
            return f"{value / size:.0f} {unit}" if value / size >= 10 else f"{value / size:.2g} {unit}"
    return f"{value / 8766:,.0f} years"


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _score(value: float) -> str:
    """Two digits, cut and not rounded: what was removed at 0.497 must not read as 0.50, the threshold."""
    # A float32 of two digits may lie a little under it.
    return f"{math.floor(value * 100 + 1e-4) / 100:.2f}" if math.isfinite(value) else "–"


_ENVIRONMENT.filters.update(hours=hours, score=_score, percent=percent, number=_number, data_uri=data_uri)

"""The service in one process, by uvicorn, without Ray. Knows uvicorn; the app is the same as Ray Serve's."""

from __future__ import annotations

import uvicorn

from capfilt.service.app import build_app
from capfilt.service.config import ServiceConfig
from capfilt.service.models import LocalModels

_ENDS_S = 10
_CONNECTIONS = 1024
KEEP_ALIVE_S = 75
"""How long an idle connection stays open; longer than any Retry-After, so that who comes again finds it."""


def serve_local(config: ServiceConfig) -> None:
    """Answers until SIGINT or SIGTERM; what is under way is finished, for ten seconds at most.

    Raises:
        CapfiltError: the tokens cannot be read, or are needed and not given.
    """
    server_of(config).run()


def server_of(config: ServiceConfig, *, ends_s: int = _ENDS_S) -> uvicorn.Server:
    """The server, not running yet.

    Args:
        config: its settings.
        ends_s: seconds that what is under way has when it is told to end.

    Raises:
        CapfiltError: as :func:`serve_local`.
    """
    return uvicorn.Server(
        uvicorn.Config(
            build_app(config, LocalModels),
            host=config.host,
            port=config.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=ends_s,
            timeout_keep_alive=KEEP_ALIVE_S,
            limit_concurrency=_CONNECTIONS,
        )
    )

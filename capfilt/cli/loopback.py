"""A folder served over HTTP on this machine alone, so that the quickstart's fetching is real.

Knows a folder and a port; knows nothing of what is in it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from capfilt.errors import EngineError

HOST = "127.0.0.1"
PORTS = range(8765, 8785)


@contextmanager
def serving(folder: Path, *, port: int | None = None) -> Iterator[str]:
    """Serves ``folder`` while the block runs.

    Args:
        folder: what is served, its files and folders below.
        port: the port to take; None takes the first free one of :data:`PORTS`, so that URLs, and with them
            the ids of rows, are the same from run to run.

    Yields:
        The base URL, with a slash at its end.

    Raises:
        EngineError: the port, or each of :data:`PORTS`, is taken.
    """
    server = _bind(folder, [port] if port is not None else PORTS)
    thread = Thread(target=server.serve_forever, name="loopback", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing on stderr; keeps connections, as a real server does."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is the base class's
        """Nothing: progress is shown by the command."""


def _bind(folder: Path, ports: list[int] | range) -> ThreadingHTTPServer:
    handler = functools.partial(_Quiet, directory=str(folder))
    for port in ports:
        try:
            return ThreadingHTTPServer((HOST, port), handler)
        except OSError:
            continue
    asked = f"port {ports[0]} is" if len(ports) == 1 else f"ports {ports[0]} to {ports[-1]} are all"
    raise EngineError(
        f"{asked} taken, so the sample cannot be served",
        where=HOST,
        mend="Stop what listens there, or give another output folder to start afresh on a free port.",
    )

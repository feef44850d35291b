"""A server on this machine, for as long as a test wants it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Quiet(BaseHTTPRequestHandler):
    """Says nothing in the test's output."""

    def log_message(self, *_: object) -> None:
        pass


class _Folder(Quiet, SimpleHTTPRequestHandler):
    pass


@contextmanager
def listening(handler: Callable[..., Any], host: str = "127.0.0.1") -> Iterator[ThreadingHTTPServer]:
    """A server that answers with this handler, at a port of its own."""
    server = ThreadingHTTPServer((host, 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving(handler: Callable[..., Any]) -> Iterator[str]:
    """The address of such a server, without a slash at the end."""
    with listening(handler) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def serving_folder(folder: Path) -> Iterator[str]:
    """The address of the files in a folder."""
    with serving(functools.partial(_Folder, directory=str(folder))) as address:
        yield address

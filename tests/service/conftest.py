"""One service with the embedded model in a thread, one with tokens, and pictures to send."""

from __future__ import annotations

import base64
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest

from capfilt import catalog
from capfilt.fetch.config import FetchConfig
from capfilt.service.config import LimitsConfig, ServiceConfig
from capfilt.service.local import server_of


@pytest.fixture(scope="session")
def embedded():
    if not {"med-mini/captioner", "med-mini/filter"} <= set(catalog.models()):
        pytest.skip("models/med-mini has no weights: make med-mini")


@pytest.fixture(scope="session")
def files():
    """Twelve pictures of the sample."""
    return sorted((catalog.sample() / "images").glob("*.jpg"))[:12]


@pytest.fixture(scope="session")
def pictures(files):
    """Their bytes in base64."""
    return [base64.b64encode(file.read_bytes()).decode() for file in files]


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def serving(config):
    """The service of a configuration, ready; yields its address."""
    config = replace(config, port=free_port())
    server = server_of(config, ends_s=2)
    thread = threading.Thread(target=server.run)
    thread.start()
    address = f"http://127.0.0.1:{config.port}"
    try:
        wait_ready(address)
        yield address
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def wait_ready(address, seconds=60):
    deadline = time.monotonic() + seconds
    with httpx.Client(base_url=address) as client:
        while True:
            try:
                if client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "never ready"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def open_fetch():
    """The safe client, with this machine open to it."""
    return FetchConfig(allow_addresses=("127.0.0.2/32",), retries=0, timeout_total_s=5.0)


@pytest.fixture(scope="session")
def service(embedded, open_fetch):
    """A service without tokens, with small bounds."""
    limits = LimitsConfig(body_bytes=2_000_000, bodies_bytes=20_000_000, queue=64)
    with serving(ServiceConfig(runner="local", fetch=open_fetch, limits=limits)) as address:
        yield address


@pytest.fixture
def client(service):
    with httpx.Client(base_url=service, timeout=60) as client:
        yield client

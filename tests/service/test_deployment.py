"""The same app on Ray Serve: `capfilt serve` as a user starts it, asked over HTTP."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from .conftest import free_port, wait_ready

SCRIPT = Path(sys.executable).with_name("capfilt")


@pytest.mark.ray
def test_it_answers_as_one_process_does_and_ends_when_told(embedded, client, pictures):
    port = free_port()
    command = [SCRIPT, "serve", "--port", str(port), "--set", "limits.queue=64"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_ready(address, 180)
            asks = {"pictures": [{"image": picture, "texts": ["a red car"]} for picture in pictures]}
            there = httpx.post(f"{address}/v1/capfilt", json=asks, timeout=60)
            assert there.status_code == 200, there.text
            here = client.post("/v1/capfilt", json=asks).json()
            texts = [[[c["text"] for c in r["captions"]] for r in answer["results"]] for answer in (there.json(), here)]
            assert texts[0] == texts[1]
            bad = httpx.post(f"{address}/v1/caption", json={"pictures": [{"image": "AAAA"}]}, timeout=60)
            assert bad.json()["results"][0]["drop"] == "not_an_image"
            wrong = httpx.post(f"{address}/v1/caption", json={"pictures": []}, timeout=60)
            assert (wrong.status_code, wrong.json()["where"]) == (422, "body.pictures")
            assert 'outcome="done"' in httpx.get(f"{address}/metrics").text
        finally:
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert time.monotonic() - started < 40
    assert "Traceback" not in said

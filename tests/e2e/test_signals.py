"""Ctrl-C, and what a batch system sends: the run ends soon, keeps what is committed, and the same command goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capfilt.catalog import sample
from capfilt.shards.lease import FILE
from capfilt.shards.verify import verify
from capfilt.storage import Store

SCRIPT = Path(sys.executable).with_name("capfilt")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Forty pictures of the sample."""
    folder = tmp_path_factory.mktemp("pictures")
    for file in sorted((sample() / "images").glob("*.jpg"))[:40]:
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def start(pictures, dest, runner):
    command = [SCRIPT, "bootstrap", pictures, dest, "--runner", runner, "--set", "plan.part_rows=5"]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("runner", "sent"),
    [
        ("local", signal.SIGINT),
        ("local", signal.SIGTERM),
        pytest.param("ray", signal.SIGINT, marks=[pytest.mark.ray, pytest.mark.slow]),
    ],
)
def test_it_ends_within_ten_seconds_and_the_same_command_goes_on(pictures, tmp_path, runner, sent):
    dest = tmp_path / "out"
    run = start(pictures, dest, runner)
    deadline = time.monotonic() + 120
    while not list((dest / "parts").glob("*.json")):
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.send_signal(sent)
    started = time.monotonic()
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - started < 10
    assert run.returncode == 130, said
    assert "run the same command again to continue" in said.lower()
    assert "Traceback" not in said
    store = Store(str(dest))
    assert not store.exists(FILE)
    committed = {file: file.read_bytes() for file in (dest / "parts").iterdir()}
    assert 1 <= len(committed) < 8
    done = start(pictures, dest, "local")
    _, said = done.communicate(timeout=120)
    assert done.returncode == 0, said
    assert verify(store) == []
    assert {file: file.read_bytes() for file in committed} == committed
    assert json.loads((dest / "manifest.json").read_text())["totals"]["rows"] == 40

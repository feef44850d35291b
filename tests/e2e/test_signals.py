"""Ctrl-C, what a batch system sends, and a full disk: the run ends soon, keeps what is committed, and goes on later."""

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
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # What a shell starts in the background ignores Ctrl-C, and so do its children: also of tests that it starts.
    return subprocess.Popen(list(map(str, command)), **pipes, preexec_fn=heeds_interrupts)  # noqa: PLW1509


def heeds_interrupts():
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


def test_a_disk_that_takes_no_more_stops_the_run_in_two_lines_and_leaves_nothing_half(pictures, tmp_path):
    """The kernel refuses to let any file grow beyond 30 kB, as a quota does: shards do not fit, small files do."""
    dest = tmp_path / "out"
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)); "
    limited += "from capfilt.cli.main import run; run()"
    command = [sys.executable, "-c", limited, "bootstrap", pictures, dest, "--runner", "local"]
    command += ["--set", "plan.part_rows=20", "--set", "capfilt.threshold=0.0"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    *_, what, mend = done.stderr.strip().splitlines()
    assert "cannot be written: File too large" in what
    assert "free space" in mend
    store = Store(str(dest))
    assert store.names("parts") == store.names("shards") == []
    assert not list(dest.rglob(".*")), "neither temporaries nor the lease"
    again = [SCRIPT, *command[3:]]
    finished = subprocess.run(list(map(str, again)), capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    assert verify(store) == []

"""The Python client and `capfilt jobs`, against a service on loopback."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from capfilt import catalog
from capfilt.service import access
from capfilt.service.client import Client, ServiceError, picture
from capfilt.service.config import JobsConfig, ServiceConfig
from capfilt.service.jobs.wire import State

from .conftest import free_port, serving

SCRIPT = Path(sys.executable).with_name("capfilt")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home").resolve()
    for name in ("source", "out"):
        (folder / name).mkdir()
    for file in sorted((catalog.sample() / "images").glob("*.jpg"))[:8]:
        shutil.copy(file, folder / "source")
    roles = {"roles": ("online", "jobs"), "sources": (str(folder / "source"),), "dests": (str(folder / "out"),)}
    (folder / "token").write_text(access.new(folder / "tokens.yaml", "ann", **roles) + "\n")
    return folder


@pytest.fixture(scope="module")
def address(embedded, home):
    jobs = JobsConfig(state=str(home / "state"), runner="local", poll_s=0.1)
    with serving(ServiceConfig(runner="local", tokens=str(home / "tokens.yaml"), jobs=jobs)) as address:
        yield address


@pytest.fixture
def ann(address, home):
    with Client(address, (home / "token").read_text().strip(), patience_s=5) as client:
        yield client


def test_the_three_questions(ann, files):
    asked = [picture(files[0], texts=["a red car"]), picture(files[1].read_bytes()), picture("http://127.0.0.1/x")]
    both = ann.capfilt(asked)
    assert [len(result.captions) for result in both] == [2, 1, 0]
    assert both[2].drop == "refused_address"
    assert [c.text for c in ann.caption(asked)[0].captions] == [both[0].captions[1].text]
    assert ann.score(asked)[0].captions[0].itm == pytest.approx(both[0].captions[0].itm, abs=1e-5)
    assert ann.about().captioner == "med-mini/captioner"


def test_a_job(ann, home):
    recipe = {"source": {"path": str(home / "source")}, "plan": {"part_rows": 2}}
    job = ann.submit(recipe, str(home / "out/client"), key="once")
    assert ann.submit(recipe, str(home / "out/client"), key="once").id == job.id
    states = [now.state for now in ann.watch(job.id)]
    assert states[-1] is State.DONE
    assert ann.manifest(job.id)["totals"]["rows"] == 8
    assert "<html" in ann.report(job.id)
    assert '"event": "done"' in ann.log(job.id)
    assert [one.id for one in ann.jobs(limit=1)] == [job.id]


def test_refusals_are_errors_with_what_where_and_mend(ann, address, home):
    with pytest.raises(ServiceError) as told:
        ann.submit({"source": {"path": "/etc"}}, str(home / "out/x"))
    assert (told.value.status, told.value.where) == (403, "source.path")
    with Client(address, "wrong") as client, pytest.raises(ServiceError, match="the token is unknown"):
        client.about()
    nobody = f"http://127.0.0.1:{free_port()}"
    with Client(nobody, patience_s=0.1) as client, pytest.raises(ServiceError, match="does not answer"):
        client.about()


@pytest.fixture
def follow(monkeypatch):
    """Follows a job whose states and refusals of /events are given: its states, requests, and how long was waited."""

    def run(states, refusals):
        job = {"id": "j", "owner": "ann", "dest": "/out", "source": "/in", "recipe": {}, "retry": [], "workers": None}
        job |= {"attempt": 1, "created": 0, "started": 0, "ended": None, "progress": None, "error": None, "links": {}}
        states, refusals, waited = iter(states), iter(refusals), []

        class Refusing(http.server.BaseHTTPRequestHandler):
            def log_message(self, *told):
                pass

            def do_GET(self):
                status, after = next(refusals) if self.path.endswith("/events") else (200, None)
                body = json.dumps(job | {"state": next(states)} if status == 200 else {"what": "no", "where": ""})
                self.send_response(status)
                if after is not None:
                    self.send_header("Retry-After", after)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

        monkeypatch.setattr("capfilt.service.client.time.sleep", waited.append)
        with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            try:
                with Client(f"http://127.0.0.1:{server.server_port}") as client:
                    return [str(now.state) for now in client.watch("j")], waited
            finally:
                server.shutdown()
                thread.join()

    return run


def test_who_may_not_follow_just_now_waits_and_is_told_of_changes_alone(follow):
    refusals = [(429, "30"), (503, "86400"), (502, None)]
    told, waited = follow(["queued", "running", "running", "done"], refusals)
    assert told == ["queued", "running", "done"]
    assert waited == [30, 0.5, 60, 0.5, 1, 0.5]


def test_who_may_not_follow_at_all_is_told(follow):
    with pytest.raises(ServiceError) as told:
        follow(["running"], [(403, None)])
    assert told.value.status == 403


def call(*args, code=0):
    done = subprocess.run([SCRIPT, "jobs", *map(str, args)], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_command_line(address, home):
    how = ["--server", address, "--token-file", home / "token"]
    watched = call("submit", home / "source", home / "out/cli", "--set", "plan.part_rows=4", "--watch", *how)
    assert watched.startswith("done")
    assert "8 rows" in watched
    (first, *_) = json.loads(call("list", "--json", *how))
    assert (first["dest"], first["state"]) == (str(home / "out/cli"), "done")
    assert first["id"] in call("list", *how)
    assert call("cancel", first["id"], *how).strip() == "done"
    assert json.loads(call("watch", first["id"], "--json", *how))["progress"]["done"] == 2
    refused = call("submit", "/etc", home / "out/cli2", *how, code=2)
    assert refused.splitlines()[0].startswith("error: source.path: this token does not open this place")
    assert "it has ended" not in call("retry", first["id"], *how, code=2)
    assert "a token is needed" in call("list", "--server", address, code=2)


def test_the_client_waits_when_asked_to_come_again(embedded, files):
    """Sixteen callers at a service with room for four of them: all are served, some after waiting."""
    from concurrent.futures import ThreadPoolExecutor

    from capfilt.service.config import LimitsConfig

    with serving(ServiceConfig(runner="local", limits=LimitsConfig(queue=64))) as address:
        asked = [picture(file) for file in files] + [picture(file) for file in files[:4]]

        def one(_):
            with Client(address) as client:
                return len(client.capfilt(asked))

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(one, range(16))) == [16] * 16
        assert 'capfilt_refused_total{reason="queue"}' in httpx.get(f"{address}/metrics").text

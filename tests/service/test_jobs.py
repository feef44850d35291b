"""Data sets as jobs: submitted, followed, cancelled, tried again, and going on after kill -9 of whoever."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import httpx
import psutil
import pytest

from capfilt import catalog
from capfilt.errors import RecipeError
from capfilt.service import access
from capfilt.service.config import JobsConfig, ServiceConfig
from capfilt.service.jobs import driver
from capfilt.service.jobs.launch import Look, Processes, check_variable
from capfilt.service.jobs.store import JobStore
from capfilt.service.jobs.supervise import Supervisor
from capfilt.service.jobs.wire import State
from capfilt.shards import lease
from capfilt.shards.verify import verify
from capfilt.storage import Store

from .conftest import free_port, serving, wait_ready

SCRIPT = Path(sys.executable).with_name("capfilt")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """source/ with 24 pictures, and out/."""
    folder = tmp_path_factory.mktemp("home").resolve()
    (folder / "source").mkdir()
    (folder / "out").mkdir()
    for file in sorted((catalog.sample() / "images").glob("*.jpg"))[:24]:
        shutil.copy(file, folder / "source")
    return folder


@pytest.fixture(scope="module")
def tokens(home):
    file = home / "tokens.yaml"
    opens = {"sources": (str(home / "source"),), "dests": (str(home / "out"),)}
    made = {name: access.new(file, name, roles=("jobs",), max_jobs=2, **opens) for name in ("ann", "bob")}
    made["boss"] = access.new(file, "boss", roles=("admin",))
    made["guard"] = access.new(file, "guard", roles=("watch",))
    return made


@pytest.fixture(scope="module")
def address(embedded, home, tokens):
    jobs = JobsConfig(state=str(home / "state"), runner="local", poll_s=0.1)
    with serving(ServiceConfig(runner="local", tokens=str(home / "tokens.yaml"), jobs=jobs)) as address:
        yield address


@pytest.fixture(scope="module")
def ask(address, tokens):
    """A client for each token."""
    clients = {
        name: httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        for name, token in tokens.items()
    }
    yield clients
    for client in clients.values():
        client.close()


def job(home, dest, **recipe):
    told = {"source": {"path": str(home / "source")}, "plan": {"part_rows": 4}, **recipe}
    return {"recipe": told, "dest": str(home / "out" / dest)}


SLOW = {"plan": {"part_rows": 1}, "capfilt": {"decoding": "beam", "num_beams": 16, "captions_per_image": 8}}


def until(client, id_, good, seconds=120):
    deadline = time.monotonic() + seconds
    while True:
        now = client.get(f"/v1/jobs/{id_}").json()
        if good(now):
            return now
        assert time.monotonic() < deadline, now
        time.sleep(0.05)


def ended(now):
    return now["state"] in ("done", "failed", "cancelled")


def begun(now):
    assert not ended(now), now
    return now["progress"] and now["progress"]["done"] >= 1


def test_a_job_from_its_submission_to_its_report(ask, home):
    made = ask["ann"].post("/v1/jobs", json=job(home, "first"), headers={"Idempotency-Key": "k1"})
    assert made.status_code == 201
    id_ = made.json()["id"]
    assert made.headers["location"] == f"/v1/jobs/{id_}"
    seen = []
    with ask["ann"].stream("GET", f"/v1/jobs/{id_}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        seen += [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
    assert [now["state"] for now in (seen[0], seen[-1])] in (["queued", "done"], ["running", "done"])
    assert seen[-1]["progress"] | {"eta_s": 0} == seen[-1]["progress"] | {"done": 6, "total": 6, "rows": 24, "eta_s": 0}
    data = Store(str(home / "out/first"))
    assert verify(data) == []
    books = ask["ann"].get(f"/v1/jobs/{id_}/manifest").json()
    assert books == data.read_json("manifest.json")
    assert seen[-1]["progress"]["kept"] == books["totals"]["kept"]
    report = ask["ann"].get(f"/v1/jobs/{id_}/report")
    assert report.content == data.read("report.html")
    assert "sandbox" in report.headers["content-security-policy"]
    assert '"event": "done"' in ask["ann"].get(f"/v1/jobs/{id_}/log").text
    again = ask["ann"].post("/v1/jobs", json=job(home, "first"), headers={"Idempotency-Key": "k1"})
    assert (again.status_code, again.json()["id"]) == (200, id_)
    other = ask["ann"].post("/v1/jobs", json=job(home, "else"), headers={"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["where"]) == (409, "Idempotency-Key")
    assert ask["bob"].get(f"/v1/jobs/{id_}").status_code == 404
    assert ask["bob"].get(f"/v1/jobs/{id_}/report").status_code == 404
    assert ask["bob"].post(f"/v1/jobs/{id_}/retry", json={"reasons": ["timed_out"]}).status_code == 404
    assert ask["guard"].get(f"/v1/jobs/{id_}").json()["owner"] == "ann"
    assert id_ in [one["id"] for one in ask["guard"].get("/v1/jobs").json()["jobs"]]
    assert ask["bob"].get("/v1/jobs").json()["jobs"] == []
    assert ask["ann"].post(f"/v1/jobs/{id_}/retry", json={}).status_code == 409


def test_cancel_quota_and_one_job_a_destination_then_retry_goes_on(ask, home):
    slow = ask["ann"].post("/v1/jobs", json=job(home, "slow", **SLOW)).json()
    same = ask["bob"].post("/v1/jobs", json=job(home, "slow", **SLOW))
    assert (same.status_code, same.json()["where"]) == (409, "dest")
    waits = ask["ann"].post("/v1/jobs", json=job(home, "waits")).json()
    full = ask["ann"].post("/v1/jobs", json=job(home, "third"))
    assert full.status_code == 429
    assert full.headers["retry-after"] == "60"
    until(ask["ann"], slow["id"], begun)
    assert ask["ann"].get(f"/v1/jobs/{waits['id']}").json()["state"] == "queued", "one runs at once"
    assert ask["ann"].post(f"/v1/jobs/{slow['id']}/retry", json={}).status_code in (409, 429)
    assert ask["bob"].post(f"/v1/jobs/{waits['id']}/cancel").status_code == 404
    ask["boss"].post(f"/v1/jobs/{waits['id']}/cancel")
    ask["ann"].post(f"/v1/jobs/{slow['id']}/cancel")
    assert until(ask["ann"], waits["id"], ended)["state"] == "cancelled"
    stopped = until(ask["ann"], slow["id"], ended)
    assert (stopped["state"], stopped["error"]) == ("cancelled", None)
    markers = {file: file.read_bytes() for file in (home / "out/slow/parts").iterdir()}
    assert 1 <= len(markers) < 24
    assert ask["ann"].post(f"/v1/jobs/{slow['id']}/retry", json={}).json()["state"] == "queued"
    done = until(ask["ann"], slow["id"], ended)
    assert (done["state"], done["attempt"]) == ("done", 2)
    assert {file: file.read_bytes() for file in markers} == markers, "no part was done twice"
    assert verify(Store(str(home / "out/slow"))) == []


JSON = {"Content-Type": "application/json"}


def nested(depth):
    return [nested(depth - 1)] if depth else []


def test_what_is_to_be_done_may_be_longer_than_a_variable_holds(tmp_path):
    spec = {"job": "long", "attempt": 1, "recipe": {"x": "y" * 200_000}}
    jobs = Processes(tmp_path)
    jobs.check(spec)
    jobs.start("long", 1, spec)
    while (look := jobs.look("long", 1)).alive:
        time.sleep(0.05)
    assert [event["event"] for event in look.events()] == ["begun", "failed"], look.log
    assert (tmp_path / "jobs/long/spec.json").stat().st_mode & 0o777 == 0o600


def test_ray_takes_no_more_than_a_variable_holds():
    check_variable({"recipe": {"also": ["x" * 100] * 100}})
    with pytest.raises(RecipeError, match="Ray Jobs take"):
        check_variable({"recipe": {"also": ["x" * 100] * 1000}})


def test_mistakes_are_told_when_submitted_or_when_seen(ask, home):
    def refused(status, where, **more):
        # In ASCII: half a character has no other way.
        asked = json.dumps({**job(home, "wrong"), **more})
        answer = ask["ann"].post("/v1/jobs", content=asked, headers=JSON)
        assert answer.status_code == status, answer.text
        assert where in answer.json()["where"] + answer.json()["what"]

    source = {"path": str(home / "source")}
    refused(422, "capfilt.threshold", recipe={"source": source, "capfilt": {"threshold": 7}})
    refused(422, "capfilt.treshold", recipe={"source": source, "capfilt": {"treshold": 0.5}})
    refused(422, "source.path", recipe={"source": {"path": ["x"]}})
    refused(422, "no such field", recipe={"source": source, "source.path": "/etc"})
    refused(422, "recipe", recipe={"source": source, "x": "y" * 70_000})
    refused(422, "retry", retry=["no_such_reason"])
    refused(422, "dest", dest=f"{home}/out/{'x' * 300}")
    refused(422, "dest", dest=f"{home}/out/\ud800")
    refused(422, "recipe", recipe={"source": {"path": f"{home}/source/\ud800"}})
    refused(422, "recipe", recipe={"source": source, "\ud800": 1})
    refused(422, "source.also", recipe={"source": {**source, "also": [{**source, "also": [source]}]}})
    for depth in (40, 200, 500):
        refused(422, "nested too deep", recipe={"source": source, "x": nested(depth)})
    assert ask["ann"].post("/v1/jobs", content="[" * 200_000, headers=JSON).status_code == 400
    refused(403, "source.path", recipe={"source": {"path": "/etc/passwd"}})
    refused(403, "source.path", recipe={"source": {"path": f"{home}/source/../tokens.yaml"}})
    refused(403, "dest", dest=f"{home}/source")
    refused(403, "dest", dest=f"{home}/out/../state")
    refused(403, "capfilt.captioner", recipe={"source": source, "capfilt": {"captioner": "/etc"}})
    refused(403, "fetch.allow_addresses", recipe={"source": source, "fetch": {"allow_addresses": ["0.0.0.0/0"]}})
    made = ask["ann"].post("/v1/jobs", json=job(home, "gone", source={"path": str(home / "source/gone.csv")})).json()
    failed = until(ask["ann"], made["id"], ended)
    assert (failed["state"], failed["attempt"]) == ("failed", 1), "a mistake is not tried again"
    assert "no such file" in failed["error"]["what"]
    assert not (home / "out/gone").exists()
    outcomes = [entry["outcome"] for entry in ask["boss"].get("/v1/audit").json()["entries"]]
    assert sum(outcome.startswith("refused: ") for outcome in outcomes) == 6
    assert ask["boss"].get("/metrics").text.count('capfilt_jobs{state="failed"} 1.0') == 1


def test_a_link_put_there_after_the_submission_is_not_followed(ask, home):
    """The folder was in its place when the job came, and is a link out of it when the job begins."""
    (home / "secret").mkdir()
    shutil.copy(next((home / "source").glob("*.jpg")), home / "secret")
    (home / "source/late").mkdir()
    before = ask["bob"].post("/v1/jobs", json=job(home, "before", **SLOW)).json()
    made = ask["ann"].post("/v1/jobs", json=job(home, "late", source={"path": f"{home}/source/late"}))
    writes = ask["ann"].post("/v1/jobs", json=job(home, "late-out"))
    assert (made.status_code, writes.status_code) == (201, 201)
    (home / "source/late").rmdir()
    (home / "source/late").symlink_to(home / "secret")
    (home / "out/late-out").symlink_to(home / "secret")
    there = sorted((home / "secret").iterdir())
    ask["bob"].post(f"/v1/jobs/{before['id']}/cancel")
    for asked in (made, writes):
        state = until(ask["ann"], asked.json()["id"], ended)
        assert state["state"] == "failed"
        assert "does not open" in state["error"]["what"]
        assert ask["ann"].get(state["links"]["manifest"]).status_code == 404
    (home / "source/late").unlink()
    assert sorted((home / "secret").iterdir()) == there
    assert not (home / "out/late").exists()


def test_many_submissions_at_once_are_within_the_quota(ask, home):
    def submit(number):
        return ask["bob"].post("/v1/jobs", json=job(home, f"many-{number}", **SLOW))

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(submit, range(12)))
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [429] * 10
    for answer in answers:
        if answer.status_code == 201:
            ask["bob"].post(f"/v1/jobs/{answer.json()['id']}/cancel")
            until(ask["bob"], answer.json()["id"], ended)


def test_a_driver_that_is_killed_is_begun_anew_and_goes_on(ask, home):
    made = ask["ann"].post("/v1/jobs", json=job(home, "killed", **SLOW)).json()
    until(ask["ann"], made["id"], begun)
    os.kill(int((home / f"state/jobs/{made['id']}/lock").read_text()), signal.SIGKILL)
    markers = {file: file.read_bytes() for file in (home / "out/killed/parts").glob("*.json")}
    done = until(ask["ann"], made["id"], ended)
    assert (done["state"], done["attempt"]) == ("done", 2)
    assert {file: file.read_bytes() for file in markers} == markers
    assert verify(Store(str(home / "out/killed"))) == []


def start(home, port, runner="local"):
    command = [SCRIPT, "serve", "--runner", "local", "--port", str(port), "--state", home / "state2", "--source"]
    command += [home / "source", "--dest", home / "out", "--set", f"jobs.runner={runner}", "--set", "jobs.poll_s=0.1"]
    command += ["--set", "jobs.pause_s=0.5"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    wait_ready(f"http://127.0.0.1:{port}")
    return process


def test_a_server_that_is_killed_finds_its_jobs_again(embedded, home):
    """The running job lives on and is taken up as the attempt it is; the waiting one is begun."""
    port = free_port()
    server = start(home, port)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            runs = client.post("/v1/jobs", json=job(home, "lives", **SLOW), headers={"Idempotency-Key": "a"}).json()
            waits = client.post("/v1/jobs", json=job(home, "later")).json()
            until(client, runs["id"], begun)
            server.kill()
            server.wait()
            server = start(home, port)
            again = client.post("/v1/jobs", json=job(home, "lives", **SLOW), headers={"Idempotency-Key": "a"})
            assert (again.status_code, again.json()["id"]) == (200, runs["id"])
            done = [until(client, one["id"], ended) for one in (runs, waits)]
        assert [(one["state"], one["attempt"]) for one in done] == [("done", 1), ("done", 1)]
        assert verify(Store(str(home / "out/lives"))) == []
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_server_and_driver_killed_together_go_on(embedded, home):
    port = free_port()
    server = start(home, port)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            made = client.post("/v1/jobs", json=job(home, "both", **SLOW)).json()
            until(client, made["id"], begun)
            server.kill()
            os.kill(int((home / f"state2/jobs/{made['id']}/lock").read_text()), signal.SIGKILL)
            server.wait()
            server = start(home, port)
            done = until(client, made["id"], ended)
        assert (done["state"], done["attempt"]) == ("done", 2)
        assert verify(Store(str(home / "out/both"))) == []
    finally:
        server.terminate()
        server.wait()


def workers(driver):
    """The processes of Ray's that work for a driver, its stages among them."""
    return [
        process
        for process in psutil.Process(driver).children(recursive=True)
        if process.name().startswith("ray::") or (process.cmdline()[:1] and process.cmdline()[0].startswith("ray::"))
    ]


@pytest.mark.slow
@pytest.mark.ray
def test_worker_then_driver_killed_of_a_job_on_ray(embedded, home):
    """Each costs an attempt (on one machine Ray does not replace a worker), and what was committed stays."""
    port = free_port()
    server = start(home, port, "ray")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            made = client.post("/v1/jobs", json=job(home, "on-ray", **SLOW)).json()
            until(client, made["id"], begun)
            driver = int((home / f"state2/jobs/{made['id']}/lock").read_text())
            (busy,) = [process for process in workers(driver) if "capfilt" in process.cmdline()[0]][:1]
            busy.kill()
            before = client.get(f"/v1/jobs/{made['id']}").json()["progress"]["done"]
            now = until(client, made["id"], lambda now: ended(now) or now["progress"]["done"] > before + 1, 200)
            assert (now["state"], now["attempt"]) == ("running", 2), now["error"]
            driver = int((home / f"state2/jobs/{made['id']}/lock").read_text())
            markers = {file: file.read_bytes() for file in (home / "out/on-ray/parts").glob("*.json")}
            os.kill(driver, signal.SIGKILL)
            now = until(client, made["id"], ended, 200)
        assert (now["state"], now["attempt"]) == ("done", 3), now
        assert {file: file.read_bytes() for file in markers} == markers
        assert verify(Store(str(home / "out/on-ray"))) == []
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def drive(home, monkeypatch, capsys):
    """A job's own process, here: what it told, in order."""

    def run(dest, dests):
        source = {"path": str(home / "source"), "also": []}
        recipe = {"source": source, "capfilt": {"captioner": None, "threshold": 0.0}}
        spec = {"recipe": recipe, "dest": dest, "retry": [], "workers": None, "runner": "local"}
        spec |= {"sources": [str(home / "source")], "dests": dests, "job": "j", "attempt": 2}
        monkeypatch.setenv(driver.VARIABLE, json.dumps(spec))
        before = signal.getsignal(signal.SIGTERM)
        try:
            driver.main()
        finally:
            signal.signal(signal.SIGTERM, before)
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_an_attempt_waits_for_the_lease_of_one_whose_machine_is_gone(embedded, home, drive):
    left = {"token": "another", "host": "elsewhere", "pid": 1, "until": time.time() + 0.6}
    Store(str(home / "out/moved")).write(lease.FILE, json.dumps(left).encode())
    assert drive(str(home / "out/moved"), [str(home / "out")])[-1]["event"] == "done"
    assert time.time() >= left["until"]


def test_a_store_that_is_away_is_worth_another_attempt(home, drive):
    class Away(fsspec.AbstractFileSystem):
        protocol = "away"

        def pipe_file(self, path, value, **how):
            raise ConnectionError("away")

    fsspec.register_implementation("away", Away, clobber=True)
    told = drive("away://out", ["away://out"])[-1]
    assert (told["event"], told["again"]) == ("failed", True), told


class Script:
    """A launcher whose attempts are over at once and leave the logs it is given."""

    def __init__(self, *logs):
        self.logs, self.begun = logs, []

    def check(self, spec):
        pass

    def start(self, job, attempt, spec):
        self.begun.append((attempt, time.monotonic()))

    def look(self, job, attempt):
        return Look(False, self.logs[attempt - 1])

    def stop(self, job, attempt, *, hard):
        raise AssertionError("none lives")


AWAY = json.dumps({"event": "failed", "what": "away", "where": "s3://out", "mend": "Wait.", "again": True})


@pytest.fixture
def looked_after(tmp_path):
    """A job, its store, and a supervisor of it that starts attempts by a script."""

    def made(launcher, **config):
        store = JobStore(f"sqlite:///{tmp_path}/jobs.db")
        row = store.add("ann", {"dest": "s3://out"}, "digest", None)
        return row.id, store, Supervisor(JobsConfig(**config), store, launcher)

    return made


def test_a_job_whose_store_is_away_waits_longer_each_time(looked_after):
    script = Script(AWAY, AWAY, json.dumps({"event": "done"}))
    job, store, supervisor = looked_after(script, pause_s=0.2)
    deadline = time.monotonic() + 20
    while store.get(job).state is not State.DONE and time.monotonic() < deadline:
        supervisor.look()
        time.sleep(0.01)
    assert [attempt for attempt, _ in script.begun] == [1, 2, 3]
    first, second, third = (at for _, at in script.begun)
    assert 0.2 <= second - first < third - second
    assert third - second >= 0.4
    assert store.get(job).state is State.DONE


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_died_does_not_wait(looked_after):
    script = Script("", AWAY)
    job, store, supervisor = looked_after(script, pause_s=3600)
    for _ in range(4):
        supervisor.look()
    assert [attempt for attempt, _ in script.begun] == [1, 2], "the first died without a word"
    assert store.get(job).state is State.RUNNING
    store.change(job, (State.RUNNING,), cancel=True)
    supervisor.look()
    assert store.get(job).state is State.CANCELLED
    assert len(script.begun) == 2

"""What keeps the service from starting is told: in its log, to who asks, and at the command line."""

from __future__ import annotations

import time

import pytest
from starlette.testclient import TestClient

from capfilt.cli.main import call
from capfilt.service.app import build_app
from capfilt.service.config import JobsConfig, ServiceConfig
from capfilt.service.models import LocalModels


class Broken(LocalModels):
    async def open(self):
        raise RuntimeError("out of order, as /secret/file says")


def until(ask, good):
    deadline = time.monotonic() + 10
    while not good(now := ask().json()):
        assert time.monotonic() < deadline, now
        time.sleep(0.01)
    return now


def test_models_that_do_not_open_for_whatever_reason_are_told(caplog):
    with TestClient(build_app(ServiceConfig(runner="local"), Broken)) as client:
        ready = until(lambda: client.get("/readyz"), lambda now: now["status"] != "starting")
        asked = client.post("/v1/caption", json={"pictures": [{"image": "AAAA"}]})
    assert ready["status"] == "failing"
    assert "RuntimeError" in ready["detail"]
    assert "secret" not in ready["detail"] + asked.text
    assert (asked.status_code, "do not open: RuntimeError" in asked.json()["what"]) == (503, True)
    (record,) = [record for record in caplog.records if "do not open" in record.message]
    assert "/secret/file" in record.message
    assert record.exc_info


@pytest.mark.parametrize(("name", "told"), [("file/jobs", "jobs.state: "), ("\0", "ValueError")])
def test_jobs_that_do_not_start_for_whatever_reason_are_told(tmp_path, caplog, name, told):
    (tmp_path / "file").touch()
    config = ServiceConfig(runner="local", jobs=JobsConfig(state=f"{tmp_path}/{name}"))
    with TestClient(build_app(config, Broken)) as client:
        now = until(lambda: client.get("/v1/jobs"), lambda now: now["what"] != "jobs start")
    assert now["what"].startswith(f"jobs do not start: {told}")
    assert any("jobs do not start yet" in record.message for record in caplog.records)


def test_a_state_that_is_a_file_is_told_at_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "file").touch()
    assert call(["serve", "--state", str(tmp_path / "file")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: jobs.state: {tmp_path}/file cannot be made a folder: File exists"
    assert "mend: Name a folder" in second

"""What the doctor finds: on this machine, in environments made for it, and of servers on loopback."""

import socket
from http.server import BaseHTTPRequestHandler

import pytest

from capfilt.doctor.check import Status
from capfilt.doctor.examine import examine
from capfilt.doctor.machine import disks, gpus, memory
from capfilt.doctor.reach import accounts, destination, hub, models
from capfilt.doctor.software import packages, ray_cluster
from tests.loopback import Quiet, serving


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def website():
    class Refuses(Quiet, BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(403)
            self.end_headers()

    with serving(Refuses) as address:
        yield address


def test_each_finding_that_is_not_ok_says_how_to_mend_it(tmp_path):
    found = list(examine({"captioner": "no/such", "filter": "med-mini/filter"}, dest=str(tmp_path / "new")))
    assert {check.name for check in found} >= {"python", "packages", "torch", "ray", "memory", "gpus", "hub", "filter"}
    assert all(check.found for check in found)
    assert all(check.mend for check in found if check.status is not Status.OK)
    assert next(check for check in found if check.name == "destination").status is Status.OK
    assert not (tmp_path / "new").exists()


def test_what_capfilt_needs_is_here():
    by_name = {check.name: check for check in packages()}
    assert by_name["packages"].status is Status.OK
    assert by_name["torch"].found.startswith("2.")


def test_memory_and_disks_are_told_in_gib(tmp_path):
    assert memory().found.endswith(tuple("0123456789"))
    here = next(iter(disks(str(tmp_path / "not" / "yet"))))
    assert here.found.endswith(f"GiB free at {tmp_path}/not/yet")
    assert "disk here" not in {check.name for check in disks("s3://bucket/data")}


def test_gpus_are_told_one_way_or_the_other():
    assert len(list(gpus())) == 1


def test_models_need_their_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    names = {"captioner": "med-mini/captioner", "filter": str(tmp_path), "other": None, "third": "med-mini/captoner"}
    whole, bare, unknown = models(names)
    assert (whole.status, whole.name) == (Status.OK, "captioner")
    assert (bare.status, bare.found) == (Status.FAIL, f"{tmp_path} has no weights")
    assert unknown.status is Status.FAIL
    assert "med-mini/captioner" in unknown.mend


def test_a_hub_that_refuses_is_reachable_and_one_that_is_silent_is_not(website, closed_port):
    assert hub({"HF_ENDPOINT": website}).status is Status.OK
    silent = hub({"HF_ENDPOINT": f"http://127.0.0.1:{closed_port}"})
    assert silent.status is Status.WARN
    assert "HTTPS_PROXY" in silent.mend
    assert hub({"HF_ENDPOINT": f"http://127.0.0.1:{closed_port}", "HF_HUB_OFFLINE": "1"}).status is Status.OK


def test_a_cluster_that_is_named_must_answer(closed_port):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert ray_cluster({"RAY_ADDRESS": f"ray://127.0.0.1:{port}"}).status is Status.OK
    dead = ray_cluster({"RAY_ADDRESS": f"127.0.0.1:{closed_port}"})
    assert dead.status is Status.FAIL
    assert "unset RAY_ADDRESS" in dead.mend
    assert ray_cluster({}).status is Status.OK


def test_credentials_are_named_and_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("aws_secret_access_key = hidden-in-a-file")
    (tmp_path / ".netrc").write_text("machine example.org login me password hidden-in-a-file")
    environment = {"HF_TOKEN": "hf_hidden", "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "gone.json")}
    found = {check.name: check for check in accounts(environment)}
    assert found["credentials: hugging face"].found == "found by HF_TOKEN"
    assert found["credentials: s3"].found == "found by ~/.aws/credentials"
    assert found["credentials: google cloud"].status is Status.WARN
    assert found["credentials: weights & biases"].found.startswith("none")
    assert "hidden" not in repr(found)
    half = next(check for check in accounts({"AWS_ACCESS_KEY_ID": "hidden"}) if check.name == "credentials: s3")
    assert half.status is Status.WARN
    assert "AWS_SECRET_ACCESS_KEY" in half.found


def test_a_destination_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").write_text("")
    check = destination(str(tmp_path / "file" / "data"))
    assert check.status is Status.FAIL
    assert check.mend


@pytest.mark.slow
@pytest.mark.ray
def test_a_full_examination_puts_torch_and_ray_to_work():
    found = {check.name: check for check in examine({}, full=True)}
    assert found["torch at work"].status is Status.OK
    assert found["ray at work"].status is Status.OK

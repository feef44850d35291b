"""Captions, scores and verdicts over HTTP: what the stage gives, within bounds, for whoever asks."""

from __future__ import annotations

import http.client
import http.server
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from capfilt.records import table_of, web_caption
from capfilt.service.app import build_app
from capfilt.service.config import LimitsConfig, ServiceConfig
from capfilt.service.models import LocalModels
from capfilt.stages.capfilt import CapFilt
from capfilt.stages.config import CapFiltConfig
from tests.loopback import Quiet, listening

from .conftest import serving


@pytest.fixture(scope="module")
def by_the_stage(embedded, files):
    """What a job says of the same pictures with the same ids."""
    rows = [
        {"id": f"{at:032x}", "part": 0, "row": at, "image": file.read_bytes(), "captions": [web_caption("a red car")]}
        for at, file in enumerate(files)
    ]
    return CapFilt(capfilt=CapFiltConfig()).open()(table_of(rows)).column("captions").to_pylist()


def asked(pictures, **more):
    return [{"image": picture, "id": f"{at:032x}", **more} for at, picture in enumerate(pictures)]


def test_capfilt_says_what_a_job_says_of_the_same_rows(client, pictures, by_the_stage):
    answer = client.post("/v1/capfilt", json={"pictures": asked(pictures, texts=["a red car"])})
    assert answer.status_code == 200
    for result, expected in zip(answer.json()["results"], by_the_stage, strict=True):
        assert result["drop"] is None
        assert result["width"] > 0
        assert [c["text"] for c in result["captions"]] == [c["text"] for c in expected]
        assert [c["origin"] for c in result["captions"]] == [c["origin"] for c in expected]
        assert [c["kept"] for c in result["captions"]] == [c["kept"] for c in expected]
        assert [c["itm"] for c in result["captions"]] == pytest.approx([c["itm"] for c in expected], abs=1e-4)


def test_caption_writes_and_judges_nothing(client, pictures, by_the_stage):
    results = client.post("/v1/caption", json={"pictures": asked(pictures)}).json()["results"]
    written = [[c["text"] for c in row if c["origin"] == "synthetic"] for row in by_the_stage]
    assert [[c["text"] for c in result["captions"]] for result in results] == written
    assert {c["itm"] for result in results for c in result["captions"]} == {None}


def test_score_judges_and_writes_nothing(client, pictures, by_the_stage):
    results = client.post("/v1/score", json={"pictures": asked(pictures, texts=["a red car"])}).json()["results"]
    assert [len(result["captions"]) for result in results] == [1] * len(pictures)
    scores = [result["captions"][0]["itm"] for result in results]
    assert scores == pytest.approx([row[0]["itm"] for row in by_the_stage], abs=1e-4)


def test_a_crowd_gets_the_answers_of_one_in_batches(client, service, pictures, by_the_stage):
    """Many callers with a picture each: nobody gets another's caption, and batches form."""

    def one(at):
        asks = {"pictures": [asked(pictures, texts=["a red car"])[at % len(pictures)]]}
        return at % len(pictures), httpx.post(f"{service}/v1/capfilt", json=asks, timeout=60)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(one, range(48)))
    for at, answer in answers:
        assert answer.status_code == 200
        texts = [c["text"] for c in answer.json()["results"][0]["captions"]]
        assert texts == [c["text"] for c in by_the_stage[at]]
    batches = [
        sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name == "capfilt_batch_pictures_bucket" and sample.labels["le"] == "2.0"
    ]
    total = client.get("/metrics").text
    assert 'capfilt_pictures_total{kind="capfilt",outcome="done"}' in total
    assert batches[0] < 48, "some batches had more than two pictures"


def test_what_is_no_picture_is_a_result_with_a_reason_and_spoils_no_other(client, pictures):
    bad = [{"image": "!!"}, {"image": "AAAA"}, {"image": pictures[0][: len(pictures[0]) // 8 * 4]}]
    answer = client.post("/v1/caption", json={"pictures": [*bad, {"image": pictures[0]}]})
    results = answer.json()["results"]
    assert [result["drop"] for result in results] == ["not_an_image", "not_an_image", "broken_image", None]
    assert all(result["detail"] for result in results[:3])
    assert len(results[3]["captions"]) == 1


@pytest.fixture(scope="module")
def site(files):
    """A web server at two addresses of this machine, of which the service may ask one."""

    class Handler(Quiet, http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            moved = self.path == "/moved"
            self.send_response(302 if moved else 200)
            if moved:
                self.send_header("Location", f"http://127.0.0.1:{server.server_port}/secret")
            self.end_headers()
            if not moved:
                self.wfile.write(files[0].read_bytes())

    hits: list[str] = []
    with listening(Handler, "0.0.0.0") as server:
        yield server.server_port, hits


def test_pictures_by_url_come_through_the_safe_client(client, site, by_the_stage):
    port, hits = site
    urls = [f"http://127.0.0.2:{port}/p.jpg", f"http://127.0.0.1:{port}/secret", f"http://127.0.0.2:{port}/moved"]
    urls += ["file:///etc/passwd", "http://169.254.169.254/latest"]
    answer = client.post("/v1/caption", json={"pictures": [{"url": url, "id": f"{0:032x}"} for url in urls]})
    good, *refused = answer.json()["results"]
    assert good["captions"][0]["text"] == by_the_stage[0][1]["text"]
    assert [result["drop"] for result in refused] == ["refused_address"] * 4
    assert "/secret" not in hits


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.pictures"),
        ({"pictures": []}, "body.pictures"),
        ({"pictures": [{}]}, "body.pictures.0"),
        ({"pictures": [{"image": "AAAA", "url": "http://a"}]}, "body.pictures.0"),
        ({"pictures": [{"image": "AAAA"}] * 65}, "body.pictures"),
        ({"pictures": [{"url": "http://" + "a" * 3000}]}, "body.pictures.0.url"),
        ({"pictures": [{"image": "AAAA", "id": ""}]}, "body.pictures.0.id"),
        ({"pictures": [{"image": "AAAA", "texts": ["a"] * 33}]}, "body.pictures.0.texts"),
        ({"pictures": [{"image": "AAAA", "texts": ["a" * 2001]}]}, "body.pictures.0.texts.0"),
        ({"pictures": [{"image": 7}]}, "body.pictures.0.image"),
        ({"pictures": [{"image": "AAAA"}], "threshold": 0.1}, "body.threshold"),
    ],
)
def test_every_bound_is_told_with_its_field(client, body, where):
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 422
    assert answer.json()["where"] == where
    assert answer.json()["what"]


def test_bodies_are_bounded_by_length_and_in_chunks(client):
    long = b'{"pictures": [{"image": "' + b"A" * 2_100_000 + b'"}]}'
    kind = {"Content-Type": "application/json"}
    assert client.post("/v1/score", content=long, headers=kind).status_code == 413
    chunks = (long[at : at + 65536] for at in range(0, len(long), 65536))
    assert client.post("/v1/score", content=chunks, headers=kind).status_code == 413


def test_what_is_no_json_is_told_so(client):
    kind = {"Content-Type": "application/json"}
    assert client.post("/v1/score", content=b"{", headers=kind).status_code == 400
    assert client.post("/v1/score", content=b"\xff", headers=kind).status_code == 400
    assert client.post("/v1/score", content=b"[" * 100_000, headers=kind).status_code == 400
    assert client.post("/v1/score", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415


def test_a_name_that_is_not_this_machines_is_refused_where_no_token_is_needed(client):
    assert client.get("/healthz", headers={"Host": "rebound.example"}).status_code == 403


def test_too_much_at_once_is_asked_to_come_again_and_nothing_is_lost(service, pictures):
    """Twelve callers with 16 pictures each, where 64 may wait: some are refused with a time, all succeed in the end."""
    asks = {"pictures": [{"image": picture} for picture in [*pictures, *pictures[:4]]]}

    def one(_):
        statuses = []
        with httpx.Client(base_url=service, timeout=60) as client:
            while True:
                answer = client.post("/v1/capfilt", json=asks)
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    assert len(answer.json()["results"]) == 16
                    return statuses
                assert answer.status_code == 429
                assert 1 <= int(answer.headers["Retry-After"]) <= 60
                threading.Event().wait(0.3)

    with ThreadPoolExecutor(12) as pool:
        seen = list(pool.map(one, range(12)))
    assert any(429 in statuses for statuses in seen)
    with httpx.Client(base_url=service) as client:
        assert "capfilt_pictures_under_way 0.0" in client.get("/metrics").text


def test_a_slow_body_is_given_up_and_leaves_no_room_taken(embedded, open_fetch):
    limits = LimitsConfig(timeout_s=1)
    with serving(ServiceConfig(runner="local", fetch=open_fetch, limits=limits)) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            head = b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            slow.sendall(head + b"Content-Length: 100\r\n\r\n{")
            slow.settimeout(10)
            assert slow.recv(4096).startswith(b"HTTP/1.1 408")
        assert "capfilt_body_bytes_under_way 0.0" in httpx.get(f"{address}/metrics").text


def test_answers_carry_an_id_and_nothing_is_cached(client):
    answer = client.get("/healthz", headers={"X-Request-Id": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert client.get("/healthz", headers={"X-Request-Id": "a b\tc"}).headers["x-request-id"] != "a b\tc"


def test_about_says_which_models(client):
    assert client.get("/v1/about").json()["captioner"] == "med-mini/captioner"


def test_a_model_that_is_not_there_is_told_by_readiness():
    config = ServiceConfig(runner="local", capfilt=CapFiltConfig(captioner="no/such-model"))
    with TestClient(build_app(config, LocalModels)) as client:
        for _ in range(200):
            answer = client.get("/readyz")
            if answer.json()["status"] == "failing":
                break
            threading.Event().wait(0.05)
        assert answer.status_code == 503
        assert "no/such-model" in answer.json()["detail"]
        assert client.post("/v1/caption", json={"pictures": [{"image": "AAAA"}]}).status_code == 503
        assert client.get("/healthz").status_code == 200


def test_who_comes_again_after_seconds_finds_the_connection_open(service):
    link = http.client.HTTPConnection(service.removeprefix("http://"), timeout=30)
    for pause in (6, 0):  # more than the 5 s after which uvicorn closes by itself
        link.request("GET", "/healthz")
        answer = link.getresponse()
        assert (answer.status, answer.read() != b"") == (200, True)
        time.sleep(pause)
    link.close()

"""Who may ask for what: tokens, roles, and the whole matrix of routes."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from capfilt.errors import RecipeError
from capfilt.service import access
from capfilt.service.app import build_app
from capfilt.service.config import JobsConfig, LimitsConfig, ServiceConfig
from capfilt.service.models import LocalModels

from .conftest import serving

SCRIPT = Path(sys.executable).with_name("capfilt")
ROLES = ("online", "jobs", "watch", "admin")
NOBODY, UNKNOWN = "nobody", "unknown"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A token for each role, two for jobs; and their file."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    made = {role: access.new(file, role, roles=(role,)) for role in (*ROLES,)}
    made["other"] = access.new(file, "other", roles=("jobs",))
    return made, file


@pytest.fixture(scope="module")
def guarded(embedded, tokens, tmp_path_factory):
    state = str(tmp_path_factory.mktemp("state"))
    config = ServiceConfig(runner="local", tokens=str(tokens[1]), jobs=JobsConfig(state=state), limits=LimitsConfig())
    with serving(config) as address:
        yield address


ID = "0123456789abcdef"
PICTURES = {"pictures": [{"image": "AAAA"}]}
JOB = {"recipe": {"source": {"path": "/nowhere"}}, "dest": "/nowhere/either"}
ALL = frozenset(ROLES)
MATRIX = {
    ("GET", "/healthz"): (None, ALL | {NOBODY, UNKNOWN}),
    ("GET", "/readyz"): (None, ALL | {NOBODY, UNKNOWN}),
    ("GET", "/openapi.json"): (None, ALL | {NOBODY, UNKNOWN}),
    ("GET", "/"): (None, ALL | {NOBODY, UNKNOWN}),
    ("GET", "/report"): (None, ALL | {NOBODY, UNKNOWN}),
    ("GET", "/v1/recipe-form"): (None, {"jobs", "watch", "admin"}),
    ("GET", "/v1/about"): (None, ALL),
    ("GET", "/metrics"): (None, {"watch", "admin"}),
    ("POST", "/v1/caption"): (PICTURES, {"online", "admin"}),
    ("POST", "/v1/score"): (PICTURES, {"online", "admin"}),
    ("POST", "/v1/capfilt"): (PICTURES, {"online", "admin"}),
    ("GET", "/v1/jobs"): (None, {"jobs", "watch", "admin"}),
    ("POST", "/v1/jobs"): (JOB, {"jobs", "admin"}),
    ("GET", "/v1/jobs/{id}"): (None, {"jobs", "watch", "admin"}),
    ("GET", "/v1/jobs/{id}/log"): (None, {"jobs", "watch", "admin"}),
    ("GET", "/v1/jobs/{id}/manifest"): (None, {"jobs", "watch", "admin"}),
    ("GET", "/v1/jobs/{id}/report"): (None, {"jobs", "watch", "admin"}),
    ("GET", "/v1/jobs/{id}/events"): (None, {"jobs", "watch", "admin"}),
    ("POST", "/v1/jobs/{id}/cancel"): (None, {"jobs", "admin"}),
    ("POST", "/v1/jobs/{id}/retry"): ({}, {"jobs", "admin"}),
    ("GET", "/v1/audit"): (None, {"admin"}),
}


def test_the_matrix_has_every_route():
    app = build_app(ServiceConfig(runner="local"), LocalModels)
    there = {(method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item}
    assert there | {("GET", "/openapi.json")} == set(MATRIX)


@pytest.mark.parametrize("who", [*ROLES, NOBODY, UNKNOWN])
@pytest.mark.parametrize(
    ("route", "body", "may"), [(r, *told) for r, told in MATRIX.items()], ids=lambda r: str(r)[:40]
)
def test_the_matrix(guarded, tokens, who, route, body, may):
    """Who may passes the gate (and then finds that the job is not there, or the place closed, told by `where`)."""
    token = {NOBODY: None, UNKNOWN: "capfilt_" + "x" * 43}.get(who, tokens[0].get(who))
    method, path = route
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = httpx.request(method, guarded + path.replace("{id}", ID), json=body, headers=headers, timeout=30)
    if who in (NOBODY, UNKNOWN) and who not in may:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        return
    refused = answer.status_code == 403 and "role" in answer.json()["what"]
    assert refused is (who not in may), answer.text
    if who in may:
        assert answer.status_code in {200, 404} | ({403} if path == "/v1/jobs" and method == "POST" else set())


@pytest.mark.parametrize("header", ["", "Basic abc", "Bearer", "bearer x y"])
def test_odd_authorization_is_none(guarded, header):
    answer = httpx.get(f"{guarded}/v1/about", headers={"Authorization": header})
    assert answer.status_code == 401


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}])
def test_without_tokens_a_strangers_page_is_refused(service, headers):
    """A browser would send it in the name of whoever sits at this machine; a POST without a body it asks nobody for."""
    assert httpx.post(f"{service}/v1/jobs/{ID}/cancel", headers=headers).status_code == 403
    assert httpx.get(f"{service}/v1/about", headers={"Origin": service}).status_code == 200


def test_a_stranger_costs_no_body(guarded):
    """Refused before its body is read."""
    answer = httpx.post(f"{guarded}/v1/score", content=b"x" * 10**6, headers={"Content-Type": "application/json"})
    assert answer.status_code == 401


@pytest.mark.parametrize("line", ["POST /healthz", "PUT /readyz", "GET /", "POST /openapi.json", "OPTIONS /report"])
@pytest.mark.parametrize("body", ["Content-Length: 33554432", "Transfer-Encoding: chunked"])
def test_a_stranger_takes_no_room_for_a_body_that_never_comes(guarded, line, body):
    host, port = guarded.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as stranger:
        stranger.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{body}\r\n\r\n".encode())
        stranger.settimeout(5)
        assert stranger.recv(100).startswith(b"HTTP/1.1 401 ")


def test_the_file_keeps_no_token_and_is_its_owners_alone(tmp_path):
    file = tmp_path / "tokens.yaml"
    run = [SCRIPT, "tokens", "new", "ann", "--file", file, "--role", "jobs", "--source", "/data", "--dest", "/out"]
    made = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    assert made.startswith("capfilt_")
    assert len(made) > 40
    assert made not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (token,) = access.read(file)
    assert (token.roles, token.sources, token.dests) == (("jobs",), ("/data",), ("/out",))
    with pytest.raises(RecipeError, match="there is a token of the name ann"):
        access.new(file, "ann", roles=("online",))
    access.revoke(file, "ann")
    assert access.read(file) == ()
    with pytest.raises(RecipeError, match="no token has the name ann"):
        access.revoke(file, "ann")


def test_beyond_this_machine_only_with_tokens():
    with pytest.raises(RecipeError, match="there are no tokens"):
        access.Access.of(ServiceConfig(host="0.0.0.0"))


@pytest.mark.parametrize("text", ["[", "tokens: 3", "tokens: [{name: a}]", "- a", "\x00"])
def test_a_damaged_file_is_told(tmp_path, text):
    file = tmp_path / "tokens.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=r"tokens\.yaml"):
        access.read(file)

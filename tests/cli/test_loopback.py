"""The folder that the quickstart serves to itself."""

import socket
import urllib.error
import urllib.request

import pytest

from capfilt.cli.loopback import HOST, PORTS, serving
from capfilt.errors import EngineError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a b.txt").write_bytes(b"bytes")
    return tmp_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def test_it_serves_the_folder_on_loopback_only(folder):
    with serving(folder) as base:
        assert base.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(base + "images/a%20b.txt") as answer:
            assert answer.read() == b"bytes"
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(base + "images/none.txt")
        refused.value.close()


def test_it_does_not_climb_out(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.txt"
    outside.write_text("secret")
    with serving(folder) as base, socket.create_connection((HOST, int(base.split(":")[2].strip("/")))) as raw:
        raw.sendall(f"GET /../{outside.parent.name}/secret.txt HTTP/1.0\r\n\r\n".encode())
        assert b" 404 " in raw.makefile("rb").readline()


def test_the_port_is_the_same_from_run_to_run(folder):
    with serving(folder) as first:
        pass
    with serving(folder) as second:
        pass
    assert first == second


def test_a_taken_port_gives_way_to_the_next_when_none_was_asked_for(folder):
    with serving(folder) as first, serving(folder) as second:
        assert first != second
        assert int(second.split(":")[2].strip("/")) in PORTS


def test_a_port_that_was_asked_for_and_is_taken_is_the_users_to_free(folder):
    port = free_port()
    with serving(folder, port=port), pytest.raises(EngineError, match=str(port)) as error:
        serving(folder, port=port).__enter__()
    assert error.value.mend

"""Weights from a path, a hub id and a URL; the hub is its own cache's layout on disk, the URL a loopback server."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from huggingface_hub import constants

from capfilt.errors import ModelError
from capfilt.med import hub
from tests.loopback import serving_folder


@pytest.fixture
def served(tmp_path):
    root = tmp_path / "served"
    root.mkdir()
    (root / "model_base.pth").write_bytes(b"weights" * 1000)
    with serving_folder(root) as address:
        yield address, root


def test_a_path_is_itself(tmp_path):
    assert hub.obtain(str(tmp_path)) == tmp_path


def test_a_url_is_downloaded_once_under_its_name(served, tmp_path):
    address, root = served
    file = hub.obtain(f"{address}/model_base.pth", tmp_path / "cache")
    assert file.name == "model_base.pth"
    assert file.read_bytes() == b"weights" * 1000
    (root / "model_base.pth").unlink()
    assert hub.obtain(f"{address}/model_base.pth", tmp_path / "cache") == file


def test_several_processes_may_download_one_file_at_once(served, tmp_path, monkeypatch):
    """Those of a group do: the first that had it took the others' file away."""
    together, fetch = threading.Barrier(3), hub.http_get

    def get(url, out):
        together.wait(10)
        fetch(url, out)
        together.wait(10)

    monkeypatch.setattr(hub, "http_get", get)
    with ThreadPoolExecutor(3) as pool:
        files = list(pool.map(lambda _: hub.obtain(f"{served[0]}/model_base.pth", tmp_path / "cache"), range(3)))
    assert {file.read_bytes() for file in files} == {b"weights" * 1000}
    assert [file.name for file in files[0].parent.iterdir()] == ["model_base.pth"]


def test_a_url_that_fails_leaves_nothing(served, tmp_path):
    with pytest.raises(ModelError, match="cannot be downloaded"):
        hub.obtain(f"{served[0]}/missing.pth", tmp_path / "cache")
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_a_hub_id_is_taken_from_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "0" * 40
    root = tmp_path / "models--owner--blip"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"w")
    assert hub.obtain("owner/blip", tmp_path) == snapshot
    with pytest.raises(ModelError, match="the hub did not give it"):
        hub.obtain("owner/other", tmp_path)


@pytest.mark.parametrize("name", ["no/such/path", "a b", "", "../x"])
def test_what_is_neither_is_said_so(name):
    with pytest.raises(ModelError, match="no such file or folder, and no hub id"):
        hub.obtain(name)

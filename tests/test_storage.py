"""A name is whole or absent; what is refused leaves no trace."""

import hashlib
import os
import pickle
import threading

import fsspec
import pytest

from capfilt.errors import DestinationError
from capfilt.storage import Store


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    if request.param == "local":
        yield Store(str(tmp_path / "dest"))
        return
    yield Store(f"memory://{tmp_path.name}/dest")
    fsspec.filesystem("memory").rm("/", recursive=True)


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_written_is_read_and_its_digest_told(store):
    assert store.write("a/b.bin", b"bytes") == hashlib.sha256(b"bytes").hexdigest()
    assert store.read("a/b.bin") == b"bytes"
    assert store.exists("a/b.bin")
    assert store.names("a") == ["b.bin"]
    assert store.names("nowhere") == []
    assert store.entries() == ["a"]
    store.remove("a/b.bin")
    store.remove("a/b.bin")
    assert not store.exists("a/b.bin")


def test_json_is_stable_and_ends_in_a_newline(store):
    first = store.write_json("x.json", {"b": 1, "a": ["é"]})
    assert store.read("x.json") == '{\n "a": [\n  "é"\n ],\n "b": 1\n}\n'.encode()
    assert store.write_json("x.json", {"a": ["é"], "b": 1}) == first
    assert store.read_json("x.json") == {"a": ["é"], "b": 1}


def test_a_name_that_is_no_utf8_does_not_stop_json(store):
    store.write_json("x.json", {"name": "caf\udce9.tar"})
    assert store.read_json("x.json") == {"name": "caf?.tar"}


def test_damaged_json_names_the_file(store):
    store.write("x.json", b"{")
    with pytest.raises(DestinationError, match=r"x\.json"):
        store.read_json("x.json")


def test_a_stream_appears_whole_or_not_at_all(store):
    with store.write_file("f") as file:
        file.write(b"new")
        assert not store.exists("f")
    with pytest.raises(ZeroDivisionError), store.write_file("f") as file:  # noqa: PT012
        file.write(b"half")
        raise ZeroDivisionError
    assert store.read("f") == b"new"
    assert store.names() == ["f"]


def test_a_failed_stream_leaves_no_temporary(tmp_path):
    with pytest.raises(ZeroDivisionError), Store(str(tmp_path)).write_file("f"):
        raise ZeroDivisionError
    assert everything(tmp_path) == []


def test_temporaries_of_the_dead_are_not_names(tmp_path):
    (tmp_path / ".f.123456.tmp").write_bytes(b"half")
    assert Store(str(tmp_path)).names() == []


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a\\..\\b", "a\0b"])
def test_names_stay_inside(store, name):
    with pytest.raises(DestinationError):
        store.write(name, b"")


def test_writers_of_one_name_are_harmless(tmp_path):
    store, data = Store(str(tmp_path)), [bytes([n]) * 100_000 for n in range(4)]
    workers = [threading.Thread(target=store.write, args=("f", piece)) for piece in data for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert store.read("f") in data
    assert everything(tmp_path) == ["f"]


def test_stores_travel_to_workers(store):
    store.write("f", b"1")
    assert pickle.loads(pickle.dumps(store)).read("f") == b"1"


def test_a_relative_folder_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("out")
    monkeypatch.chdir("/")
    store.write("f", b"")
    assert (tmp_path / "out" / "f").exists()


def test_writable_leaves_no_trace(store, tmp_path):
    store.check_writable()
    assert store.entries() == []
    assert everything(tmp_path) == []


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DestinationError, match="is a file") as told:
        Store(str(tmp_path / "file" / "dest")).check_writable()
    assert told.value.mend
    with pytest.raises(DestinationError, match="cannot be written"):
        Store(str(tmp_path / "file" / "dest")).write("x", b"")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder nobody can write")  # noqa: PTH112
def test_a_refused_folder_is_told():
    with pytest.raises(DestinationError) as told:
        Store("/proc/self/capfilt/dest").check_writable()
    assert told.value.where == "/proc/self/capfilt/dest"


@pytest.mark.parametrize(("failure", "passing"), [(ConnectionError("away"), True), (PermissionError("closed"), False)])
def test_a_remote_store_that_is_away_may_be_back_and_rights_do_not_come_by_themselves(failure, passing):
    class Failing(fsspec.AbstractFileSystem):
        protocol = "failing"
        cachable = False

        def cat_file(self, path, *more, **how):
            raise failure

        pipe_file = cat_file

    fsspec.register_implementation("failing", Failing, clobber=True)
    for ask in (lambda: Store("failing://x").read("f"), Store("failing://x").check_writable):
        with pytest.raises(DestinationError) as told:
            ask()
        assert told.value.passing is passing


def test_an_unknown_scheme_is_told():
    with pytest.raises(DestinationError, match="no filesystem"):
        Store("nosuch://x")


@pytest.mark.parametrize("url", ["memory://each/data", None])
def test_many_files_are_read_in_the_order_that_is_asked_for(url, tmp_path):
    store = Store(url or str(tmp_path))
    names = [f"pairs/{n}.parquet" for n in (100000, 99999, *range(40))]
    for name in names:
        store.write(name, name.encode())
    assert list(store.read_each(names)) == [name.encode() for name in names]
    store.remove(names[20])
    read = []
    with pytest.raises(FileNotFoundError):
        read.extend(store.read_each(names))
    there = store.read_each(names)
    assert [next(there) for _ in range(20)] == [name.encode() for name in names[:20]], "those before it"

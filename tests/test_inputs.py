"""Files are found, opened, measured and told apart, wherever they lie."""

import gzip
import hashlib

import fsspec
import pyarrow
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from capfilt import inputs
from capfilt.errors import SourceError, StoreError
from capfilt.inputs import expand, identity, is_folder, open_read, sha256_file, size_of
from capfilt.storage import Store
from tests.loopback import Quiet, serving


def test_an_unknown_scheme_is_told():
    with pytest.raises(SourceError, match="no filesystem"):
        expand("nosuch://x")


def test_expand_takes_a_file_a_folder_or_a_glob(tmp_path):
    for name in ("b.csv", "a.csv", "deep/c.csv", ".hidden", "_SUCCESS", "_tmp/d.csv", "odd[1].csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    at = lambda *names: [str(tmp_path / name) for name in names]  # noqa: E731
    assert expand(str(tmp_path)) == at("a.csv", "b.csv", "deep/c.csv", "odd[1].csv")
    assert expand(str(tmp_path / "[ab].csv")) == at("a.csv", "b.csv")
    assert expand(str(tmp_path / "odd[1].csv")) == at("odd[1].csv")
    for nothing in ("none", "*.parquet"):
        with pytest.raises(SourceError):
            expand(str(tmp_path / nothing))


def test_expand_of_a_bucket_gives_urls():
    store = Store("memory://bucket/in")
    store.write("a.csv", b"x")
    (url,) = expand("memory://bucket/in/*.csv")
    assert url.startswith("memory://")
    assert open_read(url).read() == b"x"
    store.remove("a.csv")


def test_s3_is_asked_for_more_than_ten_things_at_a_time_unless_a_user_says_otherwise(monkeypatch):
    fs, _ = inputs.filesystem("s3://bucket/x", SourceError)
    assert fs.config_kwargs["max_pool_connections"] == 128
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"max_pool_connections": 7}})
    fs, _ = inputs.filesystem("s3://bucket/x", SourceError)
    assert fs.config_kwargs == {"max_pool_connections": 7}


def test_reading_opens_packed_files_on_request(tmp_path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"a") + gzip.compress(b"b"))
    with open_read(str(path), decompress=True) as file:
        assert file.read() == b"ab"
    with open_read(str(path)) as file:
        assert file.read()[:2] == b"\x1f\x8b"
    packed = tmp_path / "x.csv.zst"
    with pyarrow.CompressedOutputStream(str(packed), "zstd") as file:
        file.write(b"a\nb\n")
    with open_read(str(packed), decompress=True) as file:
        assert list(file) == [b"a\n", b"b\n"]
    with pytest.raises(SourceError, match="no such file"):
        open_read(str(tmp_path / "none"))
    with pytest.raises(SourceError, match="cannot be read"):
        open_read(str(tmp_path))


def test_identity_follows_content(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"1")
    assert sha256_file(str(path)) == identity(str(path)) == hashlib.sha256(b"1").hexdigest()
    remote = Store("memory://ident")
    remote.write("f", b"1")
    before = identity(remote.path("f"))
    assert before == identity(remote.path("f"))
    remote.write("f", b"22")
    assert identity(remote.path("f")) != before
    remote.remove("f")


def test_identity_is_of_the_content_and_not_of_how_the_store_was_asked(monkeypatch):
    """A listing tells other things of an object than an answer about it alone, and its storage class may change."""
    entry = {"name": "/ident/g", "type": "file", "size": 3, "ETag": '"0a"', "StorageClass": "STANDARD"}
    told = [entry, entry | {"VersionId": "7", "ContentType": "x"}, entry | {"StorageClass": "GLACIER", "ETag": "0a"}]
    answers = iter([*told, entry | {"ETag": '"0b"'}, entry | {"size": 4}])
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *_, **__: next(answers))
    same = {identity("memory://ident/g") for _ in told}
    assert len(same) == 1
    assert len(same | {identity("memory://ident/g"), identity("memory://ident/g")}) == 3


def test_a_link_to_a_file_is_a_file(tmp_path):
    """Caches of hubs and versioned data are folders of links."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(b"x")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.csv").symlink_to(tmp_path / "blobs" / "1")
    (tmp_path / "set" / "b.csv").symlink_to("../blobs/1")
    (tmp_path / "set" / "c.csv").symlink_to(tmp_path / "blobs")
    (tmp_path / "set" / "d.csv").symlink_to(tmp_path / "nowhere")
    wanted = [str(tmp_path / "set" / name) for name in ("a.csv", "b.csv")]
    assert expand(str(tmp_path / "set" / "*.csv")) == wanted
    assert Store(str(tmp_path / "set")).names() == ["a.csv", "b.csv"]
    assert Store(str(tmp_path)).names("set") == ["a.csv", "b.csv"]


def test_two_colons_in_a_files_name_are_two_colons(tmp_path, monkeypatch):
    """In addresses they chain file systems: the file before them would be read in its place."""
    (tmp_path / "a").write_bytes(b"another")
    (tmp_path / "a::b").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "a::b"), "a::b"):
        with open_read(name) as file:
            assert file.read() == b"x"
    assert str(tmp_path / "a::b") in expand(str(tmp_path))


def test_sizes(tmp_path):
    (tmp_path / "f").write_bytes(b"123")
    assert size_of(str(tmp_path / "f")) == 3


def test_a_large_file_is_told_apart_by_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "_WHOLE_BYTES", 1 << 10)
    path = tmp_path / "f"
    data = bytearray(4 << 20)
    path.write_bytes(data)
    before = identity(str(path))
    assert before != sha256_file(str(path))
    assert before == identity(str(path))
    data[-1] = 1
    path.write_bytes(data)
    assert identity(str(path)) != before
    path.write_bytes(data + b"1")
    assert identity(str(path)) != before


def test_a_large_file_is_not_read_whole(tmp_path):
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: reading a tebibyte would take an hour
    before = identity(str(path))
    with path.open("r+b") as file:
        file.write(b"1")
    assert identity(str(path)) != before


@pytest.mark.parametrize("ask", [expand, is_folder])
def test_a_web_server_that_fails_is_asked_again_and_then_told_of(ask, monkeypatch):
    """Its client raises errors of its own, which are no answer to whether a file is there."""
    monkeypatch.setattr("capfilt.inputs._WAITS_S", (0.0,))
    asked = []

    class Busy(Quiet):
        def do_GET(self):  # noqa: N802
            asked.append(self.path)
            self.send_error(503)

        do_HEAD = do_GET  # noqa: N815

    with serving(Busy) as address, pytest.raises(StoreError):
        ask(f"{address}/pairs.csv")
    assert len(asked) > 1

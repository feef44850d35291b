"""The main job on a real object store: the same data set as on a disk, exactly once, also when the store dies."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import s3fs

from capfilt.catalog import sample
from capfilt.shards.lease import FILE
from capfilt.shards.verify import verify
from capfilt.storage import Store
from tests.s3.service import SECRET

SCRIPT = Path(sys.executable).with_name("capfilt")
SETTINGS = ("plan.part_rows=4", "capfilt.captioner=null")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for file in sorted((sample() / "images").glob("*.jpg"))[:32]:
        (folder / file.name).write_bytes(file.read_bytes())
        (folder / file.name).with_suffix(".txt").write_text(file.stem.replace("-", " "))
    return folder


def start(source, dest):
    sets = [piece for setting in SETTINGS for piece in ("--set", setting)]
    command = [str(SCRIPT), "bootstrap", str(source), str(dest), "--runner", "local", *sets]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(run):
    out, said = run.communicate(timeout=200)
    assert run.returncode == 0, said
    return out + said


def stored(bucket):
    """From name to content of everything in a bucket."""
    files = s3fs.S3FileSystem()
    files.invalidate_cache()
    return {name.removeprefix(f"{bucket}/"): files.cat_file(name) for name in files.find(bucket)}


def test_a_data_set_on_s3_is_the_one_on_a_disk(bucket, pictures, tmp_path):
    said = finished(start(pictures, f"s3://{bucket}/set"))
    finished(start(pictures, tmp_path / "set"))
    there = stored(bucket)
    for kind in ("shards", "pairs", "parts"):
        here = {f"set/{kind}/{file.name}": file.read_bytes() for file in (tmp_path / "set" / kind).iterdir()}
        assert {name: data for name, data in there.items() if f"/{kind}/" in name} == here
    assert verify(Store(f"s3://{bucket}/set")) == []
    assert f"set/{FILE}" not in there
    assert SECRET.encode() not in b"".join([*there.values(), said.encode()])
    again = start(f"s3://{bucket}/set/shards", tmp_path / "from-s3")
    finished(again)
    assert verify(Store(str(tmp_path / "from-s3"))) == []


def test_of_many_that_create_a_file_one_does(bucket):
    stores = [Store(f"s3://{bucket}/x") for _ in range(2)]
    assert [store.create("a.json", b"%d" % at) for at, store in enumerate(stores)] == [True, False]
    assert stores[1].read("a.json") == b"0"
    with pytest.raises(OSError, match="precondition"):
        s3fs.S3FileSystem().pipe_file(f"{bucket}/x/a.json", b"2", mode="create")


@pytest.mark.slow
def test_a_store_that_dies_stops_the_run_in_two_lines_and_is_gone_on_with_when_it_is_back(bucket, pictures, service):
    run = start(pictures, f"s3://{bucket}/set")
    store = Store(f"s3://{bucket}/set")
    deadline = time.monotonic() + 100
    while not store.names("parts"):
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    service.kill()
    try:
        _, said = run.communicate(timeout=200)
    finally:
        service.start()
    assert run.returncode == 2, said
    *_, what, mend = said.strip().splitlines()
    assert what.startswith(f"error: s3://{bucket}/set: the store fails: ")
    assert "run again to go on" in mend
    assert SECRET not in said
    before = {name: data for name, data in stored(bucket).items() if "/parts/" in name}
    assert 1 <= len(before) < 8
    finished(start(pictures, f"s3://{bucket}/set"))
    after = stored(bucket)
    assert {name: after[name] for name in before} == before
    assert verify(store) == []


@pytest.mark.slow
def test_a_store_that_slows_is_waited_for(bucket, pictures, service):
    run = start(pictures, f"s3://{bucket}/set")
    store = Store(f"s3://{bucket}/set")
    deadline = time.monotonic() + 100
    while not store.names("parts"):
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    service.pause()
    try:
        time.sleep(6)
        assert run.poll() is None
    finally:
        service.go_on()
    finished(run)
    assert verify(store) == []


def test_a_file_of_many_parts_is_whole_or_not_there(bucket):
    """Beyond 64 MiB a file goes up in several requests."""
    store, block = Store(f"s3://{bucket}/set"), bytes(range(256)) * 4096
    with store.write_file("shards/large.tar") as file:
        for _ in range(70):
            file.write(block)
        assert not store.exists("shards/large.tar")
    assert store.read("shards/large.tar") == block * 70

    def half() -> None:
        with store.write_file("shards/other.tar") as file:
            file.write(block)
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        half()
    assert store.names("shards") == ["large.tar"]


def test_credentials_that_do_not_hold_are_told_and_not_shown(bucket, pictures, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    run = start(pictures, f"s3://{bucket}/set")
    _, said = run.communicate(timeout=100)
    assert run.returncode == 2, said
    assert "rights" in said or "credentials" in said
    assert "another-secret" not in said
    assert "Traceback" not in said

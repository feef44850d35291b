"""The same recipe gives the same ids, captions, scores and files: with either runner, on one worker and on two."""

from __future__ import annotations

import hashlib

import pytest

from capfilt import catalog
from tests.loopback import serving_folder

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

ROWS = 32
WAYS = {
    "local, 1 worker": ("--runner", "local", "--workers", "1"),
    "local, 2 workers": ("--runner", "local", "--workers", "2"),
    "ray, 1 worker": ("--runner", "ray", "--workers", "1"),
    "ray, 2 workers": ("--runner", "ray", "--workers", "2"),
}


@pytest.fixture(scope="module")
def base():
    with serving_folder(catalog.sample()) as address:
        yield f"{address}/"


@pytest.fixture(scope="module")
def runs(run, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ways")
    lines = (catalog.sample() / "pairs.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    # The last rows go wrong on purpose; both ends of the table are needed to see drops and captions agree.
    (folder / "some.csv").write_text("".join([*lines[:ROWS], *lines[-9:]]), encoding="utf-8")
    settings = (
        f"source.url_base={base}",
        "plan.part_rows=10",
        "fetch.allow_addresses=[127.0.0.0/8]",
        "capfilt.cpus=0.5",
    )
    sets = [piece for setting in settings for piece in ("--set", setting)]
    found = {}
    for number, (way, options) in enumerate(WAYS.items()):
        dest = folder / str(number)
        ran = run(dest, "bootstrap", folder / "some.csv", dest, "--recipe", "quickstart", *sets, *options)
        found[way] = ran
    return found


def test_captions_were_written_and_judged(runs):
    rows = runs["local, 1 worker"].ledger.to_pylist()
    synthetic = [c for row in rows for c in row["captions"] if c["origin"] == "synthetic"]
    assert len(synthetic) > ROWS // 2
    assert len({c["text"] for c in synthetic}) > 5


@pytest.mark.parametrize("way", [way for way in WAYS if way != "local, 1 worker"])
def test_the_same(runs, way):
    expected, found = runs["local, 1 worker"].ledger.to_pylist(), runs[way].ledger.to_pylist()
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    assert [told(row) for row in found] == [told(row) for row in expected]
    scores = [(scored(a), scored(b)) for a, b in zip(found, expected, strict=True)]
    # Bit for bit: the same batches, the same threads and the same weights leave nothing to differ.
    assert [a for a, b in scores] == [b for a, b in scores]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "local, 1 worker"])
def test_not_a_byte_differs(runs, way):
    expected, found = written(runs["local, 1 worker"].data), written(runs[way].data)
    assert len(expected) > 10
    assert found == expected


def told(row):
    return row["drop"], row["sha256"], [(c["text"], c["origin"], c["kept"]) for c in row["captions"]]


def scored(row):
    return [(c["itm"], c["itc"]) for c in row["captions"]]


def written(data):
    """What stands in the shards, the ledger and the commit markers."""
    folders = ("shards", "pairs", "parts")
    files = (file for folder in folders for file in (data / folder).rglob("*") if file.is_file())
    return {str(file.relative_to(data)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

"""A store that fails for a while costs nothing; one that goes on failing ends the run, and nothing is dropped."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import ClientResponseError, RequestInfo
from botocore.exceptions import NoCredentialsError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from capfilt import inputs
from capfilt.errors import DataError, DestinationError, SourceError, StoreError
from capfilt.flow.config import PlanConfig
from capfilt.flow.plan import plan
from capfilt.inputs import open_read, size_of
from capfilt.shards.commit import SinkConfig, commit_part, recorded_dedup, write_manifest
from capfilt.shards.read import samples
from capfilt.shards.verify import repair, verify
from capfilt.sources.base import SourceConfig
from capfilt.sources.opening import open_source
from capfilt.storage import Store
from tests.flaky import ROOM, WEATHER
from tests.shards.test_verify import Planned

ROWS = 40
ASKED = RequestInfo(URL("https://a/t.parquet"), "GET", CIMultiDictProxy(CIMultiDict()), URL("https://a/t.parquet"))


@pytest.fixture(autouse=True)
def fair(monkeypatch):
    """Pauses that a test can wait for, and a store without anything in it."""
    monkeypatch.setattr(inputs, "_WAITS_S", (0.0, 0.0, 0.0))
    ROOM.clear()
    WEATHER.storm(0)
    yield
    WEATHER.storm(0)


def parquet():
    out = io.BytesIO()
    table = pa.table({"url": [f"http://a/{n}.jpg" for n in range(ROWS)], "text": ["a cat " * 400] * ROWS})
    pq.write_table(table, out, row_group_size=10, compression="none", use_dictionary=False)
    return out.getvalue()


def tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for n in range(ROWS):
            for kind, data in (("jpg", b"\xff\xd8\xff" + bytes(5000)), ("txt", b"a cat")):
                info = tarfile.TarInfo(f"{n:04d}.{kind}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return out.getvalue()


SOURCES = {
    "table": {"in/t.parquet": parquet()},
    "csv": {"in/t.csv": b"url,text\n" + b"".join(b"http://a/%d.jpg,a cat\n" % n for n in range(ROWS))},
    "tar": {"in/t.tar": tar()},
    "folder": {
        f"in/{n:02d}.{kind}": data for n in range(ROWS) for kind, data in (("png", b"\x89PNG"), ("txt", b"a cat"))
    },
}


def rows_of(source, parts):
    return [row for part in parts for row in source.read(part).to_pylist()]


def opened(kind):
    ROOM.update(SOURCES[kind])
    path = "flaky://in" if kind == "folder" else f"flaky://{next(iter(SOURCES[kind]))}"
    source = open_source(SourceConfig(path=path))
    return source, plan(source, PlanConfig(part_rows=ROWS)).parts


@pytest.mark.parametrize("kind", SOURCES)
def test_what_fails_for_a_moment_is_asked_again(kind):
    source, parts = opened(kind)
    calm = rows_of(source, parts)
    assert len(calm) == ROWS
    assert not [row for row in calm if row["drop"] == "unreadable_row"]
    source, parts = opened(kind)
    WEATHER.storm(3)
    assert rows_of(source, parts) == calm
    assert WEATHER.failed == 3


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (OSError(16, "SlowDown"), True),
        (RuntimeError("endpoint"), True),
        (PermissionError("token has expired"), False),
        (NoCredentialsError(), False),
        (ClientResponseError(ASKED, (), status=403), False),
        (ClientResponseError(ASKED, (), status=429), True),
        (ClientResponseError(ASKED, (), status=502), True),
    ],
)
@pytest.mark.parametrize("kind", SOURCES)
def test_a_store_that_goes_on_failing_makes_no_row_a_drop(kind, error, passing):
    source, parts = opened(kind)
    WEATHER.storm(10_000, error)
    with pytest.raises(StoreError, match="the store fails") as caught:
        rows_of(source, parts)
    assert caught.value.passing == passing
    assert WEATHER.failed == (4 if passing else 1), "rights do not come by waiting"


def test_it_fails_in_the_midst_of_a_file():
    ROOM["in/x"] = bytes(range(256)) * 4096
    with open_read("flaky://in/x") as file:
        first = file.read(1000)
        WEATHER.storm(2)
        assert first + file.read() == ROOM["in/x"]
    with open_read("flaky://in/x") as file:
        file.seek(500_000)
        WEATHER.storm(10_000)
        with pytest.raises(StoreError):
            file.read()


def test_what_is_not_there_is_not_asked_for_again():
    WEATHER.storm(0)
    with pytest.raises(SourceError, match="no such file"):
        open_read("flaky://in/none")
    with pytest.raises(SourceError, match="no such file"):
        size_of("flaky://in/none")


def test_no_shard_is_passed_over_because_its_store_fails():
    ROOM["in/t.tar"] = tar()
    bad = []
    assert len(list(samples(["flaky://in/t.tar"], on_bad=lambda *one: bad.append(one)))) == ROWS
    WEATHER.storm(10_000)
    with pytest.raises(StoreError):
        list(samples(["flaky://in/t.tar"], on_bad=lambda *one: bad.append(one)))
    assert bad == []
    WEATHER.storm(0)
    ROOM["in/t.tar"] = ROOM["in/t.tar"][:30_000]
    assert len(list(samples(["flaky://in/t.tar"], on_bad=lambda *one: bad.append(one)))) < ROWS
    assert bad, "damage is damage, there too"
    with pytest.raises(DataError):
        list(samples(["flaky://in/t.tar"]))


@pytest.mark.parametrize("part", ["shards/", "pairs/", "parts/", "manifest.json"])
@pytest.mark.parametrize("error", [OSError(16, "SlowDown"), PermissionError("AccessDenied")])
def test_nothing_is_broken_or_removed_because_the_store_fails(part_table, part, error):
    store = Store("flaky://data")
    for index in (0, 1, 2):
        commit_part(store, part_table(index=index, keep=True), Planned(index), SinkConfig(format="both"))
    write_manifest(store, recipe={}, source={"kind": "table"}, models={}, parts_planned=3)
    assert verify(store) == []
    before = dict(ROOM)
    for work in (verify, repair):
        WEATHER.storm(10_000, error, part)
        with pytest.raises(Exception, match="the store fails"):
            work(store)
        WEATHER.storm(0)
        assert before == ROOM
    WEATHER.storm(10_000, error, "manifest.json")
    with pytest.raises(DestinationError, match="the store fails"):
        recorded_dedup(store)
    WEATHER.storm(0)
    shard = next(name for name in ROOM if "shards/00001" in name)
    ROOM[shard] = ROOM[shard][:-1]
    assert repair(store) == [1], "what is broken is"

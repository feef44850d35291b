"""Anybody's shards as samples; what is bad is told, never swallowed in silence."""

import gzip
import io
import json
import tarfile
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capfilt.errors import DataError, SourceError
from capfilt.shards.commit import SinkConfig, commit_part
from capfilt.shards.parquet import SHARD_SCHEMA
from capfilt.shards.read import samples
from capfilt.storage import Store


@dataclass(frozen=True)
class Planned:
    index: int
    digest: str = "d"


_CAPTIONS = SHARD_SCHEMA.field("captions").type


def tar(path, *items):
    with tarfile.open(path, "w") as file:
        for name, data in items:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return str(path)


def test_tar_and_parquet_give_the_same_samples(store, part_table):
    commit_part(store, part_table(), Planned(0), SinkConfig(format="both"))
    a, b = (list(samples([store.path(f"shards/00000.{kind}")])) for kind in ("tar", "parquet"))
    assert a == b
    assert len(a) == 5


def test_plain_tars_give_their_texts_as_kept(tmp_path, picture):
    told = json.dumps({"url": "http://a", "caption": "from json", "captions": ["not", "ours"]}).encode()
    items = [
        ("1.jpg", picture()),
        ("1.txt", b" a text \n"),
        ("1.json", told),
        ("2.png", picture()),
        ("2.json", told),
    ]
    first, second = samples([tar(tmp_path / "x.tar", *items)], origin="human")
    assert first.captions == [{"text": "a text", "origin": "human", "itm": None, "itc": None, "kept": True}]
    assert second.captions[0]["text"] == "from json"
    assert first.meta["url"] == "http://a"


def test_bad_samples_are_told_and_the_rest_goes_on(tmp_path, picture, store, part_table):
    items = [
        ("1.txt", b"no picture"),
        ("2.jpg", picture()),
        ("3.jpg", picture()),
        ("3.json", b"[[["),
        ("4.jpg", picture()),
        ("4.txt", b"ok"),
    ]
    strange = tar(tmp_path / "x.tar", *items)
    cut = tmp_path / "cut.tar"
    cut.write_bytes((tmp_path / "x.tar").read_bytes()[:700])
    packed = tmp_path / "y.tar.gz"
    packed.write_bytes(gzip.compress((tmp_path / "x.tar").read_bytes())[:-30])
    (tmp_path / "z.parquet").write_bytes(b"PAR1")
    commit_part(store, part_table(rows=1), Planned(0), SinkConfig())
    urls = [
        strange,
        str(cut),
        str(packed),
        str(tmp_path / "z.parquet"),
        str(tmp_path / "none.tar"),
        store.path("shards/00000.tar"),
    ]
    bad = []
    keys = [sample.key for sample in samples(urls, on_bad=lambda *told: bad.append(told))]
    assert keys[0] == "4"
    assert keys[-1] == "00000-0000000"
    assert {name.partition("#")[0] for name, _ in bad} == set(urls[:-1])
    assert (f"{strange}#1", "no image of a known extension") in bad
    for url in urls[:-1]:
        with pytest.raises((DataError, SourceError)) as told:
            list(samples([url]))
        assert url in told.value.where


def test_hostile_json_is_a_text_or_nothing(tmp_path, picture):
    ours = {"text": "x", "origin": "web", "kept": True}
    hostile = [
        b"[" * 50_000,
        b"9" * 5000,
        json.dumps({"captions": [{**ours, "origin": "evil"}]}).encode(),
        json.dumps({"captions": [{**ours, "origin": ["web"]}]}).encode(),
        json.dumps({"captions": [{**ours, "kept": "yes"}]}).encode(),
        b'{"captions": [{"text": "\\ud800", "origin": "web", "kept": true, "itm": 1e999, "itc": ' + b"1" * 400 + b"}]}",
    ]
    items = [
        item
        for n, data in enumerate(hostile)
        for item in ((f"{n}.jpg", picture()), (f"{n}.json", data), (f"{n}.txt", b"t"))
    ]
    found = list(samples([tar(tmp_path / "x.tar", *items)], on_bad=lambda *_: None))
    assert [(s.captions[0]["text"], s.captions[0]["itm"]) for s in found] == [("t", None)] * 3 + [("?", None)]


def test_parquet_that_is_no_shard_is_told(tmp_path):
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"url": ["a"]}), path)
    with pytest.raises(DataError, match="no column"):
        list(samples([path]))
    names = ["key", "key", "image", "captions"]
    pq.write_table(pa.table([["a"], ["b"], [b"x"], pa.array([[]], _CAPTIONS)], names=names), path)
    with pytest.raises(DataError, match="several of that name"):
        list(samples([path]))
    pq.write_table(pa.table({"key": ["a"], "image": ["text"], "captions": ["x"]}), path)
    with pytest.raises(DataError):
        list(samples([path]))


def test_bad_rows_of_parquet_are_told_and_the_rest_goes_on(tmp_path, picture):
    ours = {"text": "a text", "origin": "web", "itm": 0.5, "itc": None, "kept": True}
    image, small = picture(size=(400, 300)), picture(size=(8, 8))
    rows = [
        ("null", small, None),
        ("none", small, []),
        ("no-text", small, [{**ours, "text": None}]),
        ("no-verdict", small, [ours, {**ours, "kept": None}]),
        ("evil", small, [{**ours, "origin": "evil"}]),
        ("hollow", small, [None]),
        (None, small, [ours]),
        ("large", image, [ours]),
        ("good", small, [{**ours, "itm": float("nan")}]),
    ]
    captions = pa.array([row[2] for row in rows], _CAPTIONS)
    columns = {"key": [row[0] for row in rows], "image": [row[1] for row in rows], "captions": captions}
    path, bad = str(tmp_path / "x.parquet"), {}
    pq.write_table(pa.table(columns), path)
    (found,) = samples([path], on_bad=bad.__setitem__, max_image_bytes=len(image) - 1)
    assert (found.key, found.captions) == ("good", [{**ours, "itm": None}])
    assert list(bad) == [f"{path}#{row[0] or 'row 6'}" for row in rows[:-1]]
    with pytest.raises(DataError, match="no captions") as told:
        list(samples([path]))
    assert told.value.where == f"{path}#null"


def test_parquet_with_a_text_that_is_no_utf8_loses_that_row_only(tmp_path, picture):
    ours = [{"text": "a text", "origin": "web", "itm": None, "itc": None, "kept": True}]
    keys = ["a", "b", "c"]
    broken = pa.array([b"http://h/a", b"http://h/\xff\xfe", b"http://h/c"]).view(pa.string())
    path, bad = str(tmp_path / "x.parquet"), []
    columns = {"key": keys, "image": [picture()] * 3, "url": broken, "captions": pa.array([ours] * 3, _CAPTIONS)}
    pq.write_table(pa.table(columns), path)
    assert [sample.key for sample in samples([path], on_bad=lambda *told: bad.append(told))] == ["a", "c"]
    assert bad == [(f"{path}#row 1", "a text in its row is no UTF-8")]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"\.tar or \.parquet"):
        list(samples(["x.zip"]))


def test_shards_of_an_object_store(part_table):
    store = Store("memory://read/dest")
    commit_part(store, part_table(), Planned(0), SinkConfig(format="both"))
    assert len(list(samples([store.path("shards/00000.tar"), store.path("shards/00000.parquet")]))) == 10

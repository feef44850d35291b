"""Parquet with pictures in it, as Hugging Face's data sets have them: bytes and path, bytes alone, path alone."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capfilt.errors import SourceError
from capfilt.records import Drop, row_id
from capfilt.sources import table as tables
from capfilt.sources.base import SourceConfig
from capfilt.sources.opening import open_source

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def source_of(path, **config):
    return open_source(SourceConfig(path=str(path), **config))


def read_all(source, part_rows=1000):
    return [row for part in source.parts(part_rows) for row in source.read(part).to_pylist()]


def written(tmp_path, **columns):
    path = tmp_path / "train-00000.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


@pytest.mark.parametrize("part_rows", [1000, 2, 1])
def test_bytes_are_the_picture_and_need_no_address(tmp_path, part_rows):
    image = pa.array([{"bytes": b"p%d" % n, "path": f"{n}.jpg" if n % 2 else None} for n in range(7)], IMAGE)
    source = source_of(written(tmp_path, image=image, text=[f"t {n}" for n in range(7)]))
    rows = read_all(source, part_rows)
    assert source.has_bytes
    assert [row["image"] for row in rows] == [b"p%d" % n for n in range(7)]
    assert [row["url"] for row in rows[:2]] == ["train-00000.parquet:0", "1.jpg"]
    assert rows[1]["id"] == row_id("1.jpg", "t 1")
    assert {row["drop"] for row in rows} == {None}
    assert source.describe()["used"] == {"caption": "text", "image": "image"}


@pytest.mark.skipif(os.name != "posix", reason="names of bytes are POSIX")
def test_a_table_whose_name_is_no_text_is_read(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff.parquet"))
    written(tmp_path, image=[b"p"], text=["t"]).rename(odd)
    (row,) = read_all(source_of(odd))
    assert (row["url"], row["image"]) == ("t?.parquet:0", b"p")


def test_plain_bytes_beside_an_address(tmp_path):
    path = written(tmp_path, url=["http://a", "http://b"], jpg=pa.array([b"p", None]), caption=["one", "two"])
    rows = read_all(source_of(path))
    assert [(row["url"], row["image"], row["drop"]) for row in rows] == [
        ("http://a", b"p", None),
        ("http://b", None, None),
    ]
    assert read_all(source_of(path, image_column=""))[0]["image"] is None


def test_a_path_alone_is_an_address_or_a_told_drop(tmp_path):
    paths = [{"bytes": None, "path": "a/1.jpg"}, {"bytes": None, "path": "http://h/2.jpg"}, None]
    path = written(tmp_path, image=pa.array(paths, IMAGE), caption=["one", "two", "three"])
    rows = read_all(source_of(path))
    assert [(row["url"], row["drop"]) for row in rows] == [
        ("a/1.jpg", Drop.UNREADABLE_ROW),
        ("http://h/2.jpg", None),
        (None, Drop.NO_URL),
    ]
    assert rows[0]["detail"] == "The picture's bytes are not in the table, only its path 'a/1.jpg'."
    assert read_all(source_of(path, url_base="http://h/"))[0]["url"] == "http://h/a/1.jpg"


def test_pictures_without_texts_are_a_table(tmp_path):
    rows = read_all(source_of(written(tmp_path, image=pa.array([b"p"]), label=[3])))
    assert (rows[0]["image"], rows[0]["captions"]) == (b"p", [])


def test_a_picture_over_the_limit_is_a_drop(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_IMAGE_BYTES", 4)
    rows = read_all(source_of(written(tmp_path, image=pa.array([b"12345", b"1"]))))
    assert [(row["image"], row["drop"]) for row in rows] == [(None, Drop.TOO_LARGE), (b"1", None)]


def test_a_named_column_must_hold_pictures(tmp_path):
    path = written(tmp_path, image=["http://a"], url=["http://b"], caption=["c"])
    assert not source_of(path).has_bytes
    with pytest.raises(SourceError, match="no column of pictures 'photo'"):
        source_of(path, image_column="photo").parts(10)

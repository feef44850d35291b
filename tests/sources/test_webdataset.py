"""Tars as a source: every sample once, whatever is wrong with the others."""

import gzip
import io
import json
import pickle
import tarfile

import pytest

from capfilt.errors import SourceError
from capfilt.records import Drop, row_id
from capfilt.sources.base import SourceConfig
from capfilt.sources.opening import open_source


def tar_bytes(items):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in items:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def plain(count, first=0):
    for n in range(first, first + count):
        yield f"{n:05d}.jpg", b"picture %d" % n
        yield f"{n:05d}.txt", f"text {n}\n".encode()
        yield f"{n:05d}.json", json.dumps({"url": f"http://h/{n}", "caption": "other"}).encode()


def source_of(path, **config):
    return open_source(SourceConfig(path=str(path), **config))


def read_all(source, part_rows=1000):
    return [row for part in source.parts(part_rows) for row in source.read(part).to_pylist()]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("part_rows", [1000, 4, 1])
def test_every_sample_once_in_order_however_it_is_cut(tmp_path, packed, part_rows):
    for name, first in (("a", 0), ("b", 10)):
        data = tar_bytes(plain(10, first))
        (tmp_path / f"{name}.tar{'.gz' if packed else ''}").write_bytes(gzip.compress(data) if packed else data)
    (tmp_path / "a.parquet").write_bytes(b"metadata of img2dataset")
    source = source_of(tmp_path)
    assert source.has_bytes
    rows = read_all(pickle.loads(pickle.dumps(source)), part_rows)
    assert [row["row"] for row in rows] == [*range(10), *range(10)]
    assert [row["image"] for row in rows] == [b"picture %d" % n for n in range(20)]
    assert [row["captions"][0]["text"] for row in rows] == [f"text {n}" for n in range(20)]
    assert [row["id"] for row in rows] == [row_id(f"http://h/{n}", f"text {n}") for n in range(20)]
    assert source.describe()["rows"] == 20
    assert source.describe()["bad"] == {}


def test_samples_without_a_picture_are_drops_in_their_place(tmp_path):
    items = [
        ("1.txt", b"only text"),
        ("2.png", b"p"),
        ("3.jpg", b""),
        ("3.txt", b"t"),
        ("4.jpg", b"q"),
        ("4.json", b"[]"),
    ]
    (tmp_path / "x.tar").write_bytes(tar_bytes(items))
    rows = read_all(source_of(tmp_path / "x.tar"), 2)
    assert [row["drop"] for row in rows] == [Drop.UNREADABLE_ROW, None, Drop.UNREADABLE_ROW, None]
    assert [row["url"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0]["captions"][0]["text"] == "only text"
    assert rows[1]["captions"] == rows[3]["captions"] == []


def test_a_cut_tar_gives_what_is_whole_and_is_told(tmp_path):
    whole = tar_bytes(plain(10))
    (tmp_path / "x.tar").write_bytes(whole[: len(whole) // 3])
    source = source_of(tmp_path / "x.tar")
    rows = read_all(source, 2)
    assert 2 <= len(rows) <= 5
    assert [row["image"] for row in rows[:2]] == [b"picture 0", b"picture 1"]
    assert sum(source.describe()["bad"].values()) == 1


def test_links_and_climbing_names_are_told_not_followed(tmp_path):
    link = tarfile.TarInfo("9.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for info, data in ((link, b""), (tarfile.TarInfo("../8.jpg"), b"x"), (tarfile.TarInfo("1.jpg"), b"p")):
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = source_of(tmp_path / "x.tar")
    assert [row["url"] for row in read_all(source)] == ["1"]
    assert sum(source.describe()["bad"].values()) == 2


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickles_and_nested_archives_are_never_opened_and_a_key_that_comes_again_is_another_row(tmp_path):
    trap = pickle.dumps(Trap(str(tmp_path / "sprung")))
    inner = tar_bytes([("7.jpg", b"hidden")])
    items = [
        ("1.jpg", b"p"),
        ("1.pyd", trap),
        ("1.pickle", trap),
        ("1.pth", trap),
        ("1.txt", b"one"),
        ("2.tar", inner),
        ("2.jpg", b"q"),
        ("2.tar.gz", gzip.compress(inner)),
        ("3.npz", trap),
        ("1.jpg", b"r"),
        ("1.txt", b"one again"),
    ]
    (tmp_path / "x.tar").write_bytes(tar_bytes(items))
    rows = read_all(source_of(tmp_path), 2)
    assert [(row["row"], row["url"], row["image"]) for row in rows] == [(0, "1", b"p"), (1, "2", b"q"), (2, "1", b"r")]
    assert [[caption["text"] for caption in row["captions"]] for row in rows] == [["one"], [], ["one again"]]
    assert not (tmp_path / "sprung").exists()


def test_of_our_own_shards_only_what_people_wrote_comes_back(tmp_path):
    caption = {"itm": 0.5, "itc": None, "kept": True}
    told = {
        "url": "http://a",
        "captions": [
            {"text": "as found", "origin": "web", **caption},
            {"text": "as made", "origin": "synthetic", **caption},
            {"text": "as annotated", "origin": "human", **caption},
        ],
    }
    (tmp_path / "x.tar").write_bytes(
        tar_bytes([("1.jpg", b"p"), ("1.txt", b"as made"), ("1.json", json.dumps(told).encode())])
    )
    (row,) = read_all(source_of(tmp_path))
    assert [(c["text"], c["origin"], c["itm"], c["kept"]) for c in row["captions"]] == [
        ("as found", "web", None, False),
        ("as annotated", "human", None, False),
    ]
    assert row["id"] == row_id("http://a", "as found")


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>" * 50, tar_bytes([("readme.md", b"x")])])
def test_no_samples_is_the_user_s_mistake(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(SourceError) as told:
        source_of(tmp_path / "x.tar").parts(10)
    assert "x.tar" in told.value.where


def test_a_kind_without_its_files_is_told(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"url,caption\n")
    with pytest.raises(SourceError, match="no tars"):
        source_of(tmp_path, kind="webdataset").parts(10)

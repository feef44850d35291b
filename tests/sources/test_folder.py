"""A folder of pictures: rows by path, texts beside them, and nothing from outside."""

import json
import os
import pickle

import pytest

from capfilt.errors import SourceError
from capfilt.records import Drop, row_id
from capfilt.sources.base import SourceConfig
from capfilt.sources.opening import open_source
from capfilt.storage import Store


def source_of(path, **config):
    return open_source(SourceConfig(path=str(path), **config))


def read_all(source, part_rows=1000):
    return [row for part in source.parts(part_rows) for row in source.read(part).to_pylist()]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for name, data in (
        ("b.PNG", b"b"),
        ("a/2.jpg", b"2"),
        ("a/2.txt", "\ufeff zwei \n".encode()),
        ("a/1.webp", b"1"),
        ("notes.txt", b"no"),
        (".hidden.jpg", b"h"),
        (".trash/x.jpg", b"x"),
        ("c.jpg", b"c"),
        ("c.txt", b"  "),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("part_rows", [1000, 3, 1])
def test_rows_are_pictures_by_path(pictures, part_rows):
    source = source_of(pictures)
    assert source.has_bytes
    rows = read_all(pickle.loads(pickle.dumps(source)), part_rows)
    assert [(row["row"], row["url"], row["image"]) for row in rows] == [
        (0, "a/1.webp", b"1"),
        (1, "a/2.jpg", b"2"),
        (2, "b.PNG", b"b"),
        (3, "c.jpg", b"c"),
    ]
    assert [[c["text"] for c in row["captions"]] for row in rows] == [[], ["zwei"], [], []]
    assert rows[1]["id"] == row_id("a/2.jpg", "zwei")
    assert json.loads(json.dumps(source.describe()))["rows"] == 4


def test_pictures_by_their_less_common_names_are_rows_too(tmp_path):
    """Browsers save JPEGs as .jfif; what AVIF is, decoding tells, but it must not vanish from the books."""
    for name in ("a.jfif", "b.JPE", "c.avif", "d.svg"):
        (tmp_path / name).write_bytes(b"x")
    assert [row["url"] for row in read_all(source_of(tmp_path))] == ["a.jfif", "b.JPE", "c.avif"]


def test_links_out_of_the_folder_are_refused_and_counted(pictures, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.jpg").write_bytes(b"secret")
    (pictures / "d.jpg").symlink_to(tmp_path / "secret.jpg")
    (pictures / "b.txt").symlink_to(tmp_path / "secret.txt")
    (pictures / "e").symlink_to(tmp_path / "outside")
    (pictures / "inside.jpg").symlink_to(pictures / "c.jpg")
    (pictures / "nowhere.jpg").symlink_to(tmp_path / "none")
    source = source_of(pictures)
    rows = read_all(source)
    assert [row["url"] for row in rows] == ["a/1.webp", "a/2.jpg", "b.PNG", "c.jpg", "inside.jpg"]
    assert b"secret" not in [row["image"] for row in rows]
    assert rows[2]["captions"] == []
    assert source.describe()["refused_links"] == 3


def test_digests_follow_content_and_not_place(pictures, tmp_path):
    digest = lambda: [part.digest for part in source_of(pictures).parts(2)]  # noqa: E731
    first = digest()
    pictures.rename(tmp_path / "moved")
    pictures = tmp_path / "moved"
    assert digest() == first
    (pictures / "a" / "2.txt").write_bytes(b"another")
    assert digest()[0] != first[0]
    assert digest()[1] == first[1]


def test_a_relative_folder_is_read_from_anywhere(pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    source = source_of("pictures")
    parts = source.parts(10)
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(source)).read(parts[0]).num_rows == 4


def test_a_picture_that_went_away_is_a_drop(pictures):
    source = source_of(pictures)
    parts = source.parts(10)
    (pictures / "b.PNG").unlink()
    rows = source.read(parts[0]).to_pylist()
    assert [row["drop"] for row in rows] == [None, None, Drop.UNREADABLE_ROW, None]
    assert "no such file" in rows[2]["detail"]


@pytest.mark.skipif(os.name != "posix", reason="names of bytes are POSIX")
def test_names_that_are_no_text_are_read(pictures):
    with open(os.fsencode(pictures) + b"/\xff.jpg", "wb") as file:  # noqa: PTH123
        file.write(b"odd")
    rows = read_all(source_of(pictures))
    assert rows[-1]["image"] == b"odd"
    assert rows[-1]["url"] == "?.jpg"


def test_no_pictures_is_the_user_s_mistake(tmp_path):
    with pytest.raises(SourceError, match="no files"):
        source_of(tmp_path)
    (tmp_path / "x.doc").write_bytes(b"")
    with pytest.raises(SourceError, match="no pictures"):
        source_of(tmp_path)
    with pytest.raises(SourceError, match="no pictures"):
        source_of(tmp_path, kind="folder").parts(10)
    with pytest.raises(SourceError, match="no folder"):
        source_of(tmp_path / "x.doc", kind="folder").parts(10)


def test_pictures_of_an_object_store():
    store = Store("memory://folder/in")
    store.write("deep/1.jpg", b"1")
    store.write("deep/1.txt", b"one")
    (row,) = read_all(source_of(store.url))
    assert (row["url"], row["image"], row["captions"][0]["text"]) == ("deep/1.jpg", b"1", "one")


def test_auto_tells_by_what_there_is_most_of(pictures):
    (pictures / "about.csv").write_bytes(b"url,caption\n")
    assert source_of(pictures).describe()["kind"] == "folder"
    for name in "123456":
        (pictures / f"{name}.csv").write_bytes(b"url,caption\nu,c\n")
    assert source_of(pictures).describe()["kind"] == "table"

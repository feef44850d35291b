"""Annotation files of the field, in the layouts they are published in, and our shards."""

from __future__ import annotations

import json
import os
import random
import struct
import zlib
from pathlib import Path

import pytest

from capfilt.errors import DataError, SourceError
from capfilt.evaluate.references import decode, read
from tests.conftest import shape_picture

COCO = {
    "info": {},
    "images": [
        {"id": 7, "file_name": "val/a.png", "height": 32},
        {"id": 8, "file_name": "val/b.png"},
        {"id": 9, "file_name": "c"},
    ],
    "annotations": [
        {"image_id": 8, "id": 1, "caption": "a blue square"},
        {"image_id": 7, "id": 2, "caption": "a red circle"},
        {"image_id": 8, "id": 3, "caption": "a square"},
    ],
}
KARPATHY = {
    "dataset": "coco",
    "images": [
        {"filepath": "val", "filename": "a.png", "cocoid": 7, "split": "test", "sentences": [{"raw": "a red circle"}]},
        {
            "filepath": "val",
            "filename": "b.png",
            "cocoid": 8,
            "split": "train",
            "sentences": [{"raw": "a blue square"}],
        },
    ],
}
FLICKR = {
    "dataset": "flickr30k",
    "images": [{"filename": "a.png", "imgid": 0, "split": "test", "sentences": [{"raw": "x"}]}],
}
BLIP_TRAIN = [
    {"image": "val/a.png", "caption": "a red circle", "image_id": "coco_7"},
    {"image": "val/b.png", "caption": "a blue square"},
    {"image": "val/a.png", "caption": "a circle"},
]
BLIP_TEST = [{"image": "val/a.png", "caption": ["a red circle", "a circle"]}, {"image": "val/b.png", "caption": []}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "val").mkdir()
    for name, colour in (("val/a.png", "red"), ("val/b.png", "blue"), ("a.png", "red")):
        (tmp_path / name).write_bytes(shape_picture(colour, "circle", random.Random(0)))
    return tmp_path


def written(folder: Path, data: object) -> str:
    file = folder / "annotations.json"
    file.write_text(json.dumps(data))
    return str(file)


@pytest.mark.parametrize(
    ("data", "split", "wanted"),
    [
        (COCO, None, [("7", ("a red circle",)), ("8", ("a blue square", "a square"))]),
        (KARPATHY, "test", [("7", ("a red circle",))]),
        (KARPATHY, None, [("7", ("a red circle",)), ("8", ("a blue square",))]),
        (FLICKR, "test", [("0", ("x",))]),
        (BLIP_TRAIN, None, [("val/a.png", ("a red circle", "a circle")), ("val/b.png", ("a blue square",))]),
        (BLIP_TEST, None, [("val/a.png", ("a red circle", "a circle"))]),
    ],
)
def test_each_layout_gives_its_pictures_and_texts(folder: Path, data: object, split: str | None, wanted: list) -> None:
    items = list(read([written(folder, data)], split=split))
    assert [(item.key, item.texts) for item in items] == wanted
    assert all(decode(item).size == (32, 32) for item in items)


def test_pictures_may_lie_in_another_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("annotations")
    file = written(elsewhere, BLIP_TEST)
    assert decode(next(read([file], images=str(folder)))).size == (32, 32)
    with pytest.raises(SourceError, match="the picture is not there"):
        decode(next(read([file])))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"images": [{"id": 1}], "annotations": [{"image_id": 1}]}, "no known kind: KeyError"),
        ({"images": 3}, "no known kind"),
        ([1, 2], "no known kind"),
        ("text", "no known kind"),
        ([], "no picture with a text"),
        ([{"image": "../../etc/passwd", "caption": "x"}], "leads out of its folder"),
        ([{"image": "/etc/passwd", "caption": "x"}], "leads out of its folder"),
        ([{"image": "val/a.png", "caption": None}], "no known kind: TypeError a caption is None"),
        ([{"image": "val/a.png", "caption": ["x", {"y": 1}]}], "no known kind"),
        (KARPATHY | {"images": []}, "no picture with a text"),
    ],
)
def test_another_layout_is_refused(folder: Path, data: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(read([written(folder, data)]))


def test_what_is_no_json_and_what_is_no_picture_is_said(folder: Path) -> None:
    (folder / "annotations.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        list(read([str(folder / "annotations.json")]))
    (folder / "val" / "a.png").write_text("no picture")
    with pytest.raises(DataError, match="cannot be decoded"):
        decode(next(read([written(folder, BLIP_TEST)])))


def test_a_split_is_asked_of_what_has_splits(folder: Path) -> None:
    for data in (COCO, BLIP_TEST):
        with pytest.raises(DataError, match="have no splits"):
            list(read([written(folder, data)], split="test"))


def test_a_picture_that_would_take_all_memory_or_is_no_file_is_refused(folder: Path) -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (folder / "val" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(DataError, match="cannot be decoded"):
        decode(next(read([written(folder, BLIP_TEST)])))
    (folder / "val" / "a.png").unlink()
    os.mkfifo(folder / "val" / "a.png")
    with pytest.raises(SourceError, match="is no file"):
        decode(next(read([written(folder, BLIP_TEST)])))


def test_shards_give_what_was_kept(shape_shard: Path) -> None:
    items = list(read([str(shape_shard)]))
    assert len(items) == 512
    assert all(len(item.texts) == 1 and item.texts[0].endswith("on white") for item in items)
    with pytest.raises(SourceError):
        list(read([str(shape_shard.parent / "none")]))

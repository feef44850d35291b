"""Annotated pictures as a source: one row a picture with all its texts, from a folder, a store or the web."""

import json
import pickle

import pytest

from capfilt.errors import CapfiltError, DataError, SourceError
from capfilt.records import Drop, row_id
from capfilt.sources.base import SourceConfig
from capfilt.sources.opening import open_source, told
from capfilt.storage import Store

COCO = {
    "info": {"year": 2014},
    "images": [
        {"id": 7, "file_name": "a.jpg", "coco_url": "http://coco/val/a.jpg", "flickr_url": "http://flickr/a"},
        {"id": 8, "file_name": "b.jpg", "coco_url": "http://coco/val/b.jpg"},
        {"id": 9, "file_name": "c.jpg", "flickr_url": "http://flickr/c"},
    ],
    "licenses": [],
    "annotations": [
        {"image_id": 8, "id": 1, "caption": "a blue square"},
        {"image_id": 7, "id": 2, "caption": "a red circle\n"},
        {"image_id": 8, "id": 3, "caption": "a square"},
    ],
}
NOCAPS = {
    "images": [{"id": 0, "open_images_id": "0013ea", "file_name": "0013ea.jpg", "coco_url": "https://s3/0013ea.jpg"}],
    "annotations": [{"image_id": 0, "id": 0, "caption": "a baby"}, {"image_id": 0, "id": 1, "caption": "one baby"}],
}
KARPATHY = {
    "dataset": "coco",
    "images": [
        {"filepath": "val2014", "filename": f"{name}.jpg", "cocoid": at, "split": split, "sentences": [{"raw": text}]}
        for at, (name, split, text) in enumerate([("a", "test", "one"), ("b", "train", "two"), ("c", "restval", "é")])
    ],
}
FLICKR = {"dataset": "flickr30k", "images": [{"filename": "a.jpg", "imgid": 0, "split": "test", "sentences": []}]}
VG = [
    {"id": 1, "regions": [{"region_id": 3, "phrase": "a clock"}, {"phrase": "a tree"}, {"phrase": "a clock"}]},
    {"id": 2, "regions": [{"phrase": "red shirt"}]},
]
VG_IMAGES = [
    {"image_id": 1, "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg", "width": 800},
    {"image_id": 2, "url": "https://cs.stanford.edu/people/rak248/VG_100K/2.jpg"},
]
BLIP = [
    {"image": "a.jpg", "caption": "one", "image_id": "coco_7"},
    {"image": "http://h/b.jpg", "caption": "two"},
    {"image": "a.jpg", "caption": "three"},
]


def source_of(path, **config):
    return open_source(SourceConfig(path=str(path), **config))


def read_all(source, part_rows=1000):
    return [row for part in source.parts(part_rows) for row in source.read(part).to_pylist()]


def written(folder, data, name="annotations.json"):
    (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return folder / name


def said(rows):
    return [(row["source_key"], row["url"], [caption["text"] for caption in row["captions"]]) for row in rows]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for name in ("a.jpg", "b.jpg", "val2014/a.jpg", "VG_100K_2/1.jpg", "1.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (
            COCO,
            [
                ("7", "http://coco/val/a.jpg", ["a red circle\n"]),
                ("8", "http://coco/val/b.jpg", ["a blue square", "a square"]),
                ("9", "http://flickr/c", []),
            ],
        ),
        (NOCAPS, [("0", "https://s3/0013ea.jpg", ["a baby", "one baby"])]),
    ],
)
@pytest.mark.parametrize("part_rows", [1000, 2, 1])
def test_without_a_folder_the_publishers_addresses_are_fetched(tmp_path, data, wanted, part_rows):
    source = source_of(written(tmp_path, data))
    rows = read_all(pickle.loads(pickle.dumps(source)), part_rows)
    assert said(rows) == wanted
    assert {(row["image"], row["drop"]) for row in rows} == {(None, None)}
    assert not source.has_bytes
    assert source.describe()["kind"] == "annotations"


def test_with_a_folder_its_files_are_read_and_ids_stay(tmp_path, pictures):
    file = written(tmp_path, COCO)
    rows = read_all(source_of(file, images=str(pictures), origin="human"), 2)
    assert [(row["url"], row["image"], row["drop"]) for row in rows] == [
        ("a.jpg", b"a.jpg", None),
        ("b.jpg", b"b.jpg", None),
        (None, None, Drop.UNREADABLE_ROW),
    ]
    assert rows[2]["detail"] == "The picture: there is no such file."
    assert rows[0]["captions"][0]["origin"] == "human"
    assert [row["id"] for row in rows[:2]] == [row["id"] for row in read_all(source_of(file))[:2]]
    assert rows[1]["id"] == row_id("b.jpg", "a blue square")
    assert source_of(file, images=str(pictures)).has_bytes


def test_a_prefix_of_addresses_may_stand_for_the_folder(tmp_path):
    rows = read_all(source_of(written(tmp_path, COCO), images="http://mirror/coco/"))
    assert [row["url"] for row in rows] == [f"http://mirror/coco/{name}.jpg" for name in "abc"]


def test_karpathys_pictures_lie_beside_and_are_chosen_by_split(pictures):
    file = written(pictures, KARPATHY)
    assert said(read_all(source_of(file)))[0] == ("0", "val2014/a.jpg", ["one"])
    assert read_all(source_of(file))[0]["image"] == b"val2014/a.jpg"
    chosen = read_all(source_of(file, splits=("train", "restval")), 1)
    assert [row["source_key"] for row in chosen] == ["1", "2"]
    with pytest.raises(SourceError, match="name no picture"):
        source_of(file, splits=("dev",)).parts(10)
    with pytest.raises(DataError, match="have no splits"):
        source_of(written(pictures, COCO), splits=("train",)).parts(10)


def test_flickr30k_is_told(pictures):
    assert said(read_all(source_of(written(pictures, FLICKR)))) == [("0", "a.jpg", [])]


def test_regions_take_their_addresses_from_the_list_beside(tmp_path, pictures):
    written(tmp_path, VG, "region_descriptions.json")
    written(tmp_path, VG_IMAGES, "image_data.json")
    (tmp_path / "vg").mkdir()
    for name in ("region_descriptions.json", "image_data.json"):
        (tmp_path / name).rename(tmp_path / "vg" / name)
    source = source_of(tmp_path / "vg")
    assert said(read_all(source, 1)) == [
        ("1", VG_IMAGES[0]["url"], ["a clock", "a tree"]),
        ("2", VG_IMAGES[1]["url"], ["red shirt"]),
    ]
    local = read_all(source_of(tmp_path / "vg" / "region_descriptions.json", images=str(pictures)))
    assert local[0]["image"] == b"VG_100K_2/1.jpg"
    assert local[1]["drop"] == Drop.UNREADABLE_ROW
    (tmp_path / "vg" / "image_data.json").unlink()
    alone = read_all(source_of(tmp_path / "vg", images=str(pictures)))
    assert (alone[0]["image"], alone[0]["url"]) == (b"1.jpg", "1.jpg")


def test_several_entries_of_one_picture_are_one_row(pictures):
    rows = read_all(source_of(written(pictures, BLIP)), 1)
    assert said(rows) == [("a.jpg", "a.jpg", ["one", "three"]), ("http://h/b.jpg", "http://h/b.jpg", ["two"])]
    assert [row["image"] for row in rows] == [b"a.jpg", None]


def test_names_and_links_that_lead_out_are_drops(tmp_path, pictures):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (pictures / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (pictures / "folder.jpg").mkdir()
    names = ["../secret.jpg", str(tmp_path / "secret.jpg"), "link.jpg", "folder.jpg", "a.jpg"]
    rows = read_all(source_of(written(pictures, [{"image": name, "caption": "x"} for name in names])))
    assert [row["drop"] for row in rows] == [Drop.UNREADABLE_ROW] * 4 + [None]
    assert ["leads out" in row["detail"] for row in rows[:3]] == [True] * 3
    assert len({row["id"] for row in rows}) == 5


@pytest.mark.parametrize(
    "data",
    [{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": []}]}, [{"regions": []}], [3]],
)
def test_what_is_no_captions_is_told_with_the_mend(tmp_path, data):
    with pytest.raises(CapfiltError) as told:
        source_of(written(tmp_path, data), kind="annotations").parts(10)
    assert "Visual Genome" in told.value.mend


def test_annotations_and_pictures_of_an_object_store():
    store = Store("memory://annotated")
    store.write("coco.json", json.dumps(BLIP[:1]).encode())
    store.write("pictures/a.jpg", b"a")
    assert told(store.path("coco.json")).kind == "annotations"
    (row,) = read_all(source_of(store.path("coco.json"), images=store.path("pictures")))
    assert (row["image"], row["source_key"]) == (b"a", "a.jpg")


def test_half_a_character_in_a_caption_costs_that_character(pictures):
    (pictures / "captions.json").write_text('[{"image": "a.jpg", "caption": "bad \\ud83d emoji"}]')
    assert said(read_all(source_of(pictures / "captions.json", kind="annotations")))[0][2] == ["bad ? emoji"]

"""The end of a part: rows without a kept caption are drops, the rest is committed, pictures stay behind."""

import io
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from capfilt import records
from capfilt.errors import DataError
from capfilt.images import ImageLimits, normalise
from capfilt.records import SCHEMA, Drop, Tally
from capfilt.shards.commit import SinkConfig, committed
from capfilt.shards.read import samples
from capfilt.sources.parts import cut
from capfilt.stages.base import Stage
from capfilt.stages.sink import WriteShards
from capfilt.storage import Store


def picture(kind="JPEG"):
    file = io.BytesIO()
    Image.effect_mandelbrot((80, 60), (-2, -1, 1, 1), 50).convert("RGB").save(file, kind)
    return normalise(file.getvalue(), ImageLimits())


def caption(text, kept, itm=0.25, origin="web"):
    return {"text": text, "origin": origin, "itm": itm, "itc": None, "kept": kept}


def row(number, captions=(), drop=None, kind="JPEG"):
    shot = picture(kind)
    return {
        "id": records.row_id(f"u{number}", "t"),
        "part": 4,
        "row": number,
        "url": f"u{number}",
        "captions": list(captions),
        "drop": drop,
        "detail": "gone" if drop else None,
        "image": shot.data,
        "width": shot.width,
        "height": shot.height,
        "sha256": shot.sha256,
    }


@pytest.fixture
def table():
    return records.table_of(
        [
            row(0, [caption("bad", False), caption("good", True, 0.75, "synthetic")]),
            row(1, [caption("bad", False), caption("worse", False, 0.125)]),
            row(2, [caption("unscored", False, None)]),
            row(3, []),
            row(4, [caption("x", False, None)], drop=str(Drop.UNREACHABLE)),
            row(5, [caption("fine", True)], kind="PNG"),
        ]
    )


def stage_of(tmp_path, **sink):
    return WriteShards(dest=str(tmp_path / "dest"), sink=SinkConfig(**sink), parts=cut([("table", 5, "digest")], 1))


def test_it_is_a_stage(tmp_path):
    stage = stage_of(tmp_path)
    assert isinstance(stage, Stage)
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert 0 < stage.needs.cpus < 1


def test_rows_go_on_without_pictures_and_the_part_is_committed(tmp_path, table):
    out = stage_of(tmp_path).open()(table)
    assert out.schema == SCHEMA
    assert out.column("image").null_count == 6
    unkept = Drop.NO_CAPTION_KEPT
    assert out.column("drop").to_pylist() == [None, unkept, unkept, unkept, Drop.UNREACHABLE, None]
    assert out.column("detail").to_pylist() == [
        None,
        "None of its 2 captions was kept; the best match was 0.25.",
        "Its caption was not kept.",
        "The picture has no caption.",
        "gone",
        None,
    ]
    (marker,) = committed(Store(str(tmp_path / "dest"))).values()
    assert (marker.part, marker.digest) == (4, cut([("table", 5, "digest")], 1)[4].digest)
    assert marker.tally == Tally.of(out)
    assert marker.tally.balanced


def test_the_score_that_decided_is_told(tmp_path, table):
    stage = replace(stage_of(tmp_path), judge_by="itc")
    captions = [[caption | {"itc": 0.1} for caption in texts] for texts in table.column("captions").to_pylist()]
    told = stage.open()(records.replace(table, {"captions": captions})).column("detail").to_pylist()
    assert told[1:3] == [
        "None of its 2 captions was kept; the best cosine was 0.10.",
        "Its caption was not kept; the best cosine was 0.10.",
    ]


def test_again_is_the_same_bytes(tmp_path, table):
    read = lambda: {str(p): p.read_bytes() for p in Path(tmp_path, "dest").rglob("*") if p.is_file()}  # noqa: E731
    stage_of(tmp_path, format="both").open()(table)
    first = read()
    stage_of(tmp_path, format="both").open()(table)
    assert read() == first
    assert len(first) == 4


@pytest.mark.parametrize(("images", "magic"), [("jpeg", b"\xff\xd8\xff"), ("as_is", b"\x89PNG")])
def test_pictures_are_of_one_kind_unless_asked_otherwise(tmp_path, table, images, magic):
    stage_of(tmp_path, images=images).open()(table)
    first, second = samples([str(tmp_path / "dest/shards/00004.tar")])
    assert first.image == picture().data
    assert second.image.startswith(magic)
    assert Image.open(io.BytesIO(second.image)).size == (80, 60) == (second.meta["width"], second.meta["height"])


def test_rows_of_no_planned_part_are_refused(tmp_path, table):
    stage = WriteShards(dest=str(tmp_path), parts=cut([("table", 4, "digest")], 1))
    with pytest.raises(DataError, match="one planned part"):
        stage.open()(table)

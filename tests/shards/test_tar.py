"""Our tars: the same bytes each time, and readable by WebDataset and by us."""

import io
import json
import tarfile

import pytest
from PIL import Image

from capfilt.errors import DataError
from capfilt.records import Caption
from capfilt.shards.read import samples
from capfilt.shards.sample import Sample, best_caption, key_of
from capfilt.shards.tar import write_tar


def picture(colour="red", kind="JPEG", size=(40, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def caption(text, itm=None, kept=True, origin="web"):
    return Caption(text=text, origin=origin, itm=itm, itc=None, kept=kept)


def sample(row, *captions, kind="JPEG"):
    image = picture(kind=kind)
    meta = {"id": f"{row:032x}", "url": f"http://h/{row}", "width": 40, "height": 30, "sha256": "00"}
    return Sample(key_of(3, row), image, list(captions), meta)


def test_same_samples_same_bytes_and_nobody_s_name_in_them():
    given = [sample(0, caption("a"), kind="PNG"), sample(1, caption("é"), kind="WEBP")]
    first, second = io.BytesIO(), io.BytesIO()
    assert write_tar(first, given) == write_tar(second, given) == 2
    assert first.getvalue() == second.getvalue()
    with tarfile.open(fileobj=io.BytesIO(first.getvalue())) as tar:
        infos = tar.getmembers()
    assert [i.name for i in infos] == [
        f"00003-000000{r}.{e}" for r, k in ((0, "png"), (1, "webp")) for e in (k, "txt", "json")
    ]
    assert {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in infos} == {(0, 0, 0, "", "", 0o644)}


def test_what_goes_in_comes_out(tmp_path):
    given = [
        sample(7, caption("web", 0.25, kept=False), caption("made", 0.75, origin="synthetic")),
        sample(8, caption("only", 1.0), kind="PNG"),
    ]
    path = tmp_path / "00003.tar"
    with path.open("wb") as file:
        write_tar(file, given)
    assert list(samples([str(path)])) == given


def test_txt_is_the_best_kept_caption_and_json_has_all():
    file = io.BytesIO()
    many = [caption("no", 0.9, kept=False), caption("tie a", 0.6), caption("tie b", 0.6), caption("unscored")]
    write_tar(file, [sample(1, *many)])
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        assert tar.extractfile("00003-0000001.txt").read() == b"tie a"
        told = json.loads(tar.extractfile("00003-0000001.json").read())
    assert told["captions"] == many
    assert told["id"] == f"{1:032x}"


def test_best_caption_of_none_kept_is_none():
    assert best_caption([caption("x", 0.9, kept=False)]) is None


def test_keys_do_not_meet_at_any_width():
    assert key_of(10000, 10_000_001) != key_of(100001, 1)
    assert "." not in key_of(5, 5)


@pytest.mark.parametrize(
    ("key", "image"), [("a.b", picture()), ("../x", picture()), ("", picture()), ("ok", b"GIF89a")]
)
def test_what_would_break_a_reader_is_refused(key, image):
    with pytest.raises(DataError):
        write_tar(io.BytesIO(), [Sample(key, image, [caption("a")], {})])

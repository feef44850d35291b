"""What is told of a source before anything is done: true figures, estimates that say so, problems with mends."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capfilt.sources import sizes
from capfilt.sources.base import SourceConfig
from capfilt.sources.inspect import inspect

WRITTEN = Path(__file__).parent / "img2dataset"


def looked(path, *, part_rows=1000, **config):
    return inspect(SourceConfig(path=str(path), **config), part_rows=part_rows)


def said(found):
    return " ".join(problem.what for problem in found.problems)


def table(path, urls, captions):
    pq.write_table(pa.table({"URL": urls, "TEXT": captions, "similarity": [0.3] * len(urls)}), path)
    return path


def test_a_table_is_told_with_its_columns_hosts_and_figures(tmp_path):
    urls = [f"http://{'a' if n % 4 else 'b'}.org/{n}.jpg" for n in range(98)] + ["http://a.org/1.jpg", None]
    table(tmp_path / "1.parquet", urls, [f"text {n}" for n in range(99)] + [""])
    table(tmp_path / "2.parquet", urls[:1], ["x"])
    found = looked(tmp_path, part_rows=60)
    assert (found.kind, found.files, found.rows, found.exact, found.parts) == ("table", 2, 101, True, 3)
    assert found.columns == ("URL", "TEXT", "similarity")
    assert found.used == {"url": "URL", "caption": "TEXT"}
    assert found.looked_at == 101
    assert (found.without_url, found.without_caption) == (1 / 101, 1 / 101)
    assert (found.repeated_urls, found.repeated_captions) == (2, 0)
    assert found.hosts == {"a.org": 74, "b.org": 26}
    assert found.median_caption == 7
    assert not found.carries
    assert found.sample[0].texts == ("text 0",)
    assert found.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert json.loads(json.dumps(found.to_json()))["rows"] == 101
    assert said(found).startswith("73% of the rows are of one host, a.org")


def test_only_a_sample_is_read(tmp_path):
    table(tmp_path / "x.parquet", [f"http://h{n}.org/" for n in range(5000)], ["a"] * 5000)
    found = looked(tmp_path)
    assert (found.rows, found.looked_at, len(found.sample)) == (5000, 1000, 5)


@pytest.mark.parametrize(("name", "exact"), [("x.jsonl", False), ("x.jsonl.gz", None)])
def test_what_is_large_is_estimated_and_what_is_packed_is_unknown(tmp_path, monkeypatch, name, exact):
    monkeypatch.setattr(sizes, "_COUNTED_BYTES", 1000)
    data = b"".join(b'{"url": "http://h/%04d", "caption": "c"}\n' % n for n in range(3000))
    (tmp_path / name).write_bytes(gzip.compress(data) if exact is None else data)
    found = looked(tmp_path / name)
    assert (found.rows, found.exact) == (None if exact is None else 3000, False)
    assert found.parts == (None if exact is None else 3)


def test_many_footers_tell_for_more(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "_FOOTERS", 3)
    for n in range(7):
        table(tmp_path / f"{n}.parquet", ["http://h/"] * 10, ["c"] * 10)
    found = looked(tmp_path)
    assert (found.rows, found.exact) == (70, False)


@pytest.mark.parametrize(
    ("urls", "captions", "wanted"),
    [
        (["a/1.jpg"], ["x"], "no scheme, as 'a/1.jpg'"),
        (["http://127.0.0.1:80/a"], ["x"], "private address (127.0.0.1)"),
        ([f"http://h{n}/" for n in range(30)], ["IMG_0042.jpg", "DSC 17"] * 15, "100% of the captions look like file"),
        ([f"http://h{n}/" for n in range(30)], [None] * 30, "100% of the rows have no caption"),
        (["http://h/"] * 30, ["x"] * 30, "97% of the addresses stood before"),
    ],
)
def test_likely_problems_are_told_with_their_mend(tmp_path, urls, captions, wanted):
    path = table(tmp_path / "x.parquet", urls, pa.array(captions, pa.string()))
    found = looked(path)
    assert wanted in said(found)
    assert all(problem.mend.endswith(".") for problem in found.problems)


def test_a_good_table_has_no_problems(tmp_path):
    path = table(tmp_path / "x.parquet", [f"http://h{n}.org/" for n in range(50)], [f"a dog {n}" for n in range(50)])
    assert looked(path).problems == ()


def test_img2dataset_is_told_and_its_tars_alone_are_doubted():
    found = looked(WRITTEN / "webdataset")
    assert (found.kind, found.rows, found.carries, found.files) == ("img2dataset", 12, True, 2)
    assert found.dropped == {
        "unreachable": 2,
        "http_status": 1,
        "timed_out": 1,
        "not_an_image": 1,
        "opted_out": 1,
        "too_small": 1,
        "no_url": 1,
    }
    assert "failed on 67%" in said(found)
    assert found.sample[0].bytes == 647
    assert "tables lie beside them" in said(looked(WRITTEN / "webdataset" / "*.tar"))
    assert "without its pictures" in said(looked(WRITTEN / "webdataset" / "*.parquet"))


def test_annotations_without_their_pictures_are_told(tmp_path):
    images = [{"filename": "a.jpg", "imgid": 0, "split": "test", "sentences": [{"raw": "x"}]}]
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    found = looked(file)
    assert (found.kind, found.rows) == ("annotations", 1)
    for problem in ("1 of 1 pictures are not where", "taken for scraped ones", "has splits"):
        assert problem in said(found)
    (tmp_path / "a.jpg").write_bytes(b"a")
    assert looked(file, origin="human", splits=("test",)).problems == ()


def test_a_folder_of_pictures_with_a_table_in_it_is_told(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(b"p")
        (tmp_path / f"{name}.txt").write_text(f"a {name}")
    assert looked(tmp_path).problems == ()
    (tmp_path / "pairs.csv").write_text("url,caption\n")
    found = looked(tmp_path)
    assert (found.kind, found.files, found.rows, found.without_caption) == ("folder", 3, 3, 0)
    assert said(found) == "pairs.csv lies in the folder of pictures and is not read."

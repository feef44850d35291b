"""Corpora as their publishers wrote them: no header, quotes that close nowhere, lists side by side, own keys."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capfilt.errors import SourceError
from capfilt.records import Drop
from capfilt.sources.base import SourceConfig
from capfilt.sources.opening import open_source, told
from capfilt.storage import Store

CC3M = 'a "dog\thttp://a/1.jpg\n"a cat\thttp://a/2.jpg\nno tab\ntwo, "words"\thttps://a/3.jpg\n'
CC12M = 'http://a/1.jpg\ta "dog\nhttp://a/2.jpg\t"a cat\nno tab\nhttps://a/3.jpg\ttwo, "words"\n'
SBU = {
    "image_urls": ["http://a/1.jpg", "http://a/2.jpg", "http://a/3.jpg"],
    "user_names": ["x", "y", "z"],
    "captions": ['a "dog', '"a cat', "é ☂"],
}
PAIRS = [("http://a/1.jpg", 'a "dog'), ("http://a/2.jpg", '"a cat'), ("http://a/3.jpg", "é ☂")]


def source_of(path, **config):
    return open_source(SourceConfig(path=str(path), **config))


def read_all(source, part_rows=1000):
    return [row for part in source.parts(part_rows) for row in source.read(part).to_pylist()]


def pairs(rows):
    return [(row["url"], [caption["text"] for caption in row["captions"]]) for row in rows]


@pytest.mark.parametrize("part_rows", [1000, 1])
@pytest.mark.parametrize(("name", "text"), [("Train_GCC-training.tsv", CC3M), ("cc12m.tsv", CC12M)])
def test_a_table_without_a_header_is_told_by_its_content(tmp_path, name, text, part_rows):
    (tmp_path / name).write_text(text)
    source = source_of(tmp_path / name)
    rows = read_all(source, part_rows)
    assert pairs(rows[:2]) == [("http://a/1.jpg", ['a "dog']), ("http://a/2.jpg", ['"a cat'])]
    assert (rows[2]["drop"], rows[2]["detail"]) == (Drop.UNREADABLE_ROW, "The row has 1 fields, the first 2.")
    assert pairs(rows[3:]) == [("https://a/3.jpg", ['two, "words"'])]
    assert source.describe()["used"] == {"url": "url", "caption": "caption"}


def test_more_columns_than_two_are_told_by_their_words(tmp_path):
    (tmp_path / "x.csv").write_text('1,http://page/1,http://a/1.jpg,"a dog, here"\n2,none,http://a/2.jpg,a cat\n')
    source = source_of(tmp_path / "x.csv")
    assert pairs(read_all(source)) == [("http://a/1.jpg", ["a dog, here"]), ("http://a/2.jpg", ["a cat"])]
    assert source.describe()["columns"] == ["column_1", "column_2", "url", "caption"]
    assert pairs(read_all(source_of(tmp_path / "x.csv", url_column="column_2")))[0][0] == "http://page/1"


def test_a_header_before_quoted_cells_of_a_tsv_is_a_header_still(tmp_path):
    (tmp_path / "x.tsv").write_text('url\tcaption\nhttp://a\t"one\ttwo"\n')
    assert pairs(read_all(source_of(tmp_path / "x.tsv"))) == [("http://a", ["one\ttwo"])]


DOCUMENTS = {
    "sbu": json.dumps(SBU, ensure_ascii=False),
    "blip": json.dumps([{"url": url, "caption": text} for url, text in PAIRS], indent=1),
    "redcaps": json.dumps(
        {"info": {"a": [1, 2]}, "annotations": [{"image_id": "k", "url": url, "caption": text} for url, text in PAIRS]}
    ),
    "lines": "\n".join(json.dumps({"url": url, "caption": text}) for url, text in PAIRS),
}


@pytest.mark.parametrize("part_rows", [1000, 2, 1])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_documents_are_tables(tmp_path, name, part_rows):
    (tmp_path / "x.json").write_text(DOCUMENTS[name], encoding="utf-8")
    source = source_of(tmp_path)
    rows = read_all(source, part_rows)
    assert pairs(rows) == [(url, [text]) for url, text in PAIRS]
    assert {row["source_key"] for row in rows} == ({"k"} if name == "redcaps" else {None})
    assert source.describe()["rows"] == 3
    assert not source.has_bytes


def test_json_lines_whose_cells_are_lists_are_no_lists_side_by_side(tmp_path):
    lines = [{"url": url, "caption": [text], "tags": ["t"]} for url, text in PAIRS]
    for count in (3, 1):
        (tmp_path / "x.json").write_text("\n".join(map(json.dumps, lines[:count])))
        assert pairs(read_all(source_of(tmp_path))) == [(url, [text]) for url, text in PAIRS[:count]]
    (tmp_path / "x.json").write_text('{"urls": ["u"], "captions": ["a"]}\n' * 2)
    assert [row["drop"] for row in read_all(source_of(tmp_path))] == [Drop.UNREADABLE_ROW] * 2


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_byte_order_mark_is_no_part_of_a_document(tmp_path, name):
    (tmp_path / "x.json").write_text(DOCUMENTS[name], encoding="utf-8-sig")
    assert pairs(read_all(source_of(tmp_path), 2)) == [(url, [text]) for url, text in PAIRS]


def test_a_long_list_is_read_from_marks(tmp_path):
    rows = [{"url": f"http://h/{n}", "caption": f"{n} é" + "x" * 200} for n in range(40_000)]
    (tmp_path / "x.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    source = source_of(tmp_path / "x.json")
    last = source.parts(1000)[-1]
    assert len(source._counted[0].marks) == 3
    assert pairs(source.read(last).to_pylist()) == [(row["url"], [row["caption"]]) for row in rows[last.start :]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps([{"url": "u", "caption": "c"}] * 3)[:-9], "not readable as JSON"),
        (json.dumps(SBU | {"captions": ["one"]}), "unequal lengths: image_urls 3, user_names 3, captions 1"),
        ("3", "no known kind"),
        ('{"version": 1}', "no column 'url'"),
        ('{"versions":\n [1]}', "no known kind"),
        ("{broken", "not readable as JSON"),
        ("[" * 200_000, "nested too deeply"),
        ('[{"page": "p", "caption": "c"}]', "no column 'url'"),
        ("[]", "no column"),
        (json.dumps(SBU) + " x", "second document begins at byte"),
        (json.dumps([{"url": "u", "caption": "c"}]) * 2, "second document begins at byte 30"),
        (DOCUMENTS["redcaps"] * 2, "second document begins at byte"),
        ('[{"url": "u", "caption": "c"}{"url": "v"}]', "after a value there is '{'"),
        ('[{"url": "u", "caption": "c"}]]', "second document begins"),
    ],
)
def test_what_is_no_table_of_json_is_told(tmp_path, text, said):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SourceError, match=said) as told:
        source_of(tmp_path / "x.json").parts(10)
    assert told.value.mend


def test_elements_that_are_no_objects_are_drops_in_their_place(tmp_path):
    (tmp_path / "x.json").write_text('[{"url": "u", "caption": "c"}, 12, null, {"url": "v", "caption": "a\tb"}]')
    assert [row["drop"] for row in read_all(source_of(tmp_path / "x.json"), 3)] == [
        None,
        Drop.UNREADABLE_ROW,
        Drop.UNREADABLE_ROW,
        None,
    ]


def test_json_beside_other_tables_is_passed_over(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "x.jsonl").write_text('{"url": "http://a", "text": "b"}\n')
    assert pairs(read_all(source_of(tmp_path))) == [("http://a", ["b"])]


def test_annotated_pictures_are_no_table(tmp_path):
    (tmp_path / "coco.json").write_text('{"info": {}, "images": [{"id": 1}], "annotations": [{"image_id": 1}]}')
    assert told(str(tmp_path / "coco.json")).kind == "annotations"


def test_a_list_of_texts_is_several_captions_of_one_row(tmp_path):
    lists = pa.table({"url": ["u", "v"], "captions": [["one", " ", None, "two"], []]})
    pq.write_table(lists, tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text('{"url": "u", "captions": ["one", " ", null, "two"]}\n{"url": "v"}\n')
    for name in ("x.parquet", "x.jsonl"):
        assert pairs(read_all(source_of(tmp_path / name))) == [("u", ["one", "two"]), ("v", [])]


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ({"uid": ["0a1b"], "url": ["u"], "text": ["t"], "clip_b32_similarity_score": [0.3]}, "0a1b"),
        ({"SAMPLE_ID": [7.0], "URL": ["u"], "TEXT": ["t"]}, "7"),
        ({"id": [4785], "url": ["u"], "text": ["t"], "image_phash": ["ab"]}, "4785"),
        ({"key": ["000000001"], "uid": ["x"], "url": ["u"], "caption": ["t"]}, "000000001"),
        ({"url": ["u"], "caption": ["t"]}, None),
    ],
    ids=["datacomp", "laion", "coyo", "img2dataset", "none"],
)
def test_the_sources_own_key_is_kept(tmp_path, columns, key):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    (row,) = read_all(source_of(tmp_path / "x.parquet"))
    assert (row["source_key"], row["url"], row["captions"][0]["text"]) == (key, "u", "t")
    (row,) = read_all(source_of(tmp_path / "x.parquet", key_column=""))
    assert row["source_key"] is None
    with pytest.raises(SourceError, match="no column 'number'"):
        source_of(tmp_path / "x.parquet", key_column="number").parts(10)


def test_published_tables_of_an_object_store():
    store = Store("memory://published")
    store.write("cc3m.tsv", CC3M.encode())
    store.write("sbu.json", json.dumps(SBU).encode())
    assert len(read_all(source_of(store.path("cc3m.tsv")), 2)) == 4
    assert len(read_all(source_of(store.path("sbu.json")), 2)) == 3

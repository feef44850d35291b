"""Tables as people have them: counted right, cut into parts, and read the same however they are cut."""

import gzip
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capfilt.errors import RecipeError, SourceError
from capfilt.records import SCHEMA, Drop, row_id
from capfilt.sources.base import SourceConfig
from capfilt.sources.opening import open_source
from capfilt.storage import Store

ROWS = [
    (f"http://h/{n}.jpg", f'caption {n}, "quoted"\nand on a second line' if n % 5 == 0 else f"é {n}") for n in range(57)
]


def csv_bytes(rows=ROWS, delimiter=",", header=("url", "caption"), end="\n"):
    quoted = [
        ['"' + cell.replace('"', '""') + '"' if set(cell) & set('",\n\t') else cell for cell in row] for row in rows
    ]
    return "".join(delimiter.join(row) + end for row in [header, *quoted]).encode()


def jsonl_bytes(rows=ROWS):
    return "".join(json.dumps({"url": url, "caption": text}) + "\n" for url, text in rows).encode()


def write(tmp_path, kind, rows=ROWS):
    path = tmp_path / f"table.{kind}"
    base = kind.removesuffix(".gz").removesuffix(".zst")
    if base == "parquet":
        table = pa.table(
            {"url": [url for url, _ in rows], "caption": [text for _, text in rows], "more": range(len(rows))}
        )
        pq.write_table(table, path, row_group_size=10)
        return path
    data = {"csv": csv_bytes, "tsv": lambda: csv_bytes(delimiter="\t"), "jsonl": jsonl_bytes}[base]()
    if kind.endswith(".gz"):
        data = gzip.compress(data)
    if kind.endswith(".zst"):
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


def source_of(path, **config):
    return open_source(SourceConfig(path=str(path), **config))


def read_all(source, part_rows=1000):
    return [row for part in source.parts(part_rows) for row in source.read(part).to_pylist()]


@pytest.mark.parametrize(
    "kind", ["parquet", "csv", "tsv", "jsonl", "csv.gz", "tsv.gz", "jsonl.gz", "csv.zst", "jsonl.zst"]
)
@pytest.mark.parametrize("part_rows", [1000, 13, 1])
def test_every_row_once_in_order_however_it_is_cut(tmp_path, kind, part_rows):
    source = source_of(write(tmp_path, kind))
    parts = source.parts(part_rows)
    assert [part.index for part in parts] == list(range(len(parts)))
    assert max(part.stop - part.start for part in parts) <= part_rows
    # As a worker has it, and as a fresh process that never planned.
    for reader in (pickle.loads(pickle.dumps(source)), source_of(source.config.path)):
        rows = [row for part in parts for row in reader.read(part).to_pylist()]
        assert [row["row"] for row in rows] == list(range(57))
        assert [(row["url"], row["captions"][0]["text"]) for row in rows] == ROWS
        assert [row["id"] for row in rows] == [row_id(*row) for row in ROWS]
        assert all(row["drop"] is None and row["image"] is None for row in rows)


def test_the_table_is_of_the_schema(tmp_path):
    source = source_of(write(tmp_path, "csv"), origin="human")
    table = source.read(source.parts(10)[2])
    assert table.schema == SCHEMA
    assert set(table.column("part").to_pylist()) == {2}
    assert table.column("captions")[0].as_py()[0] == {
        "text": ROWS[19][1],
        "origin": "human",
        "itm": None,
        "itc": None,
        "kept": False,
    }


def test_formats_agree_on_ids(tmp_path):
    ids = {
        kind: [row["id"] for row in read_all(source_of(write(tmp_path, kind)))]
        for kind in ("parquet", "csv", "jsonl.gz")
    }
    assert ids["parquet"] == ids["csv"] == ids["jsonl.gz"]


def test_digests_are_of_content_and_range_not_of_place(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here, there = write(tmp_path / "a", "csv"), write(tmp_path / "b", "csv")
    digests = lambda path, rows: [part.digest for part in source_of(path).parts(rows)]  # noqa: E731
    assert digests(here, 10) == digests(there, 10)
    assert len(set(digests(here, 10))) == 6
    assert not set(digests(here, 10)) & set(digests(here, 57))
    there.write_bytes(there.read_bytes().replace(b"caption 0", b"caption 9"))
    assert not set(digests(here, 10)) & set(digests(there, 10))


def test_csv_of_windows_with_bom_crlf_and_blank_lines(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + csv_bytes([("http://a", "one")], end="\r\n") + b"\r\n\r\nhttp://b,two\r\n")
    assert [(row["url"], row["captions"][0]["text"]) for row in read_all(source_of(path))] == [
        ("http://a", "one"),
        ("http://b", "two"),
    ]


def test_malformed_rows_are_drops_in_their_place(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(
        b"url,caption\nhttp://a,one\nhttp://b,two,three\nhttp://c\nhttp://d,four\n,five\nhttp://e,\xff six\nhttp://f,\n"
    )
    rows = read_all(source_of(path), part_rows=2)
    assert [row["row"] for row in rows] == list(range(7))
    assert [row["drop"] for row in rows] == [
        None,
        Drop.UNREADABLE_ROW,
        Drop.UNREADABLE_ROW,
        None,
        Drop.NO_URL,
        None,
        None,
    ]
    assert rows[1]["detail"] == "The row has 3 fields, the header 2."
    assert rows[4]["captions"][0]["text"] == "five"
    assert rows[5]["captions"][0]["text"] == "\ufffd six"
    assert rows[6]["captions"] == []
    assert len({row["id"] for row in rows}) == 7


@pytest.mark.parametrize("long", ["caption", "url", "key"])
def test_a_row_of_more_text_than_captions_have_is_a_drop(tmp_path, long):
    row = {"url": "http://a", "caption": ["a text"], "key": "k"}
    most = {**row, "caption": ["a text", "é" * ((65536 - len("http://a" + "a text" + "k")) // 2)]}
    more = {"caption": ["a text", '"' * 65536], "url": "http://" + "é" * 32765, "key": "k" * 65536}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(most) + "\n" + json.dumps({**row, long: more[long]}) + "\n")
    first, second = read_all(source_of(path))
    assert first["drop"] is None
    assert (second["drop"], second["captions"], second["source_key"]) == (Drop.UNREADABLE_ROW, [], None)
    assert "at most 65,536 are taken" in second["detail"]


def test_an_open_quote_costs_a_bounded_record_and_shifts_nothing(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'url,caption\nhttp://a,"never closed\n' + b"http://x,y\n" * 40_000 + b"http://z,last\n")
    source = source_of(path)
    rows = read_all(source, part_rows=5000)
    assert rows[0]["drop"] == Drop.UNREADABLE_ROW
    assert "CSV" in rows[0]["detail"]
    assert rows[-1]["url"] == "http://z"
    assert 25_000 < len(rows) < 40_001


def test_malformed_json_lines_are_drops_in_their_place(tmp_path):
    path = tmp_path / "t.jsonl"
    deep = "[" * 100_000
    lines = [
        '{"url": "http://a", "caption": "one"}',
        "{broken",
        "[1]",
        deep,
        "",
        '{"caption": {"x": "y"}, "url": "http://b"}',
    ]
    lines += [
        '{"url": null, "caption": 3}',
        '{"url": "http://c", "caption": "\\ud800"}',
        '{"url": "http://d", "caption": NaN}',
    ]
    path.write_text("\n".join(lines))
    rows = read_all(source_of(path), part_rows=3)
    bad = Drop.UNREADABLE_ROW
    assert [row["drop"] for row in rows] == [None, bad, bad, bad, bad, Drop.NO_URL, None, None]
    assert rows[5]["captions"][0]["text"] == "3"
    assert rows[6]["captions"][0]["text"] == "?"
    assert rows[7]["captions"] == []


def test_endless_lines_are_passed_over(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(
        b'{"url": "http://a", "caption": "' + b"x" * 3_000_000 + b'"}\n{"url": "http://b", "caption": "y"}\n'
    )
    rows = read_all(source_of(path))
    assert [row["drop"] for row in rows] == [Drop.UNREADABLE_ROW, None]


def test_marks_spare_reading_from_the_beginning(tmp_path):
    rows = [(f"http://h/{n}.jpg", f"{n} " + "x" * 200) for n in range(50_000)]
    for kind in ("csv", "csv.gz"):
        path = tmp_path / f"t.{kind}"
        path.write_bytes(gzip.compress(csv_bytes(rows), 1) if kind == "csv.gz" else csv_bytes(rows))
        source = source_of(path)
        last = source.parts(1000)[-1]
        (counted,) = source._counted
        assert len(counted.marks) == 3
        read = source.read(last).to_pylist()
        assert [(row["url"], row["captions"][0]["text"]) for row in read] == rows[last.start :]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("URL", "TEXT"), ("URL", "TEXT")),
        (("caption", "image_url"), ("image_url", "caption")),
        (("url", "alt_text", "title"), ("url", "alt_text")),
        (("Url", "Caption", "text"), ("Url", "Caption")),
    ],
)
def test_usual_column_names_are_found(tmp_path, names, found):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({name: [f"http://{name}"] for name in names}), path)
    assert source_of(path).describe()["used"] == {"url": found[0], "caption": found[1]}


def test_named_columns_win_and_missing_ones_are_listed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"url,href,caption,words\nu,http://h,c,w\n")
    (row,) = read_all(source_of(path, url_column="HREF", caption_column="words"))
    assert (row["url"], row["captions"][0]["text"]) == ("http://h", "w")
    with pytest.raises(SourceError, match="no column 'link'; its columns are: url, href, caption, words") as told:
        source_of(path, url_column="link").parts(10)
    assert "source.url_column" in told.value.mend
    (row,) = read_all(source_of(path, caption_column=""))
    assert row["captions"] == []


def test_relative_addresses_get_the_base_and_keep_their_id(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"url,caption\na/1.png,x\nhttp://b/2.png,y\n")
    plain = read_all(source_of(path))
    based = read_all(source_of(path, url_base="http://127.0.0.1:8000/"))
    assert [row["url"] for row in plain] == ["a/1.png", "http://b/2.png"]
    assert [row["url"] for row in based] == ["http://127.0.0.1:8000/a/1.png", "http://b/2.png"]
    assert [row["id"] for row in plain] == [row["id"] for row in based]


def test_bytes_dictionaries_and_bad_utf8_in_parquet(tmp_path):
    path = tmp_path / "t.parquet"
    broken = pa.Array.from_buffers(pa.string(), 2, [None, *pa.array([b"ok", b"\xff!"]).buffers()[1:]])
    pq.write_table(pa.table({"url": pa.array(["a", "b"]).dictionary_encode(), "caption": broken}), path)
    assert [(row["url"], row["captions"][0]["text"]) for row in read_all(source_of(path))] == [
        ("a", "ok"),
        ("b", "\ufffd!"),
    ]


def test_damage_inside_a_parquet_file_costs_its_rows_only(tmp_path):
    path = write(tmp_path, "parquet")
    offset = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    rows = read_all(source_of(path), part_rows=8)
    assert [row["row"] for row in rows if row["drop"]] == list(range(20, 30))
    assert len({row["id"] for row in rows}) == 57


def test_many_files_are_one_table(tmp_path):
    for name, rows in (("b.csv", ROWS[:3]), ("a.csv", ROWS[3:5]), ("_SUCCESS", [])):
        (tmp_path / name).write_bytes(csv_bytes(rows))
    source = source_of(tmp_path)
    assert [(part.index, part.file[-5:], part.stop) for part in source.parts(10)] == [(0, "a.csv", 2), (1, "b.csv", 3)]
    assert source.describe()["rows"] == 5
    assert [file["name"] for file in source.describe()["files"]] == ["a.csv", "b.csv"]
    assert len(source_of(tmp_path / "*.csv").parts(10)) == 2
    json.dumps(source.describe())


def test_tables_of_an_object_store():
    store = Store("memory://tables")
    store.write("t.csv", csv_bytes())
    source = source_of(store.path("t.csv"))
    assert [row["url"] for row in read_all(source, 10)] == [url for url, _ in ROWS]
    store.remove("t.csv")


def wrong(name, data):
    return pytest.param(name, data, id=name)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        wrong("empty.csv", b""),
        wrong("header.csv", b"url,caption\n"),
        wrong("empty.jsonl", b"\n\n"),
        wrong("array.jsonl", b'[{"url": "x"}]'),
        wrong("binary.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" * 9),
        wrong("utf16.csv", "url,caption\nx,y".encode("utf-16")),
        wrong("page.parquet", b"<html>not found</html>"),
        wrong("cut.csv.gz", gzip.compress(csv_bytes())[:-20]),
        wrong("plain.csv.gz", csv_bytes()),
        wrong("t.xlsx", b"PK\x03\x04"),
        wrong("t.parquet.gz", b""),
    ],
)
def test_what_is_no_table_is_told_with_the_mend(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SourceError) as told:
        source_of(path).parts(10)
    assert name in told.value.where
    assert told.value.mend


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        source_of(tmp_path / "none.csv")


def test_a_file_that_shrank_is_told(tmp_path):
    path = write(tmp_path, "csv")
    source = source_of(path)
    parts = source.parts(1000)
    path.write_bytes(csv_bytes(ROWS[:9]))
    with pytest.raises(SourceError, match="fewer than 57 rows"):
        source.read(parts[0])


def test_wrong_settings_name_the_field():
    with pytest.raises(RecipeError, match=r"source\.kind"):
        SourceConfig(path="x", kind="spreadsheet")
    with pytest.raises(RecipeError, match=r"source\.path"):
        SourceConfig(path="")

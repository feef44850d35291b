"""What img2dataset 1.47.0 wrote (the folder beside, from a loopback server): failed rows are rows too."""

import json
import pickle
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capfilt.errors import SourceError
from capfilt.images import ImageLimits, Picture, normalise
from capfilt.records import Drop
from capfilt.sources.base import SourceConfig
from capfilt.sources.opening import open_source, told
from capfilt.storage import Store

WRITTEN = Path(__file__).parent / "img2dataset"
FIRST = [
    ("000000", "a", None),
    ("000001", "missing", Drop.HTTP_STATUS),
    ("000002", "slow", Drop.TIMED_OUT),
    ("000003", "b", None),
    ("000004", "page", Drop.NOT_AN_IMAGE),
    ("000005", "no", Drop.OPTED_OUT),
]
SECOND = [
    ("000010", "tiny", Drop.TOO_SMALL),
    ("000011", "c", None),
    ("000012", "d", None),
    ("000013", None, Drop.UNREACHABLE),
    ("000014", None, Drop.UNREACHABLE),
    ("000015", None, Drop.NO_URL),
]


def source_of(path, **config):
    return open_source(SourceConfig(path=str(path), **config))


def read_all(source, part_rows=1000):
    return [row for part in source.parts(part_rows) for row in source.read(part).to_pylist()]


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(WRITTEN / "webdataset", tmp_path / "out"))


@pytest.fixture
def forms(tmp_path):
    """From output_format to a folder; that of ``files`` differs from that of ``webdataset`` in having no tars."""
    files = tmp_path / "files"
    files.mkdir()
    shutil.copy(WRITTEN / "webdataset" / "00000.parquet", files)
    with tarfile.open(WRITTEN / "webdataset" / "00000.tar") as tar:
        tar.extractall(files / "00000", filter="data")
    return {"webdataset": WRITTEN / "webdataset", "parquet": WRITTEN / "parquet", "files": files}


@pytest.mark.parametrize("part_rows", [1000, 4, 1])
@pytest.mark.parametrize(("form", "wanted"), [("webdataset", FIRST + SECOND), ("files", FIRST), ("parquet", FIRST)])
def test_each_row_is_there_with_its_key_and_status(forms, form, wanted, part_rows):
    assert told(str(forms[form])).kind == "img2dataset"
    source = source_of(forms[form])
    rows = read_all(pickle.loads(pickle.dumps(source)), part_rows)
    assert [(row["source_key"], row["drop"]) for row in rows] == [(key, drop) for key, _, drop in wanted]
    for row, (_, name, drop) in zip(rows, wanted, strict=True):
        if name:
            assert (row["url"], row["captions"][0]["text"]) == (f"http://127.0.0.1:8099/{name}.jpg", f"caption {name}")
        assert (row["image"] is None) == (drop is not None)
        if row["image"]:
            assert isinstance(normalise(row["image"], ImageLimits(min_side=1)), Picture)
    assert source.has_bytes
    assert json.loads(json.dumps(source.describe()))["rows"] == len(wanted)


def test_the_reason_repeats_status_and_message(folder):
    details = {row["source_key"]: row["detail"] for row in read_all(source_of(folder))}
    assert details["000001"] == "img2dataset says failed_to_download: HTTP Error 404: Not Found."
    assert details["000004"] == "img2dataset says failed_to_resize: Image decoding error."
    assert "Connection refused" in details["000013"]
    assert details["000000"] is None


def test_a_cut_tar_costs_what_it_lost(folder):
    tar = folder / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:2600])
    rows = read_all(source_of(folder))
    assert [row["drop"] for row in rows[:4]] == [None, Drop.HTTP_STATUS, Drop.TIMED_OUT, Drop.UNREADABLE_ROW]
    assert rows[3]["detail"] == (
        "img2dataset stored this picture, but it is not there: the tar is cut short in a header."
    )
    assert len(rows) == 12


@pytest.mark.parametrize("key", ["../../secret", "../../secret.jpg::x", "..\\..\\secret", "/etc/secret"])
def test_a_key_that_leads_out_of_the_folder_is_no_picture(tmp_path, forms, key):
    """The tables may be a stranger's, and what is read is published."""
    table = pq.read_table(forms["files"] / "00000.parquet")
    at = table.column_names.index("key")
    keys = [key, *table.column("key").to_pylist()[1:]]
    pq.write_table(table.set_column(at, "key", pa.array(keys)), forms["files"] / "00000.parquet")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (forms["files"] / "00000" / "..\\..\\secret.jpg").write_bytes(b"secret")
    first = read_all(source_of(forms["files"]))[0]
    assert (first["image"], first["drop"], first["source_key"]) == (None, Drop.UNREADABLE_ROW, key)


def test_a_missing_tar_is_told_for_each_of_its_pictures(folder):
    (folder / "00000.tar").unlink()
    rows = read_all(source_of(folder, kind="img2dataset"))
    assert [row["drop"] for row in rows[:4]] == [
        Drop.UNREADABLE_ROW,
        Drop.HTTP_STATUS,
        Drop.TIMED_OUT,
        Drop.UNREADABLE_ROW,
    ]
    assert rows[0]["detail"].endswith("00000.tar: there is no such file.")
    assert [row["drop"] for row in rows[6:]] == [drop for _, _, drop in SECOND]


@pytest.mark.parametrize("unfinished", [True, False])
def test_a_tar_without_a_finished_table_gives_the_samples_it_has(folder, unfinished):
    table = folder / "00001.parquet"
    # A killed run leaves a table without its end.
    table.write_bytes(table.read_bytes()[:1000]) if unfinished else table.unlink()
    source = source_of(folder)
    rows = read_all(source, 3)
    assert [row["source_key"] for row in rows] == [key for key, _, _ in FIRST] + ["000011", "000012"]
    assert rows[-1]["url"] == "http://127.0.0.1:8099/d.jpg"
    assert rows[-1]["image"]
    assert source.describe()["tars_alone"] == 1


def test_the_digest_follows_the_pictures_too(folder):
    digests = lambda: [part.digest for part in source_of(folder).parts(10)]  # noqa: E731
    before = digests()
    tar = bytearray((folder / "00000.tar").read_bytes())
    tar[600] ^= 1
    (folder / "00000.tar").write_bytes(tar)
    assert [old == new for old, new in zip(before, digests(), strict=True)] == [False, True]


def test_its_tars_alone_are_webdataset_and_its_tables_alone_are_tables(folder, tmp_path):
    assert told(str(folder / "*.tar")).kind == "webdataset"
    assert told(str(folder / "*.parquet")).kind == "table"
    pq.write_table(pa.table({"url": ["u"], "caption": ["c"]}), tmp_path / "00000.parquet")
    with pytest.raises(SourceError, match="no finished table of img2dataset"):
        source_of(tmp_path / "00000.parquet", kind="img2dataset").parts(10)


def test_output_in_an_object_store():
    store = Store("memory://i2d/out")
    for file in (WRITTEN / "webdataset").iterdir():
        store.write(file.name, file.read_bytes())
    assert told(store.url).kind == "img2dataset"
    assert [row["source_key"] for row in read_all(source_of(store.url), 5)] == [key for key, _, _ in FIRST + SECOND]

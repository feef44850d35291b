"""`capfilt quickstart`, a user's first minutes: what it writes, what it prints, and that it may be run again."""

from __future__ import annotations

import csv
import gc
import json
import re
from collections import Counter

import pyarrow.parquet as pq
import pytest
import webdataset
from datasets import load_dataset

from capfilt import catalog
from capfilt.records import LEDGER_SCHEMA, Drop, row_id

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
leaves_files_open = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""For tests that read with another library: it leaves closing its files to the garbage collector."""


@pytest.fixture(scope="module")
def quickstart(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart") / "out"
    return run(out / "data", "quickstart", out)


@pytest.fixture(scope="module")
def manifest(quickstart):
    return json.loads((quickstart.data / "manifest.json").read_text())


@pytest.fixture(scope="module")
def table():
    with (catalog.sample() / "pairs.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_in_are_kept_and_dropped_by_reason(quickstart, manifest, table):
    totals = manifest["totals"]
    assert totals["rows"] == len(table) == quickstart.ledger.num_rows
    assert totals["rows"] == totals["kept"] + sum(totals["dropped"].values())
    counted = Counter(quickstart.ledger.column("drop").to_pylist())
    assert counted.pop(None) == totals["kept"]
    assert dict(counted) == totals["dropped"]


def test_every_id_of_the_table_is_there_as_often_as_in_the_table(quickstart, table):
    # The id is of the address as the table has it, whatever port it is served from today.
    expected = [row_id(row["url"], row["caption"]) for row in table]
    assert quickstart.ledger.column("id").to_pylist() == expected
    places = set(zip(*(quickstart.ledger.column(name).to_pylist() for name in ("part", "row")), strict=True))
    assert len(places) == len(table)


def test_the_rows_that_go_wrong_on_purpose_are_counted_drops(quickstart):
    rows = {row["url"].rsplit("/", 1)[-1]: row for row in quickstart.ledger.to_pylist() if row["url"]}
    expected = {
        "missing.png": Drop.HTTP_STATUS,
        "page.html": Drop.NOT_AN_IMAGE,
        "truncated.jpg": Drop.BROKEN_IMAGE,
        "giant.png": Drop.TOO_MANY_PIXELS,
        "tiny.gif": Drop.TOO_SMALL,
        "strip.png": Drop.BAD_ASPECT,
    }
    assert {name: rows[name]["drop"] for name in expected} == {name: str(drop) for name, drop in expected.items()}
    assert all(rows[name]["detail"] for name in expected)
    assert str(Drop.NO_URL) in quickstart.ledger.column("drop").to_pylist()


def test_the_ledger_is_typed_and_holds_no_bytes(quickstart):
    for file in (quickstart.data / "pairs").glob("*.parquet"):
        assert pq.read_schema(file).equals(LEDGER_SCHEMA, check_metadata=False)


def test_every_kept_text_was_judged_good_and_every_rejected_one_bad(quickstart, manifest):
    threshold = manifest["recipe"]["capfilt"]["threshold"]
    captions = [c for row in quickstart.ledger.to_pylist() for c in row["captions"] if c["itm"] is not None]
    assert len(captions) > 300
    assert all(c["kept"] == (c["itm"] >= threshold) for c in captions)
    assert {c["origin"] for c in captions} == {"web", "synthetic"}


@leaves_files_open
def test_webdataset_reads_the_shards_without_our_code(quickstart, manifest):
    shards = sorted(str(file) for file in (quickstart.data / "shards").glob("*.tar"))
    data = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pil")
    read = list(data.to_tuple("jpg;png;webp", "txt", "json"))
    assert len(read) == manifest["totals"]["kept"]
    for picture, text, about in read:
        assert picture.size == (about["width"], about["height"])
        assert text in [c["text"] for c in about["captions"] if c["kept"]]
    del data
    gc.collect()


@leaves_files_open
def test_datasets_reads_the_shards_without_our_code(quickstart, manifest, tmp_path):
    shards = sorted(str(file) for file in (quickstart.data / "shards").glob("*.tar"))
    data = load_dataset("webdataset", data_files=shards, split="train", cache_dir=str(tmp_path))
    assert data.num_rows == manifest["totals"]["kept"]
    del data
    gc.collect()


def test_it_prints_where_things_are_and_they_are_there(quickstart):
    for name in ("shards", "pairs", "manifest.json", "report.html"):
        assert str(quickstart.data / name) in quickstart.out
        assert (quickstart.data / name).exists()
    assert "noise ratio" in quickstart.out
    assert "capfilt bootstrap" in quickstart.out.split("What to type next")[1]


def test_training_on_the_new_shards_lowers_the_loss(quickstart):
    first, last = re.search(r"loss +([\d.]+) -> ([\d.]+)", quickstart.out).groups()
    assert float(last) < 0.9 * float(first)


def test_verify_finds_nothing(quickstart, run):
    assert run(quickstart.data, "verify", quickstart.data).out.startswith("ok")


def test_verify_finds_a_damaged_shard(quickstart, tmp_path, capsys):
    import shutil

    from capfilt.cli.main import call

    copy = tmp_path / "copy"
    shutil.copytree(quickstart.data, copy)
    shard = next((copy / "shards").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert call(["verify", str(copy)]) == 1
    assert shard.name in capsys.readouterr().out


def test_run_again_it_changes_nothing(quickstart, run):
    before = {file: file.read_bytes() for file in quickstart.data.glob("*/*")}
    again = run(quickstart.data, "quickstart", quickstart.data.parent)
    assert {file: file.read_bytes() for file in quickstart.data.glob("*/*")} == before
    assert str(quickstart.data / "report.html") in again.out

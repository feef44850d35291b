"""Whatever is damaged is named; what is whole has no problem."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from capfilt.records import table_of
from capfilt.shards.commit import SinkConfig, commit_part, write_manifest
from capfilt.shards.marker import committed
from capfilt.shards.rows import rows_of
from capfilt.shards.verify import repair, verify
from capfilt.storage import Store


@dataclass(frozen=True)
class Planned:
    index: int
    digest: str = "d"


def build(store, part_table):
    for index in (0, 1, 2):
        commit_part(store, part_table(index=index, keep=index < 2), Planned(index), SinkConfig(format="both"))
    write_manifest(store, recipe={}, source={"kind": "table"}, models={}, parts_planned=3)


def test_a_whole_set_has_no_problem(store, part_table):
    build(store, part_table)
    assert verify(store) == []
    remote = Store("memory://verify/dest")
    build(remote, part_table)
    assert verify(remote) == []


def test_texts_that_no_source_gives_any_more_are_read(store, part_table):
    rows = part_table(rows=2).to_pylist()
    rows[0]["captions"][0]["text"] = '"' * 600_000
    commit_part(store, table_of(rows), Planned(0), SinkConfig())
    write_manifest(store, recipe={}, source={"kind": "table"}, models={}, parts_planned=1)
    assert verify(store) == []
    assert repair(store) == []
    assert [row["image"] for row in rows_of(store, committed(store)[0])] == [row["image"] for row in rows]


def test_nothing_there_is_a_problem(store):
    assert verify(store) == [f"{store.url}: no part is committed there"]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


HARMS = [
    (lambda root: flip(root / "shards/00001.tar"), "shards/00001.tar: its bytes are not"),
    (lambda root: (root / "shards/00001.tar").write_bytes(b""), "shards/00001.tar: has 0 bytes"),
    (lambda root: (root / "pairs/00002.parquet").unlink(), "pairs/00002.parquet: there is no such file"),
    (lambda root: (root / "shards/00002.tar").write_bytes(b"x"), "shards/00002.tar: no commit marker knows"),
    (lambda root: (root / "parts/00001.json").write_bytes(b"{"), "a damaged commit marker"),
    (lambda root: (root / "parts/00002.json").unlink(), "manifest.json: speaks of 3 parts, 2 are committed"),
    (lambda root: (root / "manifest.json").unlink(), "manifest.json: is not there"),
    (lambda root: (root / "manifest.json").write_bytes(b"[]"), "manifest.json: cannot be read"),
]


@pytest.mark.parametrize(("harm", "told"), HARMS)
def test_each_harm_is_named(store, part_table, harm, told):
    build(store, part_table)
    harm(Path(store.url))
    assert any(told in problem for problem in verify(store)), verify(store)


def test_a_marker_that_vouches_for_other_rows_is_caught(store, part_table):
    build(store, part_table)
    marker = store.read_json("parts/00000.json")
    marker["tally"]["kept"] += 1
    marker["shards"] = [store.read_json("parts/00001.json")["shards"][0]]
    store.write_json("parts/00000.json", marker)
    problems = "\n".join(verify(store))
    for told in (
        "do not add up",
        "sample 00001-0000000 is there twice or is no kept row",
        "5 kept rows are missing",
        "sum of the parts",
    ):
        assert told in problems


def test_a_row_that_is_missing_within_a_part_is_caught(store, part_table):
    table = part_table(index=0, keep=False)
    commit_part(store, table.take([at for at in range(table.num_rows) if at != 2]), Planned(0), SinkConfig())
    assert "pairs/00000.parquet: rows between its first and its last are missing" in verify(store)


def test_it_tells_how_far_it_is(store, part_table):
    build(store, part_table)
    told = []
    verify(store, on_part=lambda done, total: told.append((done, total)))
    assert told[-1] == (3, 3)


@pytest.mark.parametrize(("harm", "told"), HARMS)
def test_repair_takes_away_what_is_broken_and_no_more(store, part_table, harm, told):
    build(store, part_table)
    harm(Path(store.url))
    again = repair(store)
    assert len(again) <= 1
    left = set(committed(store))
    for index in {0, 1, 2} - left:
        commit_part(store, part_table(index=index, keep=index < 2), Planned(index), SinkConfig(format="both"))
    if not store.exists("manifest.json"):
        write_manifest(store, recipe={}, source={"kind": "table"}, models={}, parts_planned=3)
    assert verify(store) == []
    assert left >= {0}, "what is whole stays"


def test_a_whole_set_is_left_alone(store, part_table):
    build(store, part_table)
    before = {file: file.read_bytes() for file in Path(store.url).rglob("*") if file.is_file()}
    assert repair(store) == []
    assert {file: file.read_bytes() for file in Path(store.url).rglob("*") if file.is_file()} == before

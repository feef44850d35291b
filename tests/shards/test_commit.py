"""A part is done when its marker is there, and doing it again changes no byte."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from capfilt import records
from capfilt.errors import DataError, DestinationError, RecipeError
from capfilt.inputs import open_read
from capfilt.records import LEDGER_SCHEMA, Tally
from capfilt.shards.commit import SinkConfig, claim, commit_part, committed, write_manifest
from capfilt.shards.parquet import read_ledger
from capfilt.shards.read import samples
from capfilt.storage import Store


@dataclass(frozen=True)
class Planned:
    index: int
    digest: str = "d"


def ledger_of(store, marker):
    with open_read(store.path(marker.ledger.name)) as file:
        return read_ledger(file)


def contents(store):
    root = Path(store.url)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_part_leaves_shard_ledger_and_marker_that_agree(store, part_table):
    table = part_table(index=3)
    marker = commit_part(store, table, Planned(3, "abc"), SinkConfig())
    files = contents(store)
    assert list(files) == ["pairs/00003.parquet", "parts/00003.json", "shards/00003.tar"]
    for stored in (marker.ledger, *marker.shards):
        assert hashlib.sha256(files[stored.name]).hexdigest() == stored.sha256
        assert len(files[stored.name]) == stored.size
    assert marker.tally == Tally.of(table)
    assert (marker.tally.rows, marker.tally.kept) == (7, 5)
    assert committed(store) == {3: marker}
    ledger = ledger_of(store, marker)
    assert ledger.schema == LEDGER_SCHEMA
    assert ledger.to_pylist() == table.drop_columns(["image"]).to_pylist()
    kept = list(samples([store.path("shards/00003.tar")]))
    assert [s.meta["id"] for s in kept] == [r["id"] for r in table.to_pylist() if r["drop"] is None]
    assert [s.image for s in kept] == [r["image"] for r in table.to_pylist() if r["drop"] is None]


@pytest.mark.parametrize("form", ["webdataset", "parquet", "both"])
def test_again_is_the_same_bytes(store, part_table, form):
    config = SinkConfig(format=form)
    commit_part(store, part_table(), Planned(0), config)
    first = contents(store)
    commit_part(store, part_table(), Planned(0), config)
    assert contents(store) == first
    assert len(first) == (4 if form == "both" else 3)


def test_nothing_kept_no_shard_and_a_dead_attempt_s_shard_goes(store, part_table):
    commit_part(store, part_table(), Planned(0), SinkConfig())
    marker = commit_part(store, part_table(keep=False), Planned(0), SinkConfig())
    assert marker.shards == ()
    assert marker.tally.dropped == {"unreachable": 7}
    assert store.names("shards") == []
    assert committed(store) == {0: marker}


def test_rejected_text_can_be_left_out(store, part_table):
    marker = commit_part(store, part_table(), Planned(0), SinkConfig(format="both", keep_rejected_text=False))
    texts = {c["text"] for shard in marker.shards for s in samples([store.path(shard.name)]) for c in s.captions}
    assert texts == {"", "a red field"}
    assert "web text" not in str(ledger_of(store, marker).to_pylist())
    assert marker.tally == Tally.of(part_table())


def test_rows_that_do_not_belong_are_refused(store, part_table):
    table = part_table()
    with pytest.raises(DataError, match="another part"):
        commit_part(store, table, Planned(1), SinkConfig())
    with pytest.raises(DataError, match="twice"):
        commit_part(store, records.replace(table, {"row": [0] * 7}), Planned(0), SinkConfig())
    with pytest.raises(DataError, match="neither dropped nor whole"):
        commit_part(store, records.replace(table, {"image": [None] * 7}), Planned(0), SinkConfig())
    assert contents(store) == {}


def test_equal_rows_of_a_part_both_stay(store, part_table):
    table = records.replace(part_table(), {"id": ["same"] * 7})
    assert commit_part(store, table, Planned(0), SinkConfig()).ledger.rows == 7


def test_markers_come_in_order_and_damage_is_named(store, part_table):
    for index in (2, 0, 1):
        commit_part(store, part_table(index=index, rows=1), Planned(index), SinkConfig())
    assert list(committed(store)) == [0, 1, 2]
    for damaged in (b"{}", b"not json", store.read("parts/00000.json").replace(b'"part": 0', b'"part": 5')):
        store.write("parts/00001.json", damaged)
        with pytest.raises(DestinationError, match=r"00001\.json"):
            committed(store)


def test_it_works_on_an_object_store(part_table):
    store = Store("memory://commit/dest")
    marker = commit_part(store, part_table(), Planned(0), SinkConfig(format="both"))
    assert committed(store) == {0: marker}
    assert len(list(samples([store.path(shard.name) for shard in marker.shards]))) == 10


def test_the_manifest_is_the_sum_of_the_markers(store, part_table):
    told = {"recipe": {"a": 1}, "source": {"kind": "table"}, "models": {}}
    for index in (0, 1):
        commit_part(store, part_table(index=index), Planned(index), SinkConfig())
    with pytest.raises(DestinationError, match="1 of 3 parts are not done: 2"):
        write_manifest(store, parts_planned=3, **told)
    with pytest.raises(DestinationError, match="1 are planned"):
        write_manifest(store, parts_planned=1, **told)
    manifest = write_manifest(store, parts_planned=2, **told)
    assert manifest == store.read_json("manifest.json")
    assert manifest["totals"]["rows"] == 14
    assert manifest["totals"]["dropped"] == {"unreachable": 4}
    assert manifest["noise_ratio"] == {"web": 1.0, "synthetic": 0.0, "human": None}
    assert [shard["rows"] for shard in manifest["shards"]] == [5, 5]
    assert sum(ledger["rows"] for ledger in manifest["ledgers"]) == 14


RECIPE = {"caption": {"top_p": 0.9, "seeds": (1, 2)}, "model": "med-mini"}


def test_the_first_run_claims_and_the_next_goes_on(store):
    claim(store, RECIPE, "plan")
    assert yaml.safe_load(store.read("recipe.yaml")) == {**RECIPE, "caption": {"top_p": 0.9, "seeds": [1, 2]}}
    before = contents(store)
    claim(store, RECIPE, "plan")
    assert contents(store) == before


def test_another_recipe_is_named_field_by_field(store):
    claim(store, RECIPE, "plan")
    with pytest.raises(DestinationError) as told:
        claim(store, {"caption": {"top_p": 0.8, "seeds": [1, 2]}, "filter": {"threshold": 0.5}}, "plan")
    assert "caption.top_p is 0.9 there and 0.8 now" in told.value.what
    assert 'filter is absent there and {"threshold": 0.5} now' in told.value.what
    assert 'model is "med-mini" there and absent now' in told.value.what
    with pytest.raises(DestinationError, match="other input"):
        claim(store, RECIPE, "another plan")


def test_other_people_s_folders_are_left_alone(store):
    store.write("thesis.doc", b"years of work")
    with pytest.raises(DestinationError, match=r"not made by capfilt.*thesis\.doc"):
        claim(store, RECIPE, "plan")
    assert contents(store) == {"thesis.doc": b"years of work"}


def test_a_claim_that_died_half_way_is_no_stranger(store):
    store.write_json("plan.json", {"digest": "old"})
    store.write(".recipe.yaml.1a2b.tmp", b"half")
    claim(store, RECIPE, "plan")
    claim(store, RECIPE, "plan")


def test_unknown_formats_are_told():
    with pytest.raises(RecipeError, match=r"sink\.format"):
        replace(SinkConfig(), format="zip")

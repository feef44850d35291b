"""The card says what the Hub needs, and what a reader should know."""

from dataclasses import dataclass

import pytest
import yaml

from capfilt.shards.card import dataset_card, write_cards
from capfilt.shards.commit import SinkConfig, commit_part, write_manifest


@dataclass(frozen=True)
class Planned:
    index: int
    digest: str = "d"


def card_of(store, table, **config):
    commit_part(store, table, Planned(0), SinkConfig(**config))
    models = {"captioner": {"name": "med-mini", "digest": "ab"}, "filter": {"name": "x | <script>"}}
    manifest = write_manifest(store, recipe={}, source={"kind": "table"}, models=models, parts_planned=1)
    text = dataset_card(manifest)
    front, _, body = text.removeprefix("---\n").partition("---\n")
    return yaml.safe_load(front), body


@pytest.mark.parametrize(
    ("form", "paths"),
    [
        ("webdataset", ["shards/*.tar"]),
        ("parquet", ["shards/*.parquet"]),
        ("both", ["shards/*.tar"]),
    ],
)
def test_the_front_matter_points_at_the_shards(store, part_table, form, paths):
    front, body = card_of(store, part_table(), format=form)
    assert [config["data_files"][0]["path"] for config in front["configs"]] == paths
    assert front["configs"][0]["config_name"] == "default"
    assert front["license"] == "other"
    assert front["size_categories"] == ["n<1K"]
    kinds = {"webdataset": ["tar"], "parquet": ["parquet"], "both": ["tar", "parquet"]}[form]
    assert all(f"shards/*.{kind}" in body for kind in kinds)


def test_the_books_and_ratios_are_in_it_and_names_do_no_harm(store, part_table):
    _, body = card_of(store, part_table())
    for line in (
        "| kept | 5 |",
        "| dropped: unreachable | 2 |",
        "| in | 7 |",
        "| scraped with the picture | 5 | 0 | 100.0% |",
    ):
        assert line in body
    assert "med-mini" in body
    assert "<script>" not in body
    assert "x \\| &lt;script>" in body


def test_where_the_rows_came_from_is_in_it(store, part_table):
    source = {"kind": "table", "files": [{"name": f"{i}.csv", "rows": 7, "digest": f"{i:04x}"} for i in range(22)]}
    commit_part(store, part_table(), Planned(0), SinkConfig())
    manifest = write_manifest(store, recipe={"a": 1}, source=source, models={}, parts_planned=1)
    body = dataset_card(manifest)
    assert "| 0.csv | 7 | 0000 |" in body
    assert "And 2 more" in body
    assert manifest["recipe_digest"] in body


def test_joined_sources_list_the_files_of_each(store, part_table):
    each = [{"kind": "table", "files": [{"name": f"{i}.csv", "rows": 7, "digest": f"{i:04x}"}]} for i in range(2)]
    source = {"kind": "joined", "sources": [each[0], {"kind": "folder"}, each[1]]}
    commit_part(store, part_table(), Planned(0), SinkConfig())
    write_manifest(store, recipe={}, source=source, models={}, parts_planned=1)
    body = dataset_card(write_cards(store, anew=True))
    assert "| 0.csv | 7 | 0000 |\n| 1.csv | 7 | 0001 |" in body
    based_on = store.read_json("croissant.json")["isBasedOn"]
    assert [(work["name"], work["identifier"]) for work in based_on] == [
        ("0.csv", "capfilt:0000"),
        ("1.csv", "capfilt:0001"),
    ]


def test_card_and_croissant_follow_from_the_manifest_alone(store, part_table):
    commit_part(store, part_table(), Planned(0), SinkConfig(format="both"))
    write_manifest(store, recipe={}, source={"kind": "table"}, models={}, parts_planned=1)
    write_cards(store, anew=True)
    first = {name: store.read(name) for name in ("README.md", "croissant.json")}
    store.remove("croissant.json")
    manifest = write_cards(store, anew=False)
    assert {name: store.read(name) for name in first} == first
    told = store.read_json("croissant.json")
    assert {file["contentUrl"]: file["sha256"] for file in told["distribution"] if "sha256" in file} == {
        shard["name"]: shard["sha256"] for shard in manifest["shards"]
    }


def test_nothing_kept_is_said(store, part_table):
    front, body = card_of(store, part_table(keep=False))
    assert "configs" not in front
    assert "No picture was kept" in body

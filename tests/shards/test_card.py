"""The card says what the Hub needs, and what a reader should know."""

from dataclasses import dataclass

import pytest
import yaml

from capfilt.shards.card import dataset_card
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
        ("both", ["shards/*.tar", "shards/*.parquet"]),
    ],
)
def test_the_front_matter_points_at_the_shards(store, part_table, form, paths):
    front, body = card_of(store, part_table(), format=form)
    assert [config["data_files"][0]["path"] for config in front["configs"]] == paths
    assert front["configs"][0]["config_name"] == "default"
    assert front["license"] == "other"
    assert front["size_categories"] == ["n<1K"]
    assert all(path in body for path in paths)


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


def test_nothing_kept_is_said(store, part_table):
    front, body = card_of(store, part_table(keep=False))
    assert "configs" not in front
    assert "No picture was kept" in body

"""No path outside the prefixes: whatever is written, linked or hidden in a recipe."""

from __future__ import annotations

import pytest

from capfilt.errors import RecipeError
from capfilt.fetch.config import FetchConfig
from capfilt.inputs import expand
from capfilt.recipe import Recipe
from capfilt.service.access import Access, new
from capfilt.service.config import ServiceConfig
from capfilt.service.places import (
    OutsideError,
    check_dest,
    check_files,
    check_prefixes,
    settle_recipe,
    settle_source,
    settled,
)
from capfilt.sources.base import SourceConfig
from capfilt.stages.config import CapFiltConfig


@pytest.fixture
def tree(tmp_path):
    """inside/ may be read; secret/ may not; links lead from one to the other."""
    tmp_path = tmp_path.resolve()
    for folder in ("inside/sub", "inside-not", "secret"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "secret/table.csv").write_text("url,caption\n")
    (tmp_path / "inside/table.csv").write_text("url,caption\n")
    (tmp_path / "inside/link").symlink_to(tmp_path / "secret")
    (tmp_path / "inside/link.csv").symlink_to(tmp_path / "secret/table.csv")
    (tmp_path / "way-in").symlink_to(tmp_path / "inside")
    (tmp_path / "inside/[a]").mkdir()
    (tmp_path / "inside/[a]/out").symlink_to(tmp_path / "secret")
    (tmp_path / "inside/*.csv").symlink_to(tmp_path / "secret/table.csv")
    (tmp_path / "inside/loop").symlink_to(tmp_path / "inside/loop")
    return tmp_path


@pytest.mark.parametrize(
    "place",
    [
        "{}/secret/table.csv",
        "{}/inside/../secret/table.csv",
        "{}/inside/sub/../../secret",
        "{}/inside/./table.csv",
        "{}/inside-not/x",
        "{}/inside/link/table.csv",
        "{}/inside/link.csv",
        "{}/inside/link/*.csv",
        "{}/*/table.csv",
        "{}",
        "file://{}/secret/table.csv",
        "local://{}/secret/table.csv",
        "FILE://{}/secret",
        "file://{}/inside/../secret",
        "simplecache::file://{}/inside/table.csv",
        "zip://a.csv::{}/inside/x.zip",
        "{}/inside/loop/x",
        "{}/inside/a\\..\\b",
        "{}/inside/\0",
        "inside/table.csv",
        "~/table.csv",
        "",
        "s3://bucket-not/x",
        "s3://bucket/open/../closed",
        "s3://bucket/open//x/../../closed",
        "s3://bucket/openly",
        "s3:///bucket/open",
        "http://bucket/open/x",
        "memory://x",
        "s3://bucket/open/%2e%2e/closed",
        "s3://bucket/open/%252e%252e/closed",
        "s3://bucket/open/a%2f..%2f..%2fclosed",
        "s3://bucket/open/..;/closed",
        "{}/inside/[a]/out/x",
        "{}/inside/*.csv",
    ],
)
def test_outside_is_refused(tree, place):
    with pytest.raises(OutsideError):
        settled(place.format(tree), [f"{tree}/inside", "s3://bucket/open"], field="dest")


@pytest.mark.parametrize(
    ("place", "real"),
    [
        ("{}/inside/table.csv", "{}/inside/table.csv"),
        ("{}/inside", "{}/inside"),
        ("{}/inside/", "{}/inside"),
        ("{}/way-in/table.csv", "{}/inside/table.csv"),
        ("file://{}/inside/new/folder", "{}/inside/new/folder"),
        ("{}/inside/[a]", "{}/inside/[a]"),
        ("s3://bucket/open/a/b", "s3://bucket/open/a/b"),
        ("S3://bucket/open", "s3://bucket/open"),
    ],
)
def test_inside_comes_back_as_it_really_is(tree, place, real):
    got = settled(place.format(tree), [f"{tree}/way-in", "s3://bucket/open/"], field="dest")
    assert got == real.format(tree)


def test_joined_sources_and_pictures_of_annotations_are_places_too(tree):
    good, bad = f"{tree}/inside/table.csv", f"{tree}/secret/table.csv"
    prefixes = [f"{tree}/inside"]
    assert settle_source(SourceConfig(path=good, images="https://host/"), prefixes).path == good
    for source in (
        SourceConfig(path=bad),
        SourceConfig(path=good, images=f"{tree}/secret"),
        SourceConfig(path=good, also=(SourceConfig(path=bad),)),
        SourceConfig(path=good, also=(SourceConfig(path=good, images="../secret"),)),
    ):
        with pytest.raises(OutsideError):
            settle_source(source, prefixes)


def test_models_and_open_addresses_are_the_services(tree):
    source = SourceConfig(path=f"{tree}/inside/table.csv")
    prefixes = [f"{tree}/inside"]
    assert settle_recipe(Recipe(source=source), prefixes, []) == Recipe(source=source)
    with pytest.raises(OutsideError) as told:
        settle_recipe(Recipe(source=source, capfilt=CapFiltConfig(filter=f"{tree}/secret")), prefixes, [])
    assert told.value.where == "capfilt.filter"
    opened = Recipe(source=source, fetch=FetchConfig(allow_addresses=("127.0.0.0/8",)))
    settle_recipe(opened, prefixes, ["127.0.0.0/8"])
    with pytest.raises(OutsideError):
        settle_recipe(opened, prefixes, ["10.0.0.0/8"])


def test_a_model_is_used_as_it_was_settled_and_holds_no_link_out(tree):
    (tree / "inside/model").mkdir()
    (tree / "inside/current").symlink_to(tree / "inside/model")
    mine = CapFiltConfig(captioner=f"{tree}/inside/current")
    prefixes = [f"{tree}/inside"]
    got = settle_recipe(Recipe(source=SourceConfig(path=f"{tree}/inside/table.csv"), capfilt=mine), prefixes, [])
    assert got.capfilt.captioner == f"{tree}/inside/model"
    check_files(got, prefixes)
    (tree / "inside/model/model.yaml").symlink_to(tree / "secret/table.csv")
    with pytest.raises(OutsideError):
        check_files(got, prefixes)


def test_a_folder_of_a_models_name_is_not_taken_for_the_catalogues(tree, monkeypatch):
    (tree / "med-mini/captioner").mkdir(parents=True)
    monkeypatch.chdir(tree)
    with pytest.raises(OutsideError):
        settle_recipe(Recipe(source=SourceConfig(path=f"{tree}/inside/table.csv")), [f"{tree}/inside"], [])


def test_what_readers_look_for_beside_a_file_is_looked_at_too(tree):
    there = Recipe(source=SourceConfig(path=f"{tree}/inside/table.csv"))
    check_files(there, [f"{tree}/inside"])
    (tree / "inside/image_data.json").symlink_to(tree / "secret/table.csv")
    with pytest.raises(OutsideError):
        check_files(there, [f"{tree}/inside"])


def test_prefixes_that_are_no_places_are_told_at_the_start(tmp_path):
    for prefix in ("data", "../data", "s3://", ""):
        with pytest.raises(RecipeError, match="dests"):
            Access.of(ServiceConfig(dests=(prefix,)))
        with pytest.raises(RecipeError):
            new(tmp_path / "tokens.yaml", "ann", roles=("jobs",), sources=(prefix,))
    check_prefixes(["/data", "s3://bucket/open"], where="sources")


def test_a_link_among_the_files_is_found_before_they_are_read(tree):
    """What names a link that leads out, or matches one, is refused when it is about to be read."""
    prefixes = [f"{tree}/inside"]

    def check(place):
        check_files(Recipe(source=SourceConfig(path=place)), prefixes)

    (tree / "inside/*.csv").unlink()
    check(f"{tree}/inside/table.csv")
    assert expand(f"{tree}/inside/*.csv") == [f"{tree}/inside/link.csv", f"{tree}/inside/table.csv"]
    assert settled(f"{tree}/inside/*.csv", prefixes, field="source.path", pattern=True) == f"{tree}/inside/*.csv"
    check(f"{tree}/inside/t*.csv")
    for late in ("*.csv", "link.csv", "link/*.csv", "link"):
        with pytest.raises(OutsideError):
            check(f"{tree}/inside/{late}")


def test_a_link_in_the_destination_is_found(tree):
    dest = tree / "inside/out"
    (dest / "parts").mkdir(parents=True)
    check_dest(str(dest), [f"{tree}/inside"])
    (dest / "parts/00000.json").symlink_to(tree / "secret/table.csv")
    with pytest.raises(OutsideError):
        check_dest(str(dest), [f"{tree}/inside"])
    (dest / "parts/00000.json").unlink()
    (dest / "shards").symlink_to(tree / "secret")
    with pytest.raises(OutsideError):
        check_dest(str(dest), [f"{tree}/inside"])

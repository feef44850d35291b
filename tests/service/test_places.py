"""No path outside the prefixes: whatever is written, linked or hidden in a recipe."""

from __future__ import annotations

import pytest

from capfilt.fetch.config import FetchConfig
from capfilt.inputs import expand
from capfilt.recipe import Recipe
from capfilt.service.places import OutsideError, check_dest, check_files, check_recipe, settle_source, settled
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
        ("{}/inside/*.csv", "{}/inside/*.csv"),
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
    check_recipe(Recipe(source=source), [], [])
    with pytest.raises(OutsideError) as told:
        check_recipe(Recipe(source=source, capfilt=CapFiltConfig(filter=f"{tree}/secret")), [f"{tree}/inside"], [])
    assert told.value.where == "capfilt.filter"
    opened = Recipe(source=source, fetch=FetchConfig(allow_addresses=("127.0.0.0/8",)))
    check_recipe(opened, [], ["127.0.0.0/8"])
    with pytest.raises(OutsideError):
        check_recipe(opened, [], ["10.0.0.0/8"])


def test_a_link_among_the_files_is_found_before_they_are_read(tree):
    """Globs and folders pass links over; what names one is refused when it is about to be read."""
    prefixes = [f"{tree}/inside"]
    check_files(SourceConfig(path=f"{tree}/inside/table.csv"), prefixes)
    assert expand(f"{tree}/inside/*.csv") == [f"{tree}/inside/table.csv"]
    check_files(SourceConfig(path=f"{tree}/inside/*.csv"), prefixes)
    for late in ("link.csv", "link/*.csv", "link"):
        with pytest.raises(OutsideError):
            check_files(SourceConfig(path=f"{tree}/inside/{late}"), prefixes)


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

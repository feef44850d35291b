"""The sample that is in the repository: what its README promises."""

import csv
import re

import pytest

from capfilt import images
from capfilt.catalog import sample
from capfilt.corpora.clipart import LEFT_OUT
from capfilt.corpora.sample import TRAPS, bad_rows


@pytest.fixture(scope="module")
def rows():
    with (sample() / "pairs.csv").open(encoding="utf-8", newline="") as file:
        return [(row["url"], row["caption"]) for row in csv.DictReader(file)]


def test_it_is_small_and_whole(rows):
    assert 300 <= len(rows) <= 400
    assert sum(path.stat().st_size for path in sample().rglob("*")) < 4_500_000
    named = {url for url, _ in rows}
    there = {f"images/{path.name}" for path in (sample() / "images").iterdir()}
    assert there <= named
    assert named - there == {"", "images/missing.png"}


def test_the_bad_rows_are_last(rows):
    untitled = rows[-1][0].removeprefix("images/")
    assert rows[-len(bad_rows(rows, untitled)) :] == bad_rows(rows, untitled)


def test_every_other_picture_is_good(rows):
    for url in {url for url, _ in rows if url and url.removeprefix("images/") not in TRAPS} - {"images/missing.png"}:
        assert isinstance(images.normalise((sample() / url).read_bytes(), images.ImageLimits()), images.Picture), url


def test_nothing_hateful_is_shown(rows):
    stems = {re.sub(r"[^a-z0-9]+", "-", name) for name in LEFT_OUT}
    assert not any(stem in url for stem in stems for url, _ in rows)

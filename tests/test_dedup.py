"""Duplicates of a data set become drops, and the data set stays whole: books, files and what can be done with it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from capfilt.bootstrap import bootstrap
from capfilt.dedup import dedup
from capfilt.errors import DataError, DestinationError, SourceError
from capfilt.flow.config import RunConfig
from capfilt.recipe import load
from capfilt.shards.read import samples, shards_of
from capfilt.shards.verify import verify
from capfilt.storage import Store


def drawing(shift: int, *, size: int = 96) -> Image.Image:
    image = Image.new("RGB", (96, 96), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((8 + shift, 10, 40 + shift, 80), fill="navy")
    draw.ellipse((50, 20 + shift // 2, 90, 60), fill="orange")
    return image.resize((size, size), Image.Resampling.BICUBIC)


def saved(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


@dataclass
class Made:
    dest: Path
    source: Path

    def again(self) -> dict[str, object]:
        done = bootstrap(str(self.source), str(self.dest), recipe=self.recipe, run=RunConfig(runner="local"))
        assert done.manifest is not None
        return done.manifest

    @property
    def recipe(self):
        settings = ["capfilt.captioner=null", "plan.part_rows=3", f"capfilt.filter={self.source.parent}/filter"]
        return load(None, settings, source=str(self.source))

    def ledger(self) -> list[dict[str, object]]:
        files = sorted((self.dest / "pairs").iterdir())
        return [row for file in files for row in pq.read_table(file).to_pylist()]


@pytest.fixture
def made(tmp_path: Path, tiny_architecture: Path) -> Made:
    """A data set of seven pictures: 0 is there twice, 1 is 0 smaller and coarser, 3 is another, 4 to 6 unlike."""
    import torch

    from capfilt.med.model import MED

    torch.manual_seed(0)
    model = MED.new(tiny_architecture)
    with torch.no_grad():
        model.itm_head.bias.copy_(torch.tensor([-50.0, 50.0]))  # keeps all
    model.save(tmp_path / "filter")
    folder = tmp_path / "pictures"
    folder.mkdir()
    big = saved(drawing(0), quality=95)
    files = {"0": big, "1": saved(drawing(0, size=64), quality=60), "2": big, "3": saved(drawing(30))}
    for name, data in files.items():
        (folder / f"{name}.jpg").write_bytes(data)
    for at, angle in enumerate((45, 90, 135), 4):
        (folder / f"{at}.jpg").write_bytes(saved(drawing(0).rotate(angle, fillcolor="white")))
    for file in sorted(folder.iterdir()):
        file.with_suffix(".txt").write_text(f"drawing {file.stem}")
    made = Made(tmp_path / "out", folder)
    assert made.again()["totals"]["kept"] == 7
    return made


def test_equal_and_like_pictures_become_drops_that_name_the_one_that_stays(made: Made) -> None:
    result = dedup(str(made.dest), near=3)
    assert (result.pictures, result.equal, result.near, result.unhashed) == (7, 1, 1, 0)
    rows = made.ledger()
    assert [row["drop"] for row in rows] == [None, "duplicate", "duplicate", None, None, None, None]
    assert rows[1]["detail"].startswith("It looks like the picture of part 0, row 0: their hashes differ in ")
    assert rows[2]["detail"] == "It equals the picture of part 0, row 0, byte by byte."
    assert rows[1]["captions"][0]["text"] == "drawing 1", "what was said of it stays in the ledger"
    assert [sample.key for sample in samples(shards_of(str(made.dest)))] == [
        "00000-0000000",
        *(f"{part:05d}-{row:07d}" for part, row in ((1, 3), (2, 4), (2, 5), (2, 6))),
    ]
    assert verify(Store(str(made.dest))) == []
    manifest = json.loads((made.dest / "manifest.json").read_text())
    assert manifest["totals"]["dropped"] == {"duplicate": 2}
    assert manifest["dedup"] == {"near": 3}
    assert "Duplicate" in (made.dest / "report.html").read_text()


def test_again_it_finds_nothing_and_the_main_job_leaves_it_as_it_is(made: Made) -> None:
    dedup(str(made.dest))
    before = made.ledger()
    assert dedup(str(made.dest)).duplicates == ()
    assert made.again()["totals"]["dropped"] == {"duplicate": 2}
    assert made.ledger() == before


def test_only_equal_pictures_and_only_looking(made: Made) -> None:
    before = {file: file.read_bytes() for file in made.dest.rglob("*") if file.is_file()}
    assert (dedup(str(made.dest), dry_run=True).near, dedup(str(made.dest), near=-1, dry_run=True).near) == (1, 0)
    assert {file: file.read_bytes() for file in made.dest.rglob("*") if file.is_file()} == before


def test_cut_off_after_a_part_it_is_finished_by_the_same_call(made: Made) -> None:
    class DiedError(Exception):
        pass

    def die(done: int, total: int) -> None:
        if done == total:
            raise DiedError

    before = {file: file.read_bytes() for file in (made.dest / "shards").iterdir()}
    with pytest.raises(DiedError):
        dedup(str(made.dest), on_part=die)
    assert verify(Store(str(made.dest))) != []
    for file, data in before.items():  # as it is right after a part's new marker is there
        file.write_bytes(data)
    # Readers see what the markers vouch for.
    there = [sample.key for sample in samples([str(file) for file in sorted((made.dest / "shards").iterdir())])]
    read = [sample.key for sample in samples(shards_of(str(made.dest)))]
    assert len(read) == len(set(read)) == 5 < len(there)
    dedup(str(made.dest))
    assert [sample.key for sample in samples(shards_of(str(made.dest)))] == read
    assert verify(Store(str(made.dest))) == []
    assert made.again()["totals"]["dropped"] == {"duplicate": 2}


def test_cut_off_and_not_called_again_the_main_job_tells_of_what_is_there(made: Made) -> None:
    class DiedError(Exception):
        pass

    def die(done: int, total: int) -> None:
        if done == total:
            raise DiedError

    with pytest.raises(DiedError):
        dedup(str(made.dest), on_part=die)
    assert made.again()["totals"]["dropped"] == {"duplicate": 2}
    assert verify(Store(str(made.dest))) == []
    manifest = (made.dest / "manifest.json").read_bytes()
    assert made.again()["totals"]["dropped"] == {"duplicate": 2}
    assert (made.dest / "manifest.json").read_bytes() == manifest, "what is right is left as it is"


def test_a_ledger_that_is_gone_is_named(made: Made) -> None:
    ledger = sorted((made.dest / "pairs").iterdir())[-1]
    ledger.unlink()
    with pytest.raises(DataError, match=ledger.name):
        dedup(str(made.dest))


def test_a_destination_that_is_not_finished(made: Made, tmp_path: Path) -> None:
    (made.dest / "manifest.json").unlink()
    with pytest.raises(SourceError, match="has not finished"):
        shards_of(str(made.dest))
    for dest in (made.dest, tmp_path / "nothing"):
        with pytest.raises(DestinationError, match="no finished data set"):
            dedup(str(dest))

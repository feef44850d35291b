"""Duplicates of a data set become drops, and the data set stays whole: books, files and what can be done with it."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from capfilt.bootstrap import bootstrap
from capfilt.dedup import dedup
from capfilt.errors import DataError, DestinationError, SourceError
from capfilt.flow.config import RunConfig
from capfilt.recipe import load
from capfilt.records import Tally
from capfilt.refilter import refilter
from capfilt.report.findings import Level, findings
from capfilt.report.gather import gather
from capfilt.shards.commit import write_manifest
from capfilt.shards.marker import committed
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


def in_shards(dest: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Texts by origin, and those of them that are kept, as the shards have them."""
    texts = [text for sample in samples(shards_of(str(dest))) for text in sample.captions]
    return Counter(text["origin"] for text in texts), Counter(text["origin"] for text in texts if text["kept"])


def counts(dest: Path) -> tuple[dict[str, int], dict[str, int]]:
    """The same as the manifest has them; the report must agree."""
    store = Store(str(dest))
    totals, data = store.read_json("manifest.json")["totals"], gather(store)
    assert data.tally.to_json() == data.promised.to_json() == totals
    assert {facts.origin: facts.scored for facts in data.origins} == totals["texts"]
    assert {facts.origin: facts.kept for facts in data.origins if facts.kept} == totals["texts_kept"]
    return totals["texts"], totals["texts_kept"]


def test_books_tell_of_the_texts_that_are_in_the_shards(made: Made) -> None:
    dedup(str(made.dest))
    assert counts(made.dest) == in_shards(made.dest) == ({"web": 5}, {"web": 5})
    assert "pictures with 5 captions came out" in (made.dest / "README.md").read_text()


def test_another_rule_judges_the_texts_of_duplicates_too(made: Made, tmp_path: Path) -> None:
    before = made.ledger()
    dedup(str(made.dest))
    new = tmp_path / "new"
    # No text is of these origins: none stays, and no row of the ledger is of the old rule.
    told = refilter(str(made.dest), str(new), origins=["synthetic"])
    assert (told.before.texts_kept, told.after.texts_kept, told.after.kept) == ({"web": 5}, {}, 0)
    assert told.after.noise_ratio("web") == 1
    rows = [row for file in sorted((new / "pairs").iterdir()) for row in pq.read_table(file).to_pylist()]
    assert [row["drop"] for row in rows].count("duplicate") == 2
    assert not any(text["kept"] for row in rows for text in row["captions"])
    assert [row["captions"][0]["text"] for row in rows] == [row["captions"][0]["text"] for row in before]
    assert counts(new) == ({"web": 5}, {})
    assert verify(Store(str(new))) == []


def test_books_that_count_duplicates_are_no_damage_and_are_mended_by_the_same_call(made: Made, tmp_path: Path) -> None:
    dedup(str(made.dest))
    store = Store(str(made.dest))
    mended = (made.dest / "manifest.json").read_bytes()
    # As an earlier version left it.
    for part, marker in committed(store).items():
        older = Tally.with_duplicates(pq.read_table(made.dest / marker.ledger.name))
        store.write_json(f"parts/{part:05d}.json", replace(marker, tally=older).to_json())
    manifest = json.loads(mended)
    told = {name: manifest[name] for name in ("recipe", "source", "models")}
    write_manifest(store, **told, parts_planned=manifest["parts"], more={"dedup": manifest["dedup"]})
    assert json.loads((made.dest / "manifest.json").read_bytes())["totals"]["texts_kept"] == {"web": 7}

    assert verify(store) == []
    data = gather(store)
    assert data.tally == data.promised
    assert all(finding.level is not Level.BAD for finding in findings(data))
    assert refilter(str(made.dest), str(tmp_path / "new"), best=1).before.texts_kept == {"web": 5}
    assert counts(tmp_path / "new") == in_shards(tmp_path / "new")
    assert dedup(str(made.dest)).duplicates == ()
    assert counts(made.dest) == in_shards(made.dest) == ({"web": 5}, {"web": 5})
    assert verify(store) == []


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

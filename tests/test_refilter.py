"""Other verdicts from stored scores: the same as a run of the models would give, committed as a run commits."""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from capfilt.bootstrap import bootstrap
from capfilt.cli.main import call
from capfilt.errors import DestinationError, RecipeError, SourceError
from capfilt.flow.config import RunConfig
from capfilt.recipe import load
from capfilt.refilter import refilter
from capfilt.report.comparison import compare
from capfilt.report.gather import gather
from capfilt.shards.read import samples, shards_of
from capfilt.shards.verify import repair, verify
from capfilt.storage import Store

ROWS = 24


@dataclass(frozen=True)
class World:
    root: Path

    def run(self, dest: str, *settings: str) -> Path:
        common = [
            f"capfilt.captioner={self.root}/captioner",
            f"capfilt.filter={self.root}/filter",
            "capfilt.captions_per_image=2",
            "capfilt.skip_repeats=false",
            "plan.part_rows=7",
        ]
        source = str(self.root / "pictures")
        recipe = load(None, [*common, *settings], source=source)
        bootstrap(source, str(self.root / dest), recipe=recipe, run=RunConfig(runner="local"))
        return self.root / dest


@pytest.fixture(scope="module")
def world(tiny_architecture: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A folder of pictures with texts, one without, and two models with random weights whose scores spread."""
    import torch

    from capfilt.med.model import MED

    root = tmp_path_factory.mktemp("world")
    for seed, name in enumerate(("captioner", "filter")):
        torch.manual_seed(seed)
        model = MED.new(tiny_architecture)
        if name == "filter":
            torch.nn.init.normal_(model.itm_head.weight, std=3.0)
        model.save(root / name)
    (root / "pictures").mkdir()
    for n in range(ROWS):
        image = Image.new("RGB", (60 + n, 50), "white")
        ImageDraw.Draw(image).ellipse((5, 5, 30 + n, 40), fill=("red", "green", "blue")[n % 3])
        out = io.BytesIO()
        image.save(out, "JPEG")
        (root / "pictures" / f"{n:02d}.jpg").write_bytes(out.getvalue())
        if n:
            (root / "pictures" / f"{n:02d}.txt").write_text(f"a {('red', 'green', 'blue')[n % 2]} picture of {n}")
    (root / "pictures" / "99.jpg").write_bytes(b"no picture")
    world = World(root)
    scores = sorted(text["itm"] for row in ledger(world.run("first", "plan.part_rows=99")) for text in row["captions"])
    with torch.no_grad():  # so that half of the texts score below one half
        model.itm_head.bias[0] += math.log(scores[len(scores) // 2] / (1 - scores[len(scores) // 2]))
    model.save(root / "filter")
    return world


@pytest.fixture(scope="module")
def done(world: World) -> Path:
    """Finished with a threshold that leaves some pictures with three texts and some with none."""
    return world.run("done", f"capfilt.threshold={middle(world)}")


def middle(world: World) -> float:
    """A threshold just above a text of a picture that keeps another one, and above all texts of some picture."""
    rows = [[text["itm"] for text in row["captions"]] for row in ledger(world.run("all", "capfilt.threshold=0"))]
    for at in sorted({round(score + 0.001, 3) for row in rows for score in row}):
        lost = [max(row) for row in rows if row and max(row) < at]
        rejected = [score for row in rows if row and max(row) >= at for score in row if score < at]
        if len(lost) > 3 and max(rejected, default=0) > max(lost) + 0.01:
            return at
    raise AssertionError("the scores of these models do not suit")


def ledger(dest: Path) -> list[dict[str, Any]]:
    return [row for file in sorted((dest / "pairs").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def manifest(dest: Path) -> dict[str, Any]:
    return json.loads((dest / "manifest.json").read_text())


def higher(dest: Path) -> float:
    """A threshold that removes about half of the texts that are kept."""
    kept = sorted(text["itm"] for row in ledger(dest) for text in row["captions"] if text["kept"])
    return round(kept[len(kept) // 2], 3)


def files(dest: Path) -> dict[str, str]:
    return {
        str(file.relative_to(dest)): hashlib.sha256(file.read_bytes()).hexdigest()
        for kind in ("shards", "pairs", "parts")
        for file in sorted((dest / kind).iterdir())
    }


def verdicts(dest: Path) -> list[tuple[Any, ...]]:
    return [
        (row["id"], row["drop"], row["sha256"], [(c["text"], c["origin"], c["kept"]) for c in row["captions"]])
        for row in ledger(dest)
    ]


def test_it_gives_what_a_run_with_that_threshold_gives(world: World, done: Path, tmp_path: Path) -> None:
    at = higher(done)
    told = refilter(str(done), str(tmp_path / "new"), itm=at)
    again = world.run("models-again", f"capfilt.threshold={at}")
    assert 0 < told.after.kept < told.before.kept
    assert verdicts(tmp_path / "new") == verdicts(again)
    assert told.after.to_json() == manifest(again)["totals"] == manifest(tmp_path / "new")["totals"]
    # Shards too, byte by byte; ledgers differ in the sentence that says why a row was dropped.
    shards = {name: digest for name, digest in files(again).items() if name.startswith("shards/")}
    assert shards == {name: digest for name, digest in files(tmp_path / "new").items() if name.startswith("shards/")}
    assert verify(Store(str(tmp_path / "new"))) == []


def test_manifest_card_and_report_say_where_it_came_from(done: Path, tmp_path: Path) -> None:
    new, at = tmp_path / "new", higher(done)
    refilter(str(done), str(new), itm=at, best=1)
    told = manifest(new)["refilter"]
    assert told["from"] == str(done)
    assert told["rule"] == f"P(match) >= {at:g}, best 1"
    assert told["manifest_sha256"] == hashlib.sha256((done / "manifest.json").read_bytes()).hexdigest()
    assert told["before"] == manifest(done)["totals"]
    assert manifest(new)["recipe"]["capfilt"]["threshold"] == at
    assert manifest(new)["models"] == manifest(done)["models"]
    assert str(done) in (new / "README.md").read_text()
    assert f"P(match) &gt;= {at:g}, best 1" in (new / "report.html").read_text()
    dropped = [row["detail"] for row in ledger(new) if row["drop"] == "no_caption_kept"]
    assert any(f"(P(match) >= {at:g}, best 1)" in detail for detail in dropped)


def test_best_keeps_the_highest_score_and_origins_the_named(done: Path, tmp_path: Path) -> None:
    refilter(str(done), str(tmp_path / "best"), best=1)
    some = 0
    for old, row in zip(ledger(done), ledger(tmp_path / "best"), strict=True):
        assert old["drop"] == row["drop"]
        if row["drop"] is None:
            (kept,) = [text for text in row["captions"] if text["kept"]]
            assert kept["itm"] == max(text["itm"] for text in old["captions"] if text["kept"])
            some += sum(text["kept"] for text in old["captions"]) > 1
    assert some
    refilter(str(done), str(tmp_path / "web"), origins=["web"])
    kept = {text["origin"] for row in ledger(tmp_path / "web") for text in row["captions"] if text["kept"]}
    assert kept == {"web"}
    assert {sample.key for sample in samples(shards_of(str(tmp_path / "web")))} == {
        f"{row['part']:05d}-{row['row']:07d}" for row in ledger(tmp_path / "web") if row["drop"] is None
    }
    assert verify(Store(str(tmp_path / "web"))) == []
    # What is not asked for stays: of the refiltered ones too.
    third = refilter(str(tmp_path / "web"), str(tmp_path / "third"), best=1)
    assert third.rule.origins == ("web",)
    assert manifest(tmp_path / "third")["refilter"]["earlier"]["from"] == str(done)


def test_human_texts_are_kept_whatever_their_score(world: World, tmp_path: Path) -> None:
    human = world.run("human", "source.origin=human", "capfilt.threshold=0.5")
    told = refilter(str(human), str(tmp_path / "new"), itm=1.0)
    assert told.after.texts_kept["human"] == told.before.texts_kept["human"] > 0
    assert told.after.texts_kept.get("synthetic", 0) == 0


def test_pictures_that_are_gone_are_told_with_the_threshold_that_does_without(done: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="pictures would be kept whose bytes are not there") as caught:
        refilter(str(done), str(tmp_path / "new"), itm=0.0)
    assert not (tmp_path / "new").exists()
    least = float(caught.value.mend.split("--itm ")[1].split(" ")[0])
    assert least < manifest(done)["recipe"]["capfilt"]["threshold"]
    told = refilter(str(done), str(tmp_path / "new"), itm=least)
    assert told.after.kept == told.before.kept, "only texts of pictures that are there"
    assert verify(Store(str(tmp_path / "new"))) == []
    with pytest.raises(SourceError, match="whose bytes are not there"):
        refilter(str(done), str(tmp_path / "other"), itm=least - 0.002)


def test_the_first_data_set_is_named_where_it_has_the_pictures(done: Path, tmp_path: Path) -> None:
    at = higher(done)
    refilter(str(done), str(tmp_path / "strict"), itm=at)
    with pytest.raises(SourceError) as caught:
        refilter(str(tmp_path / "strict"), str(tmp_path / "back"), itm=manifest(done)["recipe"]["capfilt"]["threshold"])
    assert f"refilter {done}, from which this one was made" in caught.value.mend


def test_texts_that_were_forgotten_are_not_made_up(world: World, done: Path, tmp_path: Path) -> None:
    at = manifest(done)["recipe"]["capfilt"]["threshold"]
    forgot = world.run("forgot", f"capfilt.threshold={at}", "sink.keep_rejected_text=false")
    assert refilter(str(forgot), str(tmp_path / "up"), itm=at + 0.01, dry_run=True).after.rows == ROWS + 1
    rejected = [
        text["itm"] for row in ledger(forgot) if row["drop"] is None for text in row["captions"] if not text["kept"]
    ]
    lost = [max(c["itm"] for c in row["captions"]) for row in ledger(forgot) if row["drop"] == "no_caption_kept"]
    assert max(rejected) > max(lost), "of some picture that is there a text is not"
    with pytest.raises(SourceError, match="forgot what it rejected"):
        refilter(str(forgot), str(tmp_path / "down"), itm=max(lost) + 1e-6)


def test_a_dry_run_counts_and_writes_nothing(done: Path, tmp_path: Path) -> None:
    before, at = files(done), higher(done)
    counted = refilter(str(done), str(tmp_path / "new"), itm=at, dry_run=True)
    assert not (tmp_path / "new").exists()
    assert counted.after == refilter(str(done), str(tmp_path / "new"), itm=at).after
    assert files(done) == before


def test_the_reports_comparison_is_what_refiltering_gives(world: World, tmp_path: Path) -> None:
    dest = world.run("compared", "capfilt.threshold=0.45", "source.origin=human")
    lines = compare(gather(Store(str(dest))))
    assert [line.own for line in lines].count(True) == 1
    assert any(line.absent for line in lines) == ("no_caption_kept" in manifest(dest)["totals"]["dropped"])
    for line in lines:
        if line.threshold >= 0.45:
            told = refilter(str(dest), str(tmp_path / "new"), itm=line.threshold, dry_run=True).after
            assert (line.pictures, dict(line.texts)) == (
                told.kept,
                {"synthetic": 0, "human": 0} | dict(told.texts_kept),
            )


@pytest.mark.parametrize("bound", [{"origins": ["web"]}, {"best": 1}, {"best": 1, "origins": ["human", "synthetic"]}])
def test_the_comparison_keeps_to_the_rest_of_the_rule(world: World, tmp_path: Path, bound: dict[str, Any]) -> None:
    origin = "human" if "human" in bound.get("origins", []) else "web"
    dest = world.run(f"bounded-{origin}", "capfilt.threshold=0", f"source.origin={origin}")
    new = str(tmp_path / "new")
    refilter(str(dest), new, **bound, itm=0.1)
    data = gather(Store(new))
    for line in compare(data):
        if line.threshold >= 0.1:
            told = refilter(new, str(tmp_path / "other"), itm=line.threshold, dry_run=True).after
            kept = {origin: told.texts_kept.get(origin, 0) for origin in line.texts}
            assert (line.pictures, dict(line.texts)) == (told.kept, kept), line
    page = (tmp_path / "new" / "report.html").read_text()
    assert f"those that the rule leaves out ({data.rule.told().replace('>', '&gt;')})" in page


def test_cut_off_it_goes_on_and_ends_with_the_same_bytes(done: Path, tmp_path: Path) -> None:
    class DiedError(Exception):
        pass

    def die(parts: int, total: int, tally: object) -> None:
        if parts == 2:
            raise DiedError

    at = higher(done)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    refilter(str(done), str(whole), itm=at)
    with pytest.raises(DiedError):
        refilter(str(done), str(cut), itm=at, workers=1, on_part=die)
    assert not (cut / "manifest.json").exists()
    there = len(list((cut / "parts").iterdir()))
    assert 2 <= there < 4
    (cut / "shards" / "00003.tar").write_bytes(b"what a killed run left")
    told = refilter(str(done), str(cut), itm=at)
    assert (told.done_before, told.parts) == (there, 4)
    assert files(cut) == files(whole)
    # A damaged part is made anew by the same call, and no other.
    (cut / "pairs" / "00001.parquet").write_bytes(b"")
    assert repair(Store(str(cut))) == [1]
    assert refilter(str(done), str(cut), itm=at).done_before == 3
    assert files(cut) == files(whole)
    assert verify(Store(str(cut))) == []


def test_what_is_refused(world: World, done: Path, tmp_path: Path) -> None:
    new = str(tmp_path / "new")
    refilter(str(done), new, itm=higher(done))
    with pytest.raises(DestinationError, match="made by another recipe: capfilt"):
        refilter(str(done), new, itm=0.9999)
    with pytest.raises(DestinationError, match="it is the data set that is read"):
        refilter(str(done), str(done), itm=0.9999)
    with pytest.raises(SourceError, match="no finished data set"):
        refilter(str(tmp_path), new, itm=0.9)
    with pytest.raises(RecipeError, match="no origin of a text"):
        refilter(str(done), new, origins=["webb"])
    with pytest.raises(RecipeError, match="one score decides"):
        refilter(str(done), new, itm=0.9, itc=0.9)
    bare = world.run("bare", "capfilt.filter=null")
    with pytest.raises(SourceError, match="texts have no score to decide by"):
        refilter(str(bare), str(tmp_path / "bare"), itm=0.5)
    assert refilter(str(bare), str(tmp_path / "bare"), best=1).after.kept == ROWS
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    (copy / "parts" / "00000.json").unlink()
    with pytest.raises(SourceError, match="not the sum of its parts"):
        refilter(str(copy), str(tmp_path / "of-copy"), itm=0.9)


def test_the_command_shows_both_books(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = str(higher(done))
    new = str(tmp_path / "new")
    assert call(["refilter", str(done), new, "--itm", at, "--dry-run"]) == 0
    assert "would be" in capsys.readouterr().out
    assert call(["refilter", str(done), new, "--itm", at, "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["manifest"]["totals"] == told["after"]
    assert told["before"] == manifest(done)["totals"]
    assert said.err == ""
    assert call(["refilter", str(done), new]) == 2
    assert "Nothing is asked for" in capsys.readouterr().err

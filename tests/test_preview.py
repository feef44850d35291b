"""A few rows tried before a run: what the run would make of them, a page, and how fast it was."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from capfilt.bootstrap import bootstrap
from capfilt.cli.main import call
from capfilt.flow.config import RunConfig
from capfilt.preview import preview
from capfilt.recipe import load
from capfilt.report.trial import Speed, render


@pytest.fixture(scope="module")
def settings(tiny_architecture: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A captioner and a filter with random weights."""
    import torch

    from capfilt.med.model import MED

    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("captioner", "filter")):
        torch.manual_seed(seed)
        model = MED.new(tiny_architecture)
        if name == "filter":
            torch.nn.init.normal_(model.itm_head.weight, std=2.0)
        model.save(root / name)
    return [f"capfilt.captioner={root}/captioner", f"capfilt.filter={root}/filter", "capfilt.skip_repeats=false"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(14):
        image = Image.new("RGB", (60 + n, 50), "white")
        ImageDraw.Draw(image).ellipse((5, 5, 30 + n, 40), fill=("red", "green", "blue")[n % 3])
        out = io.BytesIO()
        image.save(out, "JPEG")
        (folder / f"{n:02d}.jpg").write_bytes(out.getvalue())
        (folder / f"{n:02d}.txt").write_text(f"<b>picture</b> {n}" if n else "...")
    (folder / "99.jpg").write_bytes(b"no picture")
    return folder


def test_it_says_what_the_run_would_make_of_these_rows(pictures: Path, settings: list[str], tmp_path: Path) -> None:
    recipe = load(None, settings, source=str(pictures))
    told: list[tuple[int, int]] = []
    looked = preview(recipe, rows=15, on_rows=lambda *now: told.append(now))
    assert told[0] == (0, 15)
    assert told[-1] == (15, 15)
    assert (looked.sampled, looked.rows, looked.seen, dict(looked.dropped)) == (15, 15, 14, {"not_an_image": 1})
    done = bootstrap(str(pictures), str(tmp_path / "dest"), recipe=recipe, run=RunConfig(runner="local"))
    assert done.manifest is not None
    (own,) = [line for line in looked.lines if line.own]
    assert own.pictures == done.manifest["totals"]["kept"]
    assert {name: n for name, n in own.texts.items() if n} == done.manifest["totals"]["texts_kept"]
    # Captions are seeded by rows, so these are the very captions and, batches aside, the scores of the run.
    rows = {
        row["id"]: row for file in (tmp_path / "dest" / "pairs").iterdir() for row in pq.read_table(file).to_pylist()
    }
    for row in looked.table.to_pylist():
        there = rows[row["id"]]["captions"]
        assert [(c["text"], c["kept"]) for c in row["captions"]] == [(c["text"], c["kept"]) for c in there]
        assert [c["itm"] for c in row["captions"]] == pytest.approx([c["itm"] for c in there], abs=1e-4)


def test_torch_has_its_threads_back_afterwards(pictures: Path, settings: list[str]) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads((os.cpu_count() or 1) + 1)  # a preview takes one for each core
        preview(load(None, settings, source=str(pictures)), rows=2)
        assert torch.get_num_threads() == (os.cpu_count() or 1) + 1
    finally:
        torch.set_num_threads(before)


def test_the_page_is_self_contained_and_escapes(pictures: Path, settings: list[str]) -> None:
    html = render(preview(load(None, settings, source=str(pictures)), rows=15))
    assert html.count("data:image/jpeg") == 14
    assert "&lt;b&gt;picture&lt;/b&gt;" in html
    assert "<b>picture" not in html
    assert "Not an image" in html


def test_without_a_filter_nothing_is_judged(pictures: Path, settings: list[str]) -> None:
    looked = preview(load(None, [*settings, "capfilt.filter=null"], source=str(pictures)), rows=5)
    assert looked.lines == ()
    assert "none judged" in render(looked)


def test_the_command(
    pictures: Path, settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sets = [word for setting in settings for word in ("--set", setting)]
    assert call(["preview", str(pictures), "-n", "6", "--price", "2", *sets]) == 0
    said = capsys.readouterr()
    assert "sample   6 of 15 rows" in said.out
    assert "images/s through the models" in said.out
    assert "USD at 2 an hour" in said.out
    assert (tmp_path / "preview.html").is_file()
    assert call(["preview", str(pictures), "-n", "6", "--json", "--out", "deep/page.html", *sets]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["sample"]) == told["sampled"] == 6
    assert told["page"] == str(tmp_path / "deep" / "page.html")
    assert (tmp_path / "deep" / "page.html").is_file()
    assert call(["preview", str(tmp_path / "none"), *sets]) == 2
    capsys.readouterr()
    assert call(["preview", str(pictures), "--out", "look/", *sets]) == 2
    assert capsys.readouterr().err.startswith("error: --out look/: it names a folder\n  mend: Say look/preview.html.")


def test_hours_follow_from_what_holds_it_up() -> None:
    speed = Speed(wall_s=3, fetch_s=0.01, image_s=0.5, reached=0.5)
    assert (speed.limits, speed.images_s, speed.hours(3600)) == ("models", 2, 0.25)
    assert Speed(wall_s=3, fetch_s=0.01, image_s=None, reached=0.0).limits == "fetch"

"""docs/formats.md tells the truth: each Python block of it runs on a data set that this build writes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import capfilt
from capfilt import catalog

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", PAGE, re.M | re.S)
ALL = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
NEEDS = {"open_clip_train.data": "open_clip_train", "mlcroissant": "mlcroissant"}
KEPT = 11


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``clean``: eleven pictures, one without a kept caption, in two parts, as tars and as tables."""
    root = tmp_path_factory.mktemp("formats")
    (root / "pictures").mkdir()
    for file in sorted((catalog.sample() / "images").glob("computer-icons-lemon*.png"))[:KEPT]:
        shutil.copy(file, root / "pictures" / file.name)
        (root / "pictures" / file.name).with_suffix(".txt").write_text(f"an icon, {file.stem}")
    assert clean(root, "clean")["totals"]["kept"] == KEPT
    return root


def clean(root, name):
    settings = ["sink.format=both", "plan.part_rows=6", "capfilt.captioner=null", "capfilt.threshold=0"]
    recipe = capfilt.load_recipe(None, settings, source=str(root / "pictures"))
    run = capfilt.RunConfig(runner="local")
    result = capfilt.bootstrap(str(root / "pictures"), str(root / name), recipe=recipe, run=run)
    assert result.manifest is not None
    return result.manifest


def run(program, place, *args, python=sys.executable):
    """Others' warnings are not ours, and nothing is asked of a network."""
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "hf"), "HOME": str(place), "WDS_SECURE": "0"}
    command = [python, "-c", program, *args]
    done = subprocess.run(command, cwd=place, env={**os.environ, **quiet}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


ENDS = {
    "import capfilt": """
assert sum(1 for _ in capfilt.read("clean")) == 11
assert picture.mode == "RGB" and caption.startswith("an icon") and rejected == []
""",
    "webdataset as wds": """
assert sum(1 for _ in data) == 11
assert caption.startswith("an icon") and picture.size == (everything["width"], everything["height"])
""",
    'load_dataset("clean", split': """
assert len(data) == 11
""",
    "tables =": """
assert len(tars) == len(tables) == 11
assert tables[0]["image"].size == tars[0]["jpg"].size
""",
    "open_clip_train.data": """
assert pictures.shape == (4, 3, 224, 224) and texts.shape == (4, 77)
assert data.dataloader.num_samples == 12  # whole batches
""",
    "mlcroissant": """
names = ("pictures", "captions", "parquet")
sets = {name: list(mlcroissant.Dataset("clean/croissant.json").records(name)) for name in names}
assert {name: len(found) for name, found in sets.items()} == {"pictures": 11, "captions": 11, "parquet": 11}, sets
assert caption.startswith("an icon") and sets["pictures"][0]["pictures/image"].size[0] > 16
assert {r["captions/key"] for r in sets["captions"]} == {r["pictures/key"] for r in sets["pictures"]}
""",
    "pyarrow.dataset": """
assert ledger.num_rows == 11
""",
}


def test_every_block_has_its_check():
    assert len(ALL) == len(ENDS)
    for block in ALL:
        assert sum(mark in block for mark in ENDS) == 1, block


@pytest.mark.parametrize("mark", list(ENDS))
def test_the_block_reads_all_of_it(mark, place):
    (block,) = (block for block in ALL if mark in block)
    if mark in NEEDS:
        pytest.importorskip(NEEDS[mark])
    run(block + ENDS[mark], place)


def test_croissant_says_nothing_that_its_own_reader_complains_of(place):
    pytest.importorskip("mlcroissant")
    program = (
        "import mlcroissant; data = mlcroissant.Dataset('clean/croissant.json'); print(data.metadata.issues.report())"
    )
    assert run(program, place) in ([], [""])


def test_equal_runs_give_equal_bytes(place, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for name in ("one", "two"):
        clean(place, name)
    one, two = (
        {str(path.relative_to(place / name)): path.read_bytes() for path in (place / name).rglob("*") if path.is_file()}
        for name in ("one", "two")
    )
    assert {"croissant.json", "README.md", "manifest.json"} <= set(one)
    assert {name for name in one | two if one.get(name) != two.get(name)} <= {"report.html"}  # it names its place

"""docs/paper-tables.md shows the committed results of the tables."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from PIL import ExifTags, Image

from capfilt.paper.config import load_table
from capfilt.paper.run import summary

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_paper", ROOT / "benchmarks" / "paper.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_what_the_results_hold(script: ModuleType) -> None:
    page, found = script.PAGE.read_text(encoding="utf-8"), script.results()
    assert found
    assert script.filled(page, found) == page
    for name in found:
        assert f"<!-- table {name}, from benchmarks/results/paper/{name}.json -->" in page
        assert f"](paper-tables/{name}.webp)" in page
        changed = json.loads(json.dumps(found))
        changed[name]["arms"][-1]["mean"]["CIDEr"] += 0.1
        assert script.filled(page, changed) != page


def test_the_results_are_of_the_shipped_tables_and_their_means_of_their_units(script: ModuleType) -> None:
    alone = [*script.files(script.RESULTS).items(), *script.files(script.RESULTS / "bfloat16").items()]
    for name, told in (*alone, *script.results().items()):
        assert [arm["name"] for arm in told["arms"]] == list(load_table(name).arms)
        for arm in told["arms"]:
            assert len(arm["units"]) == sum(one["seeds"] for one in told.get("pooled", [told])) >= 3
            again = summary([unit["figures"] for unit in arm["units"]])
            assert again["mean"]["human texts"] == arm["mean"]["human texts"] == 674, "one of a picture is trained on"
            assert again["mean"]["CIDEr"] == pytest.approx(arm["mean"]["CIDEr"])
            assert again["spread"]["recall"] == pytest.approx(arm["spread"]["recall"])


def test_each_plot_was_drawn_from_the_results(script: ModuleType) -> None:
    for name, told in script.results().items():
        with Image.open(script.PLOTS / f"{name}.webp") as shown:
            assert shown.getexif()[ExifTags.Base.ImageDescription] == script.digest(told)
            low, high = shown.convert("L").getextrema()
            assert high - low > 200, "something is drawn"


def test_pooled_results_hold_the_runs_of_both(script: ModuleType) -> None:
    found, also = script.files(script.RESULTS), script.files(script.RESULTS / "bfloat16")
    assert {told["precision"] for told in found.values()} == {"float32"}
    assert {told["precision"] for told in also.values()} == {"bfloat16"}
    for name, other in also.items():
        both = script.results()[name]
        assert [one["precision"] for one in both["pooled"]] == ["float32", "bfloat16"]
        for arm, one, two in zip(both["arms"], found[name]["arms"], other["arms"], strict=True):
            assert arm["units"] == one["units"] + two["units"]
            assert arm["mean"]["CIDEr"] == pytest.approx((one["mean"]["CIDEr"] + two["mean"]["CIDEr"]) / 2)
    with pytest.raises(ValueError, match="not one arm"):
        script.pooled(found["a"], found["d"] | {"arms": found["d"]["arms"] * 2})

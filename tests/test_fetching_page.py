"""docs/fetching.md quotes the committed results."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "fetching.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def test_the_speeds_are_those_of_the_benchmark():
    for name, found in json.loads((RESULTS / "fetch.json").read_text())["scenarios"].items():
        ours, theirs = (found["images_per_s"][side]["median"] for side in ("capfilt", "img2dataset"))
        assert f"| {name} | {ours:.0f} | {theirs:.0f} | {found['ratio']['median']:.2f} |" in PAGE


def test_the_mutated_pictures_are_those_of_the_run():
    found = json.loads((RESULTS / "mutate.json").read_text())
    grown = found["rss_mb_after"]["10000"] - found["rss_mb_after"]["2000"]
    assert found["exceptions"] == 0
    assert f"from {found['originals']} real and drawn ones" in PAGE
    assert f"the slowest {found['slowest_s']:.1f} s, and {grown:.1f} MB more memory" in " ".join(PAGE.split())

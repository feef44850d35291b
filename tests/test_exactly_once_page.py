"""docs/exactly-once.md quotes the committed results, and the benchmarks it names work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "exactly-once.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def result(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_the_disturbed_runs_are_those_of_the_benchmark():
    found = result("chaos")
    assert found["failed"] == []
    assert found["runs"] >= 50
    assert found["rows"] >= 2000
    kinds = [one["kind"] for one in found["each"]]
    for kind, told in (("local", "in one process"), ("ray", "on Ray"), ("s3", "to S3")):
        assert f"| runs {told} | {kinds.count(kind)} |" in PAGE
    for kind, count in found["kinds"].items():
        assert f"| {kind} | {count} |" in PAGE
    for name in ("lost", "twice", "different", "problems"):
        assert f"| {name} | {found[name]} |" in PAGE


def test_the_memory_is_that_of_the_benchmark():
    found = result("memory")
    for kind, ratio in found["last_to_first"].items():
        first, last = (run["peak_mib"][kind] for run in (found["runs"][0], found["runs"][-1]))
        assert f"| {kind} | {first:,.0f} | {last:,.0f} | {ratio:.2f} |" in PAGE


def test_the_books_are_those_of_the_benchmark():
    small, large = result("books")["results"]
    for name in ("left", "finish", "done", "verify"):
        cells = [f"{run[name]['seconds']:,.0f} s, {run[name]['mib']:,.0f} MiB" for run in (small, large)]
        assert f"| {cells[0]} | {cells[1]} |" in PAGE


@pytest.mark.slow
def test_the_books_of_a_small_set(tmp_path):
    out = tmp_path / "books.json"
    command = [sys.executable, "-P", ROOT / "benchmarks" / "books.py", "--rows", "20000", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    small, large = json.loads(out.read_text())["results"]
    assert (small["rows"], large["rows"], large["parts"]) == (2000, 20000, 20)
    assert large["verify"]["seconds"] > 0

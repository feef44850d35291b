"""Mutated pictures, real and drawn, harm nobody. The ten thousand of ``benchmarks/results`` are the long form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def mutated(count: int, seed: int) -> dict:
    # -P: else the folder's own names would hide the packages of the same name.
    command = [sys.executable, "-P", ROOT / "benchmarks" / "mutate.py", "--count", str(count), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr  # which libtiff may write to
    return json.loads(done.stdout)


def test_three_hundred():
    found = mutated(300, 1)
    assert sum(found["outcomes"].values()) == 300
    assert 30 < found["outcomes"]["kept"] < 270
    assert found["slowest_s"] < 10
    assert len(found["by_format"]) > 15


@pytest.mark.slow
def test_ten_thousand_grow_no_memory():
    found = mutated(10_000, 0)
    memory = found["rss_mb_after"]
    assert memory["10000"] - memory["2000"] < 20
    assert found["slowest_s"] < 10


def test_the_committed_run_is_one_that_passes():
    found = json.loads((ROOT / "benchmarks" / "results" / "mutate.json").read_text())
    assert (found["pictures"], found["exceptions"]) == (10_000, 0)
    assert sum(found["outcomes"].values()) == 10_000
    assert found["rss_mb_after"]["10000"] - found["rss_mb_after"]["2000"] < 20

"""Runs that are killed, resumed and compared with an undisturbed one; the long form is benchmarks/chaos.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.slow
def test_killed_runs_lose_nothing_repeat_nothing_and_change_nothing(tmp_path):
    out = tmp_path / "chaos.json"
    asked = ["--runs", "4", "--ray", "0", "--s3", "0", "--pictures", "600", "--parallel", "2", "--out", str(out)]
    done = subprocess.run([sys.executable, "-P", SCRIPT, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["harms"] >= 4
    assert report["rows"] == 600
    assert report["failed"] == []
    assert {name: report[name] for name in ("lost", "twice", "different", "problems")} == dict.fromkeys(
        ("lost", "twice", "different", "problems"), 0
    )

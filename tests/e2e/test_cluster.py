"""Several Ray nodes on one machine: one is killed, another joins, the head dies; at length in benchmarks/cluster.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "cluster.py"
LOST = ("lost", "twice", "different", "problems")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_when_nodes_come_and_go_and_a_dead_head_says_how_to_go_on(tmp_path):
    out = tmp_path / "cluster.json"
    asked = [sys.executable, "-P", SCRIPT, "--pictures", "1200", "--out", str(out)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["rows"] == 1200
    for case in ("node_dies", "head_dies"):
        assert {name: report[case][name] for name in LOST} == dict.fromkeys(LOST, 0)
    assert len(report["node_dies"]["events"]) == 2
    assert report["head_dies"]["exit"] in (1, 2)
    assert any("Run the same command again" in line for line in report["head_dies"]["said_last"])
    plans = report["node_dies"]
    assert plans["plan"][:3] == ["cluster 3 machines", "  1 of 0 CPUs", "  2 of 2 CPUs"]
    assert any("cannot be placed" in line for line in plans["plan_too_large"])

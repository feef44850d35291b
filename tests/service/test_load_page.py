"""docs/service.md quotes the committed load test."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")


def test_the_table_and_the_crowd_are_those_of_the_results() -> None:
    told = json.loads((ROOT / "benchmarks" / "results" / "serve.json").read_text())
    for line in told["rounds"][0]:
        late = line["latency_ms"]
        cells = [f"{line['requests_s']:.2f}", f"{line['pictures_s']:.1f}"]
        cells += [f"{late[name]:,}" for name in ("p50", "p95", "p99")]
        assert f"| {line['clients']} | {' | '.join(cells)} |" in PAGE
    assert f"a share of {told['share_of_engine']:.2f}" in PAGE
    (crowd,) = told["too_many"]
    assert f"{crowd['answers']['429']} refusals" in PAGE
    assert f"all {crowd['asked']} requests" in PAGE


def test_nothing_was_lost_broken_or_mixed_up() -> None:
    told = json.loads((ROOT / "benchmarks" / "results" / "serve.json").read_text())
    for line in (*told["rounds"][0], *told["too_many"]):
        assert set(line["answers"]) <= {"200", "429"}
        assert line["answered"] == line["asked"] == line["answers"]["200"]
        assert line["other captions"] == 0

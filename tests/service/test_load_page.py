"""docs/service.md quotes the committed load tests."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
RUNNERS = {"local": "serve.json", "ray": "serve-ray.json"}


def told(runner):
    return json.loads((ROOT / "benchmarks" / "results" / RUNNERS[runner]).read_text())


def row(runner, lines):
    """The medians of the rounds, as a row of the page's table."""
    cells = [runner, f"{lines[0]['clients']}", f"{median(line['requests_s'] for line in lines):.2f}"]
    cells.append(f"{median(line['pictures_s'] for line in lines):.1f}")
    cells += [f"{median(line['latency_ms'][name] for line in lines):,.0f}" for name in ("p50", "p95", "p99")]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_table_has_the_medians_of_the_rounds(runner):
    found = told(runner)
    assert found["runner"] == runner
    for lines in zip(*found["rounds"], strict=True):
        assert row(runner, lines) in PAGE


@pytest.mark.parametrize("runner", RUNNERS)
def test_engine_share_and_crowd_are_those_of_the_results(runner):
    found = told(runner)
    engines, crowds = found["engine_images_s"], found["too_many"]
    refused = [crowd["answers"]["429"] for crowd in crowds]
    best = [max(line["pictures_s"] for line in lines) for lines in found["rounds"]]
    pairs = [
        f"{found['share_of_engine']:.2f}",
        " and ".join(f"{rate:.1f}" for rate in engines),
        " and ".join(f"{rate:.1f}" for rate in best),
        " and ".join(map(str, refused)),
        f"{sum(crowd['answered'] for crowd in crowds)} of {sum(crowd['asked'] for crowd in crowds)}",
    ]
    assert f"| {runner} | {' | '.join(pairs)} |" in PAGE


@pytest.mark.parametrize("runner", RUNNERS)
def test_nothing_was_lost_broken_or_mixed_up_and_the_engine_is_the_limit(runner):
    found = told(runner)
    assert found["share_of_engine"] >= 0.85
    for line in (*(line for lines in found["rounds"] for line in lines), *found["too_many"]):
        assert set(line["answers"]) <= {"200", "429"}
        assert line["answered"] == line["asked"] == line["answers"]["200"]
        assert line["other captions"] == 0

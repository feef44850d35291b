"""docs/cluster.md quotes the committed result."""

import json
from pathlib import Path

from capfilt.flow.farewell import WORDS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
FOUND = json.loads((ROOT / "benchmarks" / "results" / "cluster.json").read_text())


def test_the_table_is_that_of_the_benchmark():
    rows = f"{FOUND['rows']:,}"
    for case, told in (("node_dies", "a node dies, another joins"), ("head_dies", "the head dies")):
        cells = [str(FOUND[case][name]) for name in ("lost", "twice", "different", "problems")]
        assert f"| {told} | {rows} | {' | '.join(cells)} |" in PAGE


def test_the_placement_is_what_the_cluster_said():
    assert "\n".join(FOUND["node_dies"]["plan"]) in PAGE


def test_the_last_words_are_those_that_were_heard():
    assert FOUND["head_dies"]["said_last"][-2:] == WORDS.splitlines()
    assert WORDS in PAGE

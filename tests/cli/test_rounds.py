"""``capfilt rounds`` as a user meets it: the rounds side by side, and the same as JSON when asked again."""

from __future__ import annotations

import json

RECIPE = """
captioner: {task: captioner}
filter: {task: filter}
bootstrap: {capfilt: {threshold: 0.0, max_length: 10, min_length: 4}}
pretrain: {task: pretrain, steps: 2, batch_size: 8, objective: {queue_size: 0}}
"""


def test_a_round_is_shown_and_said_again_as_json(capfilt, tiny_architecture, tiny_models, shape_shard, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE)
    args = (
        *("rounds", "1", shape_shard, shape_shard, shape_shard, tmp_path / "out", "--runner", "local"),
        *("--recipe", tmp_path / "mine.yaml", "--set", f"pretrain.model={tiny_architecture}"),
        *("--set", f"start.captioner={tiny_models}/captioner", "--set", f"start.filter={tiny_models}/filter"),
        *("--set", "bootstrap.plan.part_rows=512"),
    )
    said = capfilt(*args)
    assert said.code == 0, said.err
    assert all(words in said.out for words in ("round 1", "Pictures kept", "Web noise", "given", f"report  {tmp_path}"))
    assert "round 1 data 1/1  512 rows" in said.err
    assert "round 1 pretrain 2/2  itc" in said.err
    again = capfilt(*args, "--json")
    assert (again.code, again.err) == (0, "")
    told = json.loads(again.out)
    assert [figures["round"] for figures in told["rounds"]] == [1]
    assert told["rounds"][0]["data"]["totals"]["rows"] == 512
    wrong = capfilt(*args, "--set", "pretrain.steps=3")
    assert wrong.code == 2
    assert "pretrain.steps is 2 there and 3 now" in wrong.err

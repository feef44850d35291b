"""``capfilt evaluate`` as a user meets it: tables, JSON, files, and what a model cannot do."""

from __future__ import annotations

import json

import pytest
import torch

from capfilt.med.model import MED


@pytest.fixture(scope="module")
def models(tiny_architecture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    whole = MED.new(tiny_architecture).eval()
    whole.save(folder / "whole")
    whole.only("captioner").save(folder / "captioner")
    whole.only("filter").save(folder / "filter")
    return folder


def test_a_whole_model_is_measured_on_everything(capfilt, models, shape_shard, tmp_path):
    out = tmp_path / "out"
    said = capfilt("evaluate", models / "whole", shape_shard, "--limit", "24", "--rerank", "4", "--out", out)
    assert said.code == 0, said.err
    assert all(word in said.out for word in ("24 pictures", "CIDEr", "Diversity", "by ITM", "R@10", "first 4 by ITM"))
    assert "captioning ..." in said.err
    told = json.loads((out / "evaluation.json").read_text())
    assert told["pictures"] == 24
    assert told["filtering"]["pairs"] == 24
    assert 0 <= told["filtering"]["auc_itm"] <= 1
    assert told["retrieval"]["reranked"] == 4
    assert told["filtering"]["thresholds"][0]["recall"] == 1
    captions = [json.loads(line) for line in (out / "captions.jsonl").read_text().splitlines()]
    assert len({row["key"] for row in captions}) == 24
    assert (out / "thresholds.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in out.iterdir()) == ["captions.jsonl", "evaluation.json", "scores.png", "thresholds.png"]


def test_json_is_all_of_stdout(capfilt, models, shape_shard):
    said = capfilt("evaluate", models / "filter", shape_shard, "--limit", "16", "--json", "--quiet")
    assert (said.code, said.err) == (0, "")
    told = json.loads(said.out)
    assert {"filtering", "retrieval"} <= told.keys()
    assert "captioning" not in told


@pytest.mark.parametrize(("option", "value"), [("--device", "cuda:77"), ("--device", "toaster"), ("--out", "s3://b/x")])
def test_what_cannot_be_is_said_before_anything_is_computed(capfilt, models, shape_shard, option, value):
    said = capfilt("evaluate", models / "filter", shape_shard, option, value)
    assert said.code == 2
    assert len(said.err.splitlines()) == 2
    assert said.out == ""


def test_a_file_in_the_place_of_the_folder_is_said_at_once(capfilt, models, shape_shard, tmp_path):
    (tmp_path / "taken").write_text("mine")
    said = capfilt("evaluate", models / "filter", shape_shard, "--out", tmp_path / "taken")
    assert said.code == 2
    assert "cannot be written to" in said.err
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize(
    ("model", "measure", "can"), [("captioner", "retrieval", "captioning"), ("filter", "captioning", "filtering")]
)
def test_what_a_model_cannot_do_is_said_with_what_it_can(capfilt, models, shape_shard, model, measure, can):
    said = capfilt("evaluate", models / model, shape_shard, "--limit", "8", "--measure", measure)
    assert said.code == 2
    assert f"cannot do {measure}" in said.err
    assert can in said.err


def test_a_captioner_writes_by_the_decoding_that_is_asked_for(capfilt, models, shape_shard, tmp_path):
    written = {}
    for decoding in ("greedy", "nucleus"):
        said = capfilt(
            "evaluate",
            models / "captioner",
            shape_shard,
            "--limit",
            "8",
            "--decoding",
            decoding,
            "--out",
            tmp_path / decoding,
        )
        assert said.code == 0, said.err
        written[decoding] = (tmp_path / decoding / "captions.jsonl").read_text()
    assert written["greedy"] != written["nucleus"]

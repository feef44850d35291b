"""``capfilt evaluate`` as a user meets it: tables, JSON, files, and what a model cannot do."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import save_file

from capfilt.med.model import MED
from tests.conftest import COLOURS, shape_picture


@pytest.fixture(autouse=True)
def without_java(monkeypatch, tmp_path_factory):
    """METEOR's program takes half a minute to start; ``tests/evaluate/test_quality.py`` has it."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))


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
    assert told["retrieval"]["reranked_texts"] == told["retrieval"]["reranked_pictures"] == 4
    assert told["filtering"]["thresholds"][0]["recall"] == 1
    captions = [json.loads(line) for line in (out / "captions.jsonl").read_text().splitlines()]
    assert len({row["key"] for row in captions}) == 24
    assert told["unfinished"] == []
    assert "noise ratio at P(match) 0.5" in said.out
    plots = ["scores.png", "thresholds.png"]
    assert all((out / plot).read_bytes().startswith(b"\x89PNG") for plot in plots)
    assert sorted(file.name for file in out.iterdir()) == ["captions.jsonl", "evaluation.json", *plots]


def test_figures_stay_when_a_later_measure_fails_and_the_next_run_takes_their_place(
    capfilt, models, shape_shard, tmp_path
):
    """A text projection that gives no numbers: captioning is well, filtering cannot be."""
    model = MED.load(models / "whole")
    with torch.no_grad():
        model.text_proj.bias.fill_(float("nan"))
    damaged, out = tmp_path / "damaged", tmp_path / "out"
    shutil.copytree(models / "whole", damaged)
    save_file(model.state_dict(), damaged / "model.safetensors")
    said = capfilt("evaluate", damaged, shape_shard, "--limit", "8", "--out", out)
    assert said.code == 2
    assert "not numbers" in said.err
    assert f"wrote  {out / 'evaluation.json'}" in said.err
    told = json.loads((out / "evaluation.json").read_text())
    assert told["unfinished"] == ["filtering", "retrieval"]
    assert told["captioning"]["captions"] == 8
    assert sorted(file.name for file in out.iterdir()) == ["captions.jsonl", "evaluation.json"]
    (out / "mine.txt").write_text("not the evaluation's")
    assert capfilt("evaluate", models / "filter", shape_shard, "--limit", "8", "--out", out).code == 0
    told = json.loads((out / "evaluation.json").read_text())
    assert (told["model"], told["unfinished"]) == (str(models / "filter"), [])
    names = ["evaluation.json", "mine.txt", "scores.png", "thresholds.png"]
    assert sorted(file.name for file in out.iterdir()) == names


def test_a_run_that_fails_before_its_first_figures_leaves_the_earlier_ones(capfilt, models, shape_shard, tmp_path):
    assert capfilt("evaluate", models / "filter", shape_shard, "--limit", "8", "--out", tmp_path).code == 0
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    said = capfilt(
        "evaluate", models / "captioner", shape_shard, "--measure", "retrieval", "--limit", "8", "--out", tmp_path
    )
    assert said.code == 2
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_flickr30k_in_karpathys_layout_is_ranked_by_its_split(capfilt, models, tmp_path):
    """The published file's fields: five sentences a picture, three splits, no ``filepath`` and no ``cocoid``."""
    draw, images, sentid = random.Random(0), [], 0
    for i, (colour, split) in enumerate(zip(COLOURS, ("train", "test", "val", "test"), strict=True)):
        (tmp_path / f"{i}.jpg").write_bytes(shape_picture(colour, "circle", draw))
        sentences = []
        for text in (f"A {colour} circle.", f"A circle, {colour}", f"{colour} on white", f"circle {colour}", colour):
            tokens = text.lower().strip(".").split()
            sentences.append({"tokens": tokens, "raw": text, "imgid": i, "sentid": sentid})
            sentid += 1
        ids = [sentence["sentid"] for sentence in sentences]
        images.append({"sentids": ids, "imgid": i, "sentences": sentences, "split": split, "filename": f"{i}.jpg"})
    file = tmp_path / "dataset_flickr30k.json"
    file.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    said = capfilt(
        "evaluate", models / "filter", file, "--split", "test", "--measure", "retrieval", "--rerank", "1", "--json"
    )
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert (told["retrieval"]["pictures"], told["retrieval"]["texts"], told["split"]) == (2, 10, "test")
    assert told["retrieval"]["image"]["at_5"] == 1.0
    assert 0 < told["retrieval"]["text"]["at_10"] <= 1


def test_the_table_says_of_each_direction_how_many_candidates_there_were(capfilt, models, tmp_path):
    draw = random.Random(0)
    (tmp_path / "a.json").write_text(
        json.dumps([{"image": f"{c}.jpg", "caption": [f"a {c} circle", f"{c} on white"]} for c in COLOURS])
    )
    for colour in COLOURS:
        (tmp_path / f"{colour}.jpg").write_bytes(shape_picture(colour, "circle", draw))
    said = capfilt("evaluate", models / "filter", tmp_path / "a.json", "--measure", "retrieval")
    assert said.code == 0, said.err
    assert f"texts, first {2 * len(COLOURS)} by ITM" in said.out
    assert f"pictures, first {len(COLOURS)} by ITM" in said.out


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


def test_references_without_a_word_are_refused_before_captions_are_written(capfilt, models, tmp_path):
    """The picture, which is none, would be opened for its caption."""
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "a.json").write_text(json.dumps([{"image": "a.png", "caption": ["...", "!"]}]))
    said = capfilt("evaluate", models / "captioner", tmp_path / "a.json")
    assert (said.code, "no reference has a word" in said.err) == (2, True)


def test_a_filter_is_measured_on_pairs_that_someone_judged(capfilt, models, shape_shard, tmp_path):
    lines = ["id,text,label,set", *(f"{i},a red circle,{('right', 'wrong')[i % 2]},shapes" for i in range(12))]
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "9999,a red circle,right,shapes"]) + "\n")
    asked = ("--labels", tmp_path / "labels.csv", "--limit", "12", "--out", tmp_path / "out")
    said = capfilt("evaluate", models / "filter", shape_shard, "--measure", "labels", *asked)
    assert said.code == 0, said.err
    assert "shapes" in said.out
    assert "1 labels are of pictures that are not in the data" in said.out
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert "filtering" not in told
    own = told["labels"]["sets"]["shapes"]
    assert (own["right"], own["wrong"], told["labels"]["not_found"]) == (6, 6, 1)
    rows = [json.loads(line) for line in (tmp_path / "out" / "judgements.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(i) for i in range(12)]
    right, wrong = ([row["itm"] for row in rows if row["label"] == label] for label in ("right", "wrong"))
    above = sum((r > w) + (r == w) / 2 for r in right for w in wrong) / 36
    assert own["auc_itm"]["value"] == pytest.approx(above)
    both = capfilt("evaluate", models / "filter", shape_shard, "--measure", "filtering", *asked, "--json")
    assert {"filtering", "labels"} <= json.loads(both.out).keys()
    assert "judgements" not in json.loads(both.out)


def test_labels_beyond_the_limit_are_found_or_not_called_absent(capfilt, models, shape_shard, tmp_path):
    (tmp_path / "labels.csv").write_text(
        "id,text,label\n3,a red circle,right\n20,a red circle,wrong\n9999,a circle,right\n"
    )
    asked = ("evaluate", models / "filter", shape_shard, "--labels", tmp_path / "labels.csv")
    alone = capfilt(*asked, "--measure", "labels", "--limit", "4")
    assert alone.code == 0, alone.err
    assert "2 pictures" in alone.out
    assert "1 labels are of pictures that are not in the data" in alone.out
    cut = capfilt(*asked, "--measure", "labels", "--limit", "1")
    assert "2 labels are of pictures that are not among the first 1 pictures (--limit)" in cut.out
    beside = capfilt(*asked, "--measure", "filtering", "--limit", "8")
    assert "2 labels are of pictures that are not among the first 8 pictures (--limit)" in beside.out
    (tmp_path / "labels.csv").write_text("id,text,label\n9999,a circle,right\n")
    none = capfilt(*asked, "--measure", "labels")
    assert (none.code, "none of the labels' pictures is there" in none.err) == (2, True)


def test_labels_need_a_filter_and_a_table(capfilt, models, shape_shard, tmp_path):
    (tmp_path / "labels.csv").write_text("id,text,label\n0,a circle,right\n")
    said = capfilt("evaluate", models / "captioner", shape_shard, "--labels", tmp_path / "labels.csv")
    assert (said.code, "judges nothing" in said.err) == (2, True)
    said = capfilt("evaluate", models / "filter", shape_shard, "--measure", "labels")
    assert (said.code, "--labels FILE" in said.err) == (2, True)
    (tmp_path / "labels.csv").write_text("id,text,label\n0,a circle,good\n")
    said = capfilt("evaluate", models / "filter", shape_shard, "--labels", tmp_path / "labels.csv")
    assert (said.code, "line 2" in said.err, len(said.err.splitlines())) == (2, True, 2), "before anything is measured"

"""The paper's tables with a tiny model: what arms share, how a run goes on, what it says, and what it refuses."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from capfilt.cli.main import call
from capfilt.errors import RecipeError
from capfilt.med import device
from capfilt.paper import page
from capfilt.paper.config import Arm, SplitConfig, load_scale, load_table, tables
from capfilt.paper.experiment import _content
from capfilt.paper.material import cut
from capfilt.paper.run import run_table, summary
from capfilt.shards.read import samples
from capfilt.shards.sample import Sample
from capfilt.shards.tar import write_tar
from tests.conftest import COLOURS, SHAPES, shape_picture

TRAIN = "{task: %s, steps: 2, batch_size: 8, device: cpu, objective: {queue_size: 0, momentum: null, alpha: 0.0}}"
SCALE = f"""
model:
  vision: {{image_size: 32, patch_size: 8, width: 32, depth: 1, heads: 2}}
  text: {{width: 32, depth: 1, heads: 2, ffn_width: 64, max_positions: 32}}
  embed_dim: 16
  prompt: ""
split: {{concepts_one_in: 1, human_share: 0.3, wrong_share: 0.5, clipart_one_in: 2}}
pretrain: {TRAIN % "pretrain, data: {captions_per_image: 1}"}
captioner: {TRAIN % "captioner"}
filter: {TRAIN % "filter"}
shared: {TRAIN % "pretrain"}
next_captioner: {TRAIN % "captioner"}
capfilt: {{dtype: float32, device: cpu, max_length: 8, min_length: 3, threshold: 0.0}}
measure: {{pictures: 10}}
"""
TABLE = """
title: a small one
section: none
arms:
  none: {title: raw, paper: {CIDEr: 127.8}}
  both: {title: both, captioner: true, filter: true, paper: {CIDEr: 129.7}}
  shared: {title: one model, captioner: true, filter: true, roles: shared, sharing: none}
  again: {title: two rounds, captioner: true, captions: 2, rounds: 2, start: continue, web: 0.0}
show: [noise, CIDEr, recall]
"""


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``capfilt corpora build`` writes, of coloured shapes."""
    folder = tmp_path_factory.mktemp("corpora")
    draw = random.Random(3)

    def write(name: str, count: int, origin: str) -> None:
        found = []
        for n in range(count):
            colour, shape = draw.choice(list(COLOURS)), draw.choice(SHAPES)
            texts = [f"a {colour} {shape}", f"{shape} {colour}"][: 2 if origin == "human" else 1]
            captions = [{"text": t, "origin": origin, "itm": None, "itc": None, "kept": True} for t in texts]
            picture = shape_picture(colour, shape, draw, side=40)
            found.append(Sample(f"{name}-{n:07d}", picture, captions, {"concept": f"{colour} {shape}"}))
        with (folder / f"{name}-00000.tar").open("wb") as file:
            write_tar(file, found)

    write("human-train", 80, "human")
    write("web-train", 20, "web")
    write("heldout-picture", 12, "human")
    write("heldout-seen-style", 12, "human")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "picture",
        "of",
        *COLOURS,
        *SHAPES,
        *(f"word{n}" for n in range(48)),
    ]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    save_file({"words": torch.randn(len(words), 48)}, folder / "words.safetensors")
    return folder


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("asked")
    (folder / "small.yaml").write_text(TABLE)
    (folder / "tiny.yaml").write_text(SCALE)
    return str(folder / "small.yaml"), str(folder / "tiny.yaml")


@pytest.fixture(scope="module")
def made(corpora: Path, asked: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished table of one seed, by the command."""
    out = tmp_path_factory.mktemp("out")
    args = ["--corpora", str(corpora), "--out", str(out), "--scale", asked[1], "--seeds", "1", "--quiet"]
    assert call(["paper", asked[0], *args]) == 0
    return out


def test_a_table_says_every_arm_with_the_paper_beside_it(made: Path) -> None:
    told = json.loads((made / "small.json").read_text())
    assert [arm["name"] for arm in told["arms"]] == ["none", "both", "shared", "again"]
    for arm in told["arms"]:
        assert [unit["seed"] for unit in arm["units"]] == [0]
        assert {"CIDEr", "recall", "CIDEr, new concepts", "human texts"} <= set(arm["mean"])
    none, both, _, again = (arm["mean"] for arm in told["arms"])
    assert both["noise"] == 0.0, "a threshold of 0 rejects nothing"
    assert both["web texts"] == told["material"]["pictures"]["web"] == none["web texts"]
    assert both["synthetic texts"] > 0
    assert none["synthetic texts"] == 0
    assert again["web texts"] == 0
    assert (made / "small.md").read_text() == page.markdown(told)
    assert (made / "small.png").read_bytes().startswith(b"\x89PNG")
    assert told["cpu_s"] > 0


def test_an_arm_trains_on_as_many_synthetic_texts_a_picture_as_it_asks_for(made: Path) -> None:
    told = json.loads((made / "small.json").read_text())
    _, both, _, again = (arm["mean"]["synthetic texts"] for arm in told["arms"])
    pictures = told["material"]["pictures"]["web"]
    data = [json.loads(file.read_text()) for file in (made / "steps").glob("data-*/done.json")]
    written = {
        done["identity"]["capfilt"]["captions_per_image"]: done["figures"]["totals"]["texts_kept"]["synthetic"]
        for done in data
    }
    assert both == pictures
    assert again == written[2] > pictures
    asked = [json.loads(file.read_text())["identity"] for file in (made / "steps").glob("pretrain-*/done.json")]
    # Whoever trains on one text a picture is named as before, so that its steps need not be done again.
    assert sorted(own["texts"].get("captions", 0) for own in asked) == [0, 0, 0, 0, 2, 2]


def test_the_texts_told_of_are_those_that_training_reads(made: Path) -> None:
    told = json.loads((made / "small.json").read_text())
    material = told["material"]
    assert material["captions"]["human"] == 2 * material["pictures"]["human"]
    for arm in told["arms"]:
        assert arm["mean"]["human texts"] == material["pictures"]["human"], "the scale reads one of a picture"


def test_arms_share_what_they_have_in_common(made: Path) -> None:
    kinds = [folder.name.split("-")[0] for folder in (made / "steps").iterdir()]
    # The raw model of `none` is what `both` and `again` finetune; `shared` has another architecture.
    assert {kind: kinds.count(kind) for kind in ("start", "pretrain", "captioner", "shared", "data", "measure")} == {
        "start": 2,
        "pretrain": 6,
        "captioner": 2,
        "shared": 1,
        "data": 4,
        "measure": 4,
    }


def test_a_second_run_does_what_is_missing_and_no_more(
    made: Path, corpora: Path, asked: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(made, out)
    before = json.loads((out / "small.json").read_text())
    begun: list[str] = []
    told = run_table(asked[0], str(out), corpora=str(corpora), scale=asked[1], seeds=1, tell=begun.append)
    assert [line for line in begun if line.startswith("  ")] == []
    assert told == before
    lost = next(folder for folder in (out / "steps").iterdir() if folder.name.startswith("measure"))
    (lost / "done.json").unlink()
    begun.clear()
    again = run_table(asked[0], str(out), corpora=str(corpora), scale=asked[1], seeds=1, tell=begun.append)
    assert [line for line in begun if line.startswith("  ")] == [f"  {lost.name}"]
    assert again["arms"] == before["arms"]


def test_a_filter_that_is_apart_can_be_finetuned_as_long_as_the_shared_model(
    made: Path, corpora: Path, tmp_path: Path, asked: tuple[str, str]
) -> None:
    out, file, scale = tmp_path / "out", tmp_path / "two.yaml", tmp_path / "scale.yaml"
    shutil.copytree(made, out)
    own = yaml.safe_load(SCALE)
    own["shared"] |= {"steps": 3, "optim": {"lr": 2e-3}}
    scale.write_text(yaml.safe_dump(own))
    table = yaml.safe_load(TABLE)
    both = {**table["arms"]["both"], "roles": "decoupled_as_long"}
    table["arms"] = {"none": table["arms"]["none"], "long": both}
    file.write_text(yaml.safe_dump(table))
    begun: list[str] = []
    told = run_table(str(file), str(out), corpora=str(corpora), scale=str(scale), seeds=1, tell=begun.append)
    kinds = [line.split("-")[0].strip() for line in begun if line.startswith("  ")]
    assert kinds == ["filter", "data", "pretrain", "next", "measure"], "the captioner is the one there was"
    step = next(line.strip() for line in begun if line.strip().startswith("filter-"))
    done = json.loads((out / "steps" / step / "done.json").read_text())
    assert done["figures"]["steps"] == 3
    assert done["identity"]["train"]["optim"]["lr"] == 2e-3
    assert done["identity"]["train"]["task"] == "filter"
    assert {arm["name"] for arm in told["arms"]} == {"none", "long"}


def test_another_seed_is_another_unit(made: Path, corpora: Path, tmp_path: Path, asked: tuple[str, str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(made, out)
    file = tmp_path / "two.yaml"
    table = yaml.safe_load(TABLE)
    table["arms"] = {key: table["arms"][key] for key in ("none", "both")}
    file.write_text(yaml.safe_dump(table))
    begun: list[str] = []
    told = run_table(str(file), str(out), corpora=str(corpora), scale=asked[1], seeds=2, tell=begun.append)
    assert begun
    assert all("-s1-" in line for line in begun if line.startswith("  "))
    both = told["arms"][1]
    assert [unit["seed"] for unit in both["units"]] == [0, 1]
    one, two = (unit["figures"]["recall"] for unit in both["units"])
    assert both["mean"]["recall"] == pytest.approx((one + two) / 2)


def test_a_table_tells_the_precision_of_every_step_whatever_machine_finds_it(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, scale = yaml.safe_load(TABLE), yaml.safe_load(SCALE)
    table["arms"] = {key: table["arms"][key] for key in ("none", "both")}
    for name in ("pretrain", "captioner", "filter", "next_captioner"):
        scale[name]["precision"] = "auto"
    scale["capfilt"]["dtype"] = "auto"
    for name, told in (("small", table), ("auto", scale)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(told))
    out = tmp_path / "out"

    def on(features: set[str], seeds: int) -> str:
        monkeypatch.setattr(device, "cpu_features", lambda: features)
        files = (str(tmp_path / f"{name}.yaml") for name in ("small", "auto"))
        told = run_table(next(files), str(out), corpora=str(corpora), scale=next(files), seeds=seeds, tell=len)
        assert f" in {told['precision']}; " in (out / "small.md").read_text()
        return str(told["precision"])

    assert on(set(), 1) == "float32"
    assert on({"amx_bf16"}, 1) == "float32", "nothing was done anew"
    assert on({"amx_bf16"}, 2) == "bfloat16 and float32"
    assert on(set(), 2) == "bfloat16 and float32"
    for file in (out / "steps").glob("*/done.json"):
        done = json.loads(file.read_text())
        done["figures"].pop("precision", None)
        file.write_text(json.dumps(done))
    assert on(set(), 2) == "float32", "folders of before do not tell, and are gone on with"


def test_the_web_pairs_are_as_noisy_as_asked(corpora: Path, tmp_path: Path) -> None:
    told = cut(corpora, SplitConfig(concepts_one_in=1, clipart_one_in=1), tmp_path, pictures=5)
    human, web = (list(samples([str(tmp_path / f"{name}-00000.tar")])) for name in ("human", "web"))
    assert not {s.image for s in human} & {s.image for s in web}
    assert len(human) + told["web"]["simulated"] == 80
    simulated = [s for s in web if "right" in s.meta]
    for sample in simulated:
        assert (sample.captions[0]["text"] == f"a {sample.meta['concept']}") is sample.meta["right"]
    assert sum(not s.meta["right"] for s in simulated) == told["web"]["of them wrong"]
    assert 0.25 < told["web"]["of them wrong"] / len(simulated) < 0.75
    assert len(web) - len(simulated) == told["web"]["clip art"] == 20
    assert {caption["origin"] for s in web for caption in s.captions} == {"web"}


def test_the_tables_of_the_catalogue_load() -> None:
    assert tables() == ["a", "b", "c", "d", "d_equal", "e", "f", "g"]
    for name in tables():
        table = load_table(name)
        paper = [arm.paper for arm in table.arms.values()]
        assert all(paper) or (name == "g" and not any(paper))
    both = load_table("a").arms["both"]
    assert (both.captioner, both.filter, both.paper["CIDEr"]) == (True, True, 129.7)
    assert load_table("b").arms["beam"].decoding == "beam"
    assert len({arm.sharing for arm in load_table("c").arms.values()}) == 4


def test_every_arm_of_mini_trains_as_many_steps() -> None:
    scale = load_scale("mini")
    assert scale.pretrain.steps
    unequal = {(t, key) for t in tables() for key, arm in load_table(t).arms.items() if arm.steps != 1.0}
    assert unequal == {("e", "longer"), ("e", "capfilt")}


def test_arms_are_pretrained_by_steps() -> None:
    scale = load_scale("mini")
    with pytest.raises(RecipeError, match="equal steps"):
        replace(scale, pretrain=replace(scale.pretrain, steps=None))


def test_other_corpora_are_other_material(tmp_path: Path) -> None:
    """What was made from some must not be taken for what others would make."""
    (tmp_path / "vocab.txt").write_text("cat\ndog\n")
    (tmp_path / "human-train-00000.tar").write_bytes(b"1")
    seen = [_content(tmp_path)]
    for name in ("vocab.txt", "human-train-00000.tar", "words.safetensors"):
        (tmp_path / name).write_bytes(b"2")
        seen.append(_content(tmp_path))
    (tmp_path / "sheet.html").write_bytes(b"of no matter")
    assert len(set(seen)) == 4
    assert _content(tmp_path) == seen[-1]


def test_spread_and_direction() -> None:
    def arm(name: str, paper: float, *values: float) -> dict:
        units = [{"seed": n, "figures": {"CIDEr": v, "recall": v}} for n, v in enumerate(values)]
        return {
            "name": name,
            "title": "x",
            "paper": {"CIDEr": paper},
            "units": units,
            **summary([u["figures"] for u in units]),
        }

    told = {
        "show": ["CIDEr"],
        "cpu_s": 60.0,
        "arms": [arm("a", 1.0, 10.0, 12.0, 14.0), arm("b", 3.0, 15.0, 16.0, 17.0), arm("c", 0.0, 13.0, 13.0, 13.0)],
    }
    assert told["arms"][0]["spread"]["CIDEr"] == pytest.approx(2.0)
    assert page.verdict(told, "a", "CIDEr") == ""
    assert page.verdict(told, "b", "CIDEr") == "+4.0, beyond the spread; paper: +2.0, the same way"
    assert page.verdict(told, "c", "CIDEr") == "+1.0, within the spread; paper: -1.0, the other way"
    assert page.verdict(told, "c", "recall") == "+1.0, within the spread"
    told["arms"][1] = arm("b", 1.1, 15.0)
    assert page.verdict(told, "b", "CIDEr") == "+3.0, one seed; paper: no difference"


def test_a_mistake_is_told_before_anything_is_written(
    corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError, match="nothing is bootstrapped"):
        Arm(title="x", rounds=2)
    with pytest.raises(RecipeError, match="no web text"):
        Arm(title="x", filter=True, web=0.0)
    out = tmp_path / "out"
    assert call(["paper", "z", "--corpora", str(corpora), "--out", str(out)]) == 2
    assert "There are a, b, c, d, d_equal, e, f, g." in capsys.readouterr().err
    assert call(["paper", "a", "--corpora", str(tmp_path), "--out", str(out)]) == 2
    assert "human-train" in capsys.readouterr().err

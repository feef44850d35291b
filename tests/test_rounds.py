"""The whole loop with a tiny model: what is handed on, how it goes on, and what it refuses before it begins."""

import json
import os
import random
from itertools import islice

import pytest
import torch
import yaml

from capfilt.bootstrap import Progress
from capfilt.errors import CapfiltError, DestinationError, RecipeError, TrainingError
from capfilt.evaluate.captioning import write
from capfilt.evaluate.references import read
from capfilt.flow.config import RunConfig
from capfilt.med.model import MED
from capfilt.peers.opening import open_captioner
from capfilt.recipe import load_config
from capfilt.roles import Writing
from capfilt.rounds.config import RoundsConfig
from capfilt.rounds.run import rounds
from capfilt.shards.verify import verify
from capfilt.storage import Store
from capfilt.train.log import StepReport
from tests.conftest import COLOURS, SHAPES, shape_picture
from tests.peers.conftest import blip

LOCAL = RunConfig(runner="local")
PICTURES = 20
OPTIM = "{lr: 1.0e-3, warmup_steps: 2, decay: cosine, freeze: [%s]}"
RECIPE = f"""
captioner: {{task: captioner, steps: 2, batch_size: 8, optim: {OPTIM % "vision."}}}
filter: {{task: filter, steps: 2, batch_size: 8, objective: {{queue_size: 0}}}}
bootstrap:
  capfilt: {{threshold: 0.0, max_length: 10, min_length: 4}}
  plan: {{part_rows: 8}}
pretrain:
  task: pretrain
  epochs: 1
  batch_size: 40
  checkpoint_every: 2
  log_every: 2
  optim: {OPTIM % "vision.patch_embed."}
  objective: {{queue_size: 0}}
held_out: {{pictures: 12, rerank: 4}}
"""


@pytest.fixture(scope="module")
def world(tiny_architecture, shape_shard, tmp_path_factory):
    """A recipe, a start with random weights, and a folder of pictures with texts."""
    root = tmp_path_factory.mktemp("world")
    torch.manual_seed(7)
    start = MED.new(tiny_architecture).eval()
    start.save(root / "start")
    start.only("captioner").save(root / "captioner")
    start.only("filter").save(root / "filter")
    (root / "web").mkdir()
    draw = random.Random(1)
    for n in range(PICTURES):
        colour, shape = draw.choice(list(COLOURS)), draw.choice(SHAPES)
        (root / "web" / f"{n:02d}.png").write_bytes(shape_picture(colour, shape, draw, side=40))
        (root / "web" / f"{n:02d}.txt").write_text(f"a {colour} {shape}")
    (root / "recipe.yaml").write_text(RECIPE)
    return root


@pytest.fixture(scope="module")
def loop(world, tiny_architecture, shape_shard):
    """Runs the loop; the caption metrics go without Java, which takes seconds to start."""

    def configure(*settings, held_out=(), start=None):
        begin = start or [f"start.model={world}/start"]
        given = {"bootstrap.source.path": str(world / "web"), "human": [str(shape_shard)], "held_out.data": held_out}
        place = [f"pretrain.model={tiny_architecture}"]
        return load_config(RoundsConfig, str(world / "recipe.yaml"), [*begin, *place, *settings], given=given)

    def run(count, out, *settings, on_progress=None, training=None, **more):
        config = configure(*settings, **more)
        return rounds(count, config, str(out), run=LOCAL, training=training, on_progress=on_progress)

    run.configure = configure
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        yield run


@pytest.fixture(scope="module")
def two(loop, shape_shard, tmp_path_factory):
    """Two rounds, never stopped: the folder, the result, and what was told."""
    out, told = tmp_path_factory.mktemp("two") / "out", []
    result = loop(2, out, held_out=[str(shape_shard)], on_progress=told.append)
    return out, result, told


def figures_of(out, number):
    return json.loads((out / f"round-{number:02d}" / "round.json").read_text())


def weights(folder, prefix=""):
    return {name: w for name, w in MED.load(folder).state_dict().items() if name.startswith(prefix)}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_each_round_finetunes_the_model_that_the_round_before_pretrained(two, world):
    out, _, _ = two
    # The captioners' image encoders were frozen: they are what they began with.
    first, second = (weights(out / f"round-0{n}" / "captioner" / "model", "vision.") for n in (1, 2))
    pretrained = weights(out / "round-01" / "pretrain" / "model", "vision.")
    assert same(first, weights(world / "start", "vision."))
    assert same(second, pretrained)
    assert not same(first, second)
    assert figures_of(out, 2)["start"] == "round-01/pretrain/model"


def test_each_round_pretrains_anew_on_what_was_kept_and_the_human_pairs(two, world):
    out, _, _ = two
    frozen = [weights(out / f"round-0{n}" / "pretrain" / "model", "vision.patch_embed.") for n in (1, 2)]
    assert same(*frozen), "both began with the same random weights"
    assert not same(frozen[0], weights(world / "start", "vision.patch_embed."))
    first, second = (figures_of(out, n)["pretrain"] for n in (1, 2))
    learnt = first["first_loss"] - first["last_loss"]
    assert second["first_loss"] > first["first_loss"] - learnt / 4, "round 2 begins as untrained as round 1"
    for number in (1, 2):
        told = figures_of(out, number)
        assert told["data"]["totals"]["rows"] == PICTURES
        new = sum(told["data"]["totals"]["texts_kept"].values())
        assert PICTURES < new <= 2 * PICTURES
        assert told["pretrain"]["steps"] == (512 + new) // 40
        assert verify(Store(str(out / f"round-0{number}" / "data"))) == []
    ones, twos = (weights(out / f"round-0{n}" / "pretrain" / "model") for n in (1, 2))
    assert not same(ones, twos), "they saw other captions"


def test_the_figures_of_a_round_hold_books_noise_losses_and_held_out_measures(two):
    out, result, _ = two
    assert list(result.rounds) == [figures_of(out, 1), figures_of(out, 2)]
    assert json.loads((out / "rounds.json").read_text()) == {"rounds": list(result.rounds)}
    told = result.rounds[1]
    assert told["data"]["noise_ratio"] == {"web": 0.0, "synthetic": 0.0, "human": None}
    assert 1 <= told["data"]["synthetic"]["vocabulary"] <= 12
    assert 0 < told["data"]["synthetic"]["unique"] <= 1
    assert all(told[name]["first_loss"] > 0 for name in ("captioner", "filter", "pretrain"))
    held = told["held_out"]
    assert held["pictures"] == 12
    assert held["captioning"]["scores"]["CIDEr"] >= 0
    assert 0 <= held["filtering"]["auc_itm"] <= 1
    assert (held["retrieval"]["reranked_texts"], held["retrieval"]["reranked_pictures"]) == (4, 4)
    assert (out / "round-02" / "held-out" / "captions.jsonl").read_text().count("\n") == 12
    assert not list(out.glob("round-*/*/checkpoints"))


def test_the_report_has_the_rounds_side_by_side(two):
    out, _, _ = two
    html = (out / "report.html").read_text()
    for number in (1, 2):
        link = f"round-0{number}/data/report.html"
        assert f'<a href="{link}">Round {number}</a>' in html
        assert (out / link).exists()
    assert "2 rounds side by side" in html
    assert "CIDEr" in html


class StopError(Exception):
    pass


def test_a_loop_stopped_at_every_step_ends_as_if_it_had_not_been(loop, two, shape_shard, tmp_path):
    whole, _, told_whole = two
    held_out, stopped, told = [str(shape_shard)], set(), []

    def stop(now):
        told.append(now)
        inside = (isinstance(now.now, Progress) and now.now.done == 1) or (
            isinstance(now.now, StepReport) and now.step == "pretrain" and now.now.step == 4
        )
        place = (now.round, now.step, inside)
        if (now.now is None or inside) and place not in stopped:
            stopped.add(place)
            raise StopError

    for count in (1, 2):  # the second round is asked for when the first is done
        while True:
            try:
                result = loop(count, tmp_path, held_out=held_out, on_progress=stop)
                break
            except StopError:
                assert not (tmp_path / f"round-0{count}" / "round.json").exists()
    assert len(stopped) == 2 * (5 + 2)
    assert result.done_before == 1
    assert [figures_of(tmp_path, n) for n in (1, 2)] == [figures_of(whole, n) for n in (1, 2)]
    assert same(*(weights(out / "round-02" / "pretrain" / "model") for out in (whole, tmp_path)))
    order = [(now.round, now.step) for now in told if now.now is None]
    assert list(dict.fromkeys(order)) == [(now.round, now.step) for now in told_whole if now.now is None]
    done = [now for now in told if now.now is not None and now.step == "captioner"]
    assert [now.now.step for now in done] == [1, 2, 1, 2], "once a round"


def test_another_loop_in_the_same_folder_is_refused_while_one_works_there(loop, tmp_path):
    says = []

    def intrude(now):
        if now.step == "captioner" and now.now is None:
            with pytest.raises(DestinationError, match=r"works? (at|in|there)|holds") as caught:
                loop(1, tmp_path)
            says.append(str(caught.value))
            raise StopError

    with pytest.raises(StopError):
        loop(1, tmp_path, on_progress=intrude)
    assert len(says) == 1
    assert not list(tmp_path.glob(".lease*")), "it is given back"


def test_a_loop_goes_on_from_another_folder_with_the_paths_it_was_given(loop, shape_shard, tmp_path, monkeypatch):
    begun, other = tmp_path / "begun", tmp_path / "other"
    begun.mkdir()
    other.mkdir()
    for folder in (begun, other):
        (folder / "series.txt").write_text("a series\n")
        (folder / "held.tar").write_bytes(shape_shard.read_bytes())

    def settings(where):
        mix = f"[{{shards: [{where}held.tar], weight: 0.1}}]"
        return (
            f"filter.data.boilerplate={where}series.txt",
            f"pretrain.held_out=[{where}held.tar]",
            f"captioner.data.mix={mix}",
        )

    def stop(_):
        raise StopError  # all that is refused is refused before the first step

    for cwd, where in ((begun, ""), (other, f"{begun}/")):
        monkeypatch.chdir(cwd)
        with pytest.raises(StopError):
            loop(1, tmp_path / "out", *settings(where), on_progress=stop)
    with pytest.raises(DestinationError, match=r"filter\.data\.boilerplate"):
        loop(1, tmp_path / "out", *settings(""), on_progress=stop)


def test_a_finished_loop_does_nothing_again_and_speed_may_change(loop, two, shape_shard):
    out, result, _ = two
    before = {file: file.stat().st_mtime_ns for file in out.rglob("round-*/**/*") if file.is_file()}
    told = []
    again = loop(1, out, "captioner.log_every=1", held_out=[str(shape_shard)], on_progress=told.append)
    assert (told, again.done_before, again.rounds) == ([], 2, result.rounds)
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("captioner.optim.lr=2e-3", r"captioner\.optim\.lr is 0\.001 there and 0\.002 now"),
        ("bootstrap.capfilt.threshold=0.4", r"bootstrap\.capfilt\.threshold is 0\.0 there and 0\.4 now"),
        ("pretrain.epochs=2", r"pretrain\.epochs"),
        ("held_out.pictures=9", r"held_out\.pictures"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_by_name(loop, two, shape_shard, setting, named):
    with pytest.raises(DestinationError, match=named):
        loop(2, two[0], setting, held_out=[str(shape_shard)])


def test_a_start_with_other_weights_is_refused(loop, two, world, shape_shard):
    file = world / "start" / "model.safetensors"
    kept = file.read_bytes()
    torch.manual_seed(8)
    MED.new(world / "start").save(world / "start")
    try:
        with pytest.raises(DestinationError, match="weights have changed"):
            loop(2, two[0], held_out=[str(shape_shard)])
    finally:
        file.write_bytes(kept)


def test_round_1_may_begin_with_a_captioner_and_a_filter(loop, world, tmp_path):
    start = [f"start.captioner={world}/captioner", f"start.filter={world}/filter"]
    told = loop(1, tmp_path / "out", start=start).rounds[0]
    assert told["captioner"] == {"given": f"{world}/captioner"}
    assert told["held_out"] is None
    assert sorted(path.name for path in (tmp_path / "out" / "round-01").iterdir()) == [
        "data",
        "data.json",
        "pretrain",
        "pretrain.json",
        "round.json",
    ]
    assert "as they were given" in (tmp_path / "out" / "report.html").read_text()


def test_a_captioner_of_others_is_measured_with_the_prompt_that_it_is_asked(loop, world, shape_shard, tmp_path):
    folder = tmp_path / "blip"
    folder.mkdir()
    blip(folder)
    start = [f"start.captioner={folder}", f"start.filter={world}/filter"]
    loop(1, tmp_path / "out", "bootstrap.capfilt.prompt=a photo of", start=start, held_out=[str(shape_shard)])
    lines = (tmp_path / "out" / "round-01" / "held-out" / "captions.jsonl").read_text().splitlines()
    items = list(islice(read([str(shape_shard)]), 12))

    def written(prompt):
        captioner = open_captioner(folder, Writing(beams=3), prompt=prompt, device="cpu", dtype=torch.float32)
        return write(captioner, items, batch_size=64)

    assert [json.loads(line)["caption"] for line in lines] == written("a photo of") != written(None)


def test_a_round_that_keeps_nothing_says_so(loop, world, tmp_path):
    start = [f"start.captioner={world}/captioner", f"start.filter={world}/filter"]
    with pytest.raises(TrainingError, match="round 1 kept no picture"):
        loop(1, tmp_path / "out", "bootstrap.capfilt.threshold=1.0", start=start)
    assert not (tmp_path / "out" / "round-01" / "data.json").exists()


@pytest.mark.parametrize(
    ("settings", "more", "says"),
    [
        ([], {"start": ["start.model={world}/captioner"]}, "holds a captioner only"),
        ([], {"start": ["start.model=no-such"]}, "no model of this name"),
        (["captioner.data.origins=[synthetic]"], {}, "no human caption there"),
        (["pretrain.model={world}/web"], {}, "web"),
        (["pretrain.device=toaster"], {}, "toaster"),
        ([], {"held_out": ["/nowhere.tar"]}, "nowhere"),
    ],
)
def test_what_would_go_wrong_hours_later_is_said_before_anything_is_written(
    loop, world, tmp_path, settings, more, says
):
    more = {name: [text.format(world=world) for text in texts] for name, texts in more.items()}
    with pytest.raises(CapfiltError, match=says):
        loop(2, tmp_path / "out", *(text.format(world=world) for text in settings), **more)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, as it is loaded
def test_the_trainings_of_a_round_are_shared_among_processes_of_ray(loop, two, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)  # the loop's is empty, and Ray starts its workers by a shell
    told = []
    loop(1, tmp_path / "out", training=RunConfig(workers=2), on_progress=told.append)
    alone, shared = figures_of(two[0], 1), figures_of(tmp_path / "out", 1)
    for task in ("captioner", "filter", "pretrain"):
        assert shared[task]["steps"] == alone[task]["steps"]
    # The captioner sees the same pairs in the same batches, whoever has which; the later steps hang on it.
    assert shared["captioner"]["last_loss"] == pytest.approx(alone["captioner"]["last_loss"], abs=0.05)
    assert {step.step for step in told if isinstance(step.now, StepReport)} == {"captioner", "filter", "pretrain"}
    assert verify(Store(str(tmp_path / "out" / "round-01" / "data"))) == []


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("captioner.init=somewhere", "captioner.init: each round sets it"),
        ("pretrain.out=somewhere", "pretrain.out: each round sets it"),
        ("bootstrap.capfilt.filter=mine", "bootstrap.capfilt.filter: each round sets it"),
        ("filter.task=captioner", "filter.task: it is captioner"),
        ("start.captioner=mine", "start: a model is finetuned"),
        ("start.model=null", "start: round 1 has nothing to begin with"),
        ("pretrain.batch_size=1", "pretrain.batch_size: 1 is not within"),
        ("filter.data.min_itm=2", "filter.data.min_itm: 2"),
        ("bootstrap.capfilt.top_p=7", "bootstrap.capfilt.top_p: 7"),
        ("bootstrap.fetch.images.quality=0", "bootstrap.fetch.images.quality: 0"),
        ("pretrain.optim.lrr=1", "pretrain.optim.lrr: no such field"),
    ],
)
def test_a_mistake_in_the_recipe_is_named_with_all_its_sections(loop, setting, says):
    with pytest.raises(RecipeError) as caught:
        loop.configure(setting)
    assert caught.value.what.count(says) == 1


def test_the_folder_s_recipe_is_a_recipe_again(loop, two, shape_shard, tmp_path):
    stored = yaml.safe_load((two[0] / "recipe.yaml").read_text())
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(stored))
    given = {"bootstrap.source.path": "x"}
    again = load_config(RoundsConfig, str(tmp_path / "again.yaml"), given=given)
    begun = loop.configure("bootstrap.source.path=x", held_out=[str(shape_shard)])
    # What a run may change is not in it, and has its default.
    assert again.filter == begun.filter
    assert (again.start, again.human, again.held_out) == (begun.start, begun.human, begun.held_out)


@pytest.mark.parametrize("name", ["rounds", "rounds-mini"])
def test_the_shipped_recipes_load(name):
    given = {"bootstrap.source.path": "x", "human": ["y"]}
    config = load_config(RoundsConfig, name, ["start.model=m"] if name == "rounds" else (), given=given)
    assert config.filter.task == "filter"

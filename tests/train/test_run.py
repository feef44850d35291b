"""Training runs on real shards: they learn, they go on where they stopped, they refuse what cannot work."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from capfilt.errors import ModelError, RecipeError, SourceError, TrainingError
from capfilt.evaluate.captioning import wording, write
from capfilt.evaluate.filtering import separation
from capfilt.evaluate.references import read
from capfilt.med.captioner import MEDCaptioner
from capfilt.med.device import precision_of
from capfilt.med.encoders import Begun
from capfilt.med.filter import MEDFilter
from capfilt.med.model import MED, resized_positions
from capfilt.med.released import original_weights
from capfilt.roles import Writing
from capfilt.shards.sample import Sample
from capfilt.shards.tar import write_tar
from capfilt.train.config import DataConfig, ObjectiveConfig, OptimConfig, TrainConfig
from capfilt.train.log import StepReport
from capfilt.train.pairs import Pairs
from capfilt.train.run import train
from capfilt.train.schedule import lr_at
from tests.conftest import shape_picture


def config(architecture: Path, shard: Path, out: Path, **changes: object) -> TrainConfig:
    start = TrainConfig(
        model=str(architecture),
        out=str(out),
        steps=6,
        batch_size=16,
        log_every=2,
        checkpoint_every=3,
        data=DataConfig(shards=(str(shard),), origins=("human",), min_scale=0.6, flip=False, rand_augment=False),
        optim=OptimConfig(lr=1e-3, warmup_steps=10, decay="cosine"),
        objective=ObjectiveConfig(queue_size=64),
        device="cpu",
    )
    return replace(start, **changes)  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(MED.load(folder).state_dict())


def test_the_three_runs_teach_colours_and_shapes(tiny_architecture: Path, shape_shard: Path, tmp_path: Path) -> None:
    first = train(config(tiny_architecture, shape_shard, tmp_path / "pre", steps=60, batch_size=32))
    assert first.last_loss < first.first_loss
    init = str(first.folder)
    cap = config(tiny_architecture, shape_shard, tmp_path / "cap", task="captioner", init=init, steps=80, batch_size=32)
    fil = config(tiny_architecture, shape_shard, tmp_path / "fil", task="filter", init=init, steps=80, batch_size=32)
    captioner = MEDCaptioner.load(train(cap).folder, Writing(max_length=12))
    judge = MEDFilter.load(train(fil).folder)
    held = list(read([str(shape_shard)]))[:128]
    told = separation(judge, held)
    assert told.auc_itc > 0.8
    said = wording(write(captioner, held), held)
    assert said.hit > 0.95
    assert said.vocabulary >= 6


def test_a_run_that_was_stopped_goes_on_to_the_very_same_weights(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    whole = train(config(tiny_architecture, shape_shard, tmp_path / "whole"))

    class StoppedError(Exception):
        pass

    def stop(report: StepReport) -> None:
        if report.step == 4:
            raise StoppedError

    broken = config(tiny_architecture, shape_shard, tmp_path / "broken")
    with pytest.raises(StoppedError):
        train(broken, stop)
    seen: list[int] = []
    again = train(broken, lambda report: seen.append(report.step))
    assert seen[0] == 4  # from the checkpoint of step 3, not from the beginning
    mine, theirs = weights(whole.folder), weights(again.folder)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    with (tmp_path / "broken" / "log.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_loader_processes_do_not_change_how_a_run_goes_on(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    data = replace(config(tiny_architecture, shape_shard, tmp_path).data, loaders=2)
    whole = train(config(tiny_architecture, shape_shard, tmp_path / "whole", data=data))
    half = config(tiny_architecture, shape_shard, tmp_path / "half", data=data, steps=3)
    half = replace(half, optim=replace(half.optim, decay="step"))
    train(half)
    rest = train(replace(half, steps=6))
    straight = train(replace(half, steps=6, out=str(tmp_path / "straight")))
    mine, theirs = weights(straight.folder), weights(rest.folder)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert whole.steps == 6


def test_other_settings_in_the_same_folder_are_refused_by_name(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    first = config(tiny_architecture, shape_shard, tmp_path / "run", steps=3)
    train(first)
    with pytest.raises(TrainingError, match="other settings of batch_size, seed"):
        train(replace(first, seed=9, batch_size=8))


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ({"origins": ("synthetic",)}, TrainingError, "no caption that training wants"),
        ({"shards": ()}, SourceError, "no shards were named"),
        ({"shards": ("/nowhere",)}, SourceError, "nowhere"),
    ],
)
def test_nothing_to_train_on_is_said_before_anything_is_written(
    data: dict[str, object],
    error: type[Exception],
    says: str,
    tiny_architecture: Path,
    shape_shard: Path,
    tmp_path: Path,
) -> None:
    run = config(tiny_architecture, shape_shard, tmp_path / "run")
    with pytest.raises(error, match=says):
        train(replace(run, data=replace(run.data, **data)))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_the_first_captions_of_an_image_that_are_wanted_may_be_all_there_is(tmp_path: Path) -> None:
    said = lambda text, origin: {"text": text, "origin": origin, "itm": None, "itc": None, "kept": True}  # noqa: E731
    captions = [said("one", "web"), said("...", "human"), said("two", "human"), said("three", "human")]
    with (tmp_path / "s-00000.tar").open("wb") as file:
        write_tar(
            file, [Sample(f"{i}", shape_picture("red", "circle", random.Random(i)), captions, {}) for i in range(2)]
        )
    both = DataConfig(shards=(str(tmp_path),), origins=("human",))
    assert [pair.text for pair in Pairs(both).read(*Pairs(both).sources)] == ["two", "three"] * 2
    first = Pairs(replace(both, captions_per_image=1))
    assert [pair.text for pair in first.read(*first.sources)] == ["two", "two"]
    assert first.count() == 2


def test_a_shard_that_cannot_be_read_is_passed_over_with_its_name(
    shape_shard: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken-00000.tar").write_bytes(shape_shard.read_bytes()[:70_000])
    pairs = Pairs(DataConfig(shards=(str(shape_shard), str(tmp_path / "broken-00000.tar")), origins=("human",)))
    assert 512 < pairs.count() < 1024
    assert "passed over in training" in caplog.text
    assert "broken-00000.tar" in caplog.text
    caplog.clear()
    assert Pairs(DataConfig(shards=(str(shape_shard),), origins=("human",))).count() == 512
    assert caplog.text == ""


def test_fewer_pairs_than_a_batch_is_said_with_the_mend(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="Set batch_size to 512"):
        train(config(tiny_architecture, shape_shard, tmp_path / "run", batch_size=1000))


def test_weights_that_are_not_finite_are_never_saved(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two reports a run goes wild: it stops by its word, and what is saved is from before."""
    real = torch.optim.AdamW.step
    steps: list[int] = []

    def wild(self: torch.optim.AdamW, *args: object) -> object:
        steps.append(1)
        out = real(self, *args)  # type: ignore[arg-type]
        if len(steps) == 4:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("nan"))
        return out

    monkeypatch.setattr(torch.optim.AdamW, "step", wild)
    run = config(tiny_architecture, shape_shard, tmp_path / "run", steps=12, log_every=50, checkpoint_every=3)
    with pytest.raises(TrainingError, match="not finite at step") as caught:
        train(run)
    assert "another folder" in str(caught.value.mend)
    kept = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000003"]
    assert all(
        t.isfinite().all() for t in load_file(tmp_path / "run/checkpoints/step-00000003/state.safetensors").values()
    )


def test_more_steps_are_refused_where_the_learning_rate_depends_on_them(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    run = config(tiny_architecture, shape_shard, tmp_path / "run", steps=3)
    assert run.optim.decay == "cosine"
    train(run)
    with pytest.raises(TrainingError, match="other settings of steps"):
        train(replace(run, steps=5))
    free = replace(run, out=str(tmp_path / "free"), optim=replace(run.optim, decay="step"))
    train(free)
    assert train(replace(free, steps=5)).steps == 5
    with pytest.raises(TrainingError, match="at step 5 already, and the run is to end at 4"):
        train(replace(free, steps=4))


def test_a_run_at_another_picture_size_resizes_the_positions(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    first = train(config(tiny_architecture, shape_shard, tmp_path / "small", steps=2))
    larger = config(
        tiny_architecture,
        shape_shard,
        tmp_path / "large",
        steps=2,
        init=str(first.folder),
        image_size=64,
        task="filter",
    )
    after = MED.load(train(larger).folder)
    assert after.config.vision.image_size == 64
    assert after.vision.pos_embed.shape == (1, 65, 64)
    resized = resized_positions(MED.load(first.folder).vision.pos_embed, after.config.vision)
    torch.testing.assert_close(after.vision.pos_embed, resized, atol=0.01, rtol=0)


def test_nothing_to_train_and_no_room_for_a_word_are_said(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    run = config(tiny_architecture, shape_shard, tmp_path / "run", task="captioner")
    with pytest.raises(TrainingError, match="5 tokens leave no room for a word behind the prompt's 3"):
        train(replace(run, data=replace(run.data, max_tokens=5)))
    everything = ("vision", "text", "itm_head", "temperature")
    with pytest.raises(TrainingError, match="nothing is left to train"):
        train(replace(run, optim=replace(run.optim, freeze=everything)))


def test_a_loss_that_is_not_finite_stops_the_run(tiny_architecture: Path, shape_shard: Path, tmp_path: Path) -> None:
    model = MED.new(tiny_architecture)
    with torch.no_grad():
        model.itm_head.bias.fill_(float("inf"))
    model.save(tmp_path / "wild")
    with pytest.raises(TrainingError, match="not finite at step 1"):
        train(config(tiny_architecture, shape_shard, tmp_path / "run", init=str(tmp_path / "wild")))


def test_the_schedule_warms_up_and_decays() -> None:
    step = OptimConfig(warmup_steps=10)
    at = [lr_at(s, step, steps_per_epoch=100, steps=1000) for s in (0, 5, 10, 99, 100, 200)]
    assert at == pytest.approx([1e-6, (1e-6 + 3e-4) / 2, 3e-4, 3e-4, 2.7e-4, 2.43e-4])
    # Fewer steps an epoch than steps of warm-up: the peak is reached all the same, and not left at once.
    at = [lr_at(s, step, steps_per_epoch=5, steps=1000) for s in (4, 5, 9, 10)]
    assert at == pytest.approx([1e-6 + (3e-4 - 1e-6) * 4 / 5, 2.7e-4, 2.7e-4, 2.43e-4])
    epochs = OptimConfig(lr=1e-5, min_lr=0.0, warmup_steps=0, decay="cosine_epoch")
    at = [lr_at(s, epochs, steps_per_epoch=10, steps=50) for s in (0, 9, 10, 40, 49)]
    assert at == pytest.approx([1e-5, 1e-5, 9.045e-6, 9.549e-7, 9.549e-7], rel=1e-3)
    cosine = OptimConfig(warmup_steps=0, decay="cosine")
    assert lr_at(0, cosine, steps_per_epoch=1, steps=10) == pytest.approx(3e-4)
    assert lr_at(10, cosine, steps_per_epoch=1, steps=10) == pytest.approx(1e-6)


def test_frozen_parts_stay_as_they_start(tiny_architecture: Path, shape_shard: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    MED.new(tiny_architecture).save(tmp_path / "start")
    optim = OptimConfig(lr=1e-3, warmup_steps=0, freeze=("vision.", "itm_head."))
    run = config(tiny_architecture, shape_shard, tmp_path / "out", init=str(tmp_path / "start"), optim=optim)
    before, after = weights(tmp_path / "start"), weights(train(run).folder)
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith(("vision.", "itm_head."))} <= frozen
    assert {"vision_proj.weight", "text_proj.weight"}.isdisjoint(frozen)


def test_a_part_that_is_not_there_cannot_be_frozen(tiny_architecture: Path, shape_shard: Path, tmp_path: Path) -> None:
    optim = OptimConfig(freeze=("visual.",))
    with pytest.raises(TrainingError, match=r"'visual\.'.*optim\.freeze|optim\.freeze"):
        train(config(tiny_architecture, shape_shard, tmp_path / "out", optim=optim))


def test_a_run_starts_from_encoders_that_others_trained_and_says_so(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    source = MED.new(tiny_architecture)
    save_file(dict(source.vision.state_dict()), tmp_path / "vit.safetensors")
    bert = {n.replace("text_encoder.", "bert."): t for n, t in original_weights(source).items() if "crossatt" not in n}
    kept = {n: t.clone() for n, t in bert.items() if n.startswith("bert.") and not n.startswith("text_decoder.")}
    for name in [n for n in kept if "word_embeddings" in n]:
        kept[name] = kept[name][:-2]  # a BERT has neither [DEC] nor [ENC]
    (tmp_path / "bert").mkdir()
    save_file(kept, tmp_path / "bert" / "model.safetensors")
    (tmp_path / "bert" / "vocab.txt").write_text((tiny_architecture / "vocab.txt").read_text())
    begun: list[Begun] = []
    settings = config(
        tiny_architecture,
        shape_shard,
        tmp_path / "run",
        steps=3,
        init_vision=str(tmp_path / "vit.safetensors"),
        init_text=str(tmp_path / "bert"),
        optim=OptimConfig(lr=1e-9, warmup_lr=1e-9, min_lr=0.0, weight_decay=0.0),
    )
    result = train(settings, on_start=begun.extend)
    after = weights(result.folder)
    for name, tensor in source.state_dict().items():
        given = name.startswith(("vision.", "text.layers.")) and ".cross_attention." not in name
        from_bert = tensor if ".decode." not in name else source.state_dict()[name.replace(".decode.", ".encode.")]
        if given:
            torch.testing.assert_close(after[name], from_bert, rtol=0, atol=1e-6, msg=name)
    parts = {row.part: row.source for row in begun if row.source != "random"}
    assert parts["image encoder"] == str(tmp_path / "vit.safetensors")
    assert parts["text self-attention"] == parts["text feed-forward"] == str(tmp_path / "bert")
    assert {"text cross-attention", "ITM head", "LM head"} <= {row.part for row in begun if row.source == "random"}
    # A run that goes on needs them no more, and does not claim to start from them.
    (tmp_path / "vit.safetensors").unlink()
    begun.clear()
    assert train(replace(settings, steps=6), on_start=begun.extend).steps == 6
    assert begun == []


def test_whole_weights_and_those_of_encoders_do_not_go_together() -> None:
    with pytest.raises(RecipeError, match="takes none from single encoders"):
        TrainConfig(init="med-mini/captioner", init_text="bert-base-uncased")


def test_encoders_that_are_nowhere_stop_the_run_before_anything_is_written(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no such file or folder"):
        train(config(tiny_architecture, shape_shard, tmp_path / "run", init_text="./nowhere/at all"))
    assert not (tmp_path / "run").exists()


def test_precision_auto_is_what_the_device_multiplies_in(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    own = str(precision_of("auto", "cpu")).removeprefix("torch.")
    for precision in ("auto", own):
        train(config(tiny_architecture, shape_shard, tmp_path / precision, steps=2, precision=precision))
    auto, named = weights(tmp_path / "auto" / "model"), weights(tmp_path / own / "model")
    assert all(torch.equal(auto[name], named[name]) for name in named)

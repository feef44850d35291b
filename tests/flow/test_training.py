"""Training on Ray Train: the curve and the weights of one process, also when a worker is killed; errors as raised."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from capfilt.cli.main import call
from capfilt.errors import EngineError, TrainingError
from capfilt.flow.config import RunConfig
from capfilt.flow.training import train_on_ray
from capfilt.med.model import MED
from capfilt.train.config import DataConfig, ObjectiveConfig, OptimConfig, TrainConfig
from capfilt.train.run import train

# Each run starts processes that load torch, which on two busy cores takes a minute.
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(900)]
TWO = RunConfig(workers=2)
STEPS = 24


@pytest.fixture(scope="module")
def config(still, shape_shard):
    return TrainConfig(
        task="pretrain",
        model=str(still),
        steps=STEPS,
        batch_size=16,
        log_every=1,
        checkpoint_every=4,
        data=DataConfig(shards=(str(shape_shard),), origins=("human",), min_scale=0.6, shuffle_buffer=64),
        optim=OptimConfig(lr=1e-3, warmup_steps=2, decay="step", clip=1.0),
        objective=ObjectiveConfig(queue_size=48, momentum=0.9, alpha_ramp_epochs=0.1),
        device="cpu",
    )


@pytest.fixture(scope="module")
def shared(config, local_ray, tmp_path_factory):
    """A run of two workers that nobody disturbs: its folder, result, and what was told of it."""
    out = tmp_path_factory.mktemp("shared") / "out"
    told, begun = [], []
    result = train_on_ray(replace(config, out=str(out)), TWO, told.append, begun.append)
    return SimpleNamespace(out=out, result=result, told=told, begun=begun)


def curve(out):
    apart = ("images_per_s", "memory_gb")
    with (out / "log.csv").open(newline="") as f:
        return [{k: float(v) for k, v in row.items() if k not in apart} for row in csv.DictReader(f)]


def weights(out):
    return MED.load(out / "model").state_dict()


def test_two_workers_have_the_curve_and_the_model_of_one_process(config, shared, tmp_path):
    alone = train(replace(config, out=str(tmp_path / "alone")))
    wanted, found = curve(tmp_path / "alone"), curve(shared.out)
    assert len(wanted) == len(found) == STEPS
    for one, two in zip(wanted, found, strict=True):
        assert two == pytest.approx(one, rel=2e-4)
    theirs = weights(shared.out)
    for name, tensor in weights(tmp_path / "alone").items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert shared.result.first_loss == pytest.approx(alone.first_loss, rel=2e-4)
    assert shared.result.folder == shared.out / "model"


def test_the_driver_is_told_of_every_step_and_nothing_of_ray_stays_in_the_folder(shared):
    assert [report.step for report in shared.told] == list(range(1, STEPS + 1))
    assert len(shared.begun) == 1
    ours = {"checkpoints", "curves.png", "log.csv", "model", "skipped.csv", "tensorboard"}
    assert {"checkpoints", "log.csv", "model"} <= {path.name for path in shared.out.iterdir()} <= ours


def alive(ray):
    actors = ray._private.state.actors().values()
    return {a["Pid"] for a in actors if a["ActorClassName"] == "RayTrainWorker" and a["State"] == "ALIVE"}


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_run_ends_with_the_same_weights(config, shared, local_ray, tmp_path):
    seen, told = [], []

    def kill(report):
        told.append(report.step)
        seen.append(alive(local_ray))
        if told == [1, 2, 3, 4, 5]:
            os.kill(max(seen[-1]), signal.SIGKILL)

    train_on_ray(replace(config, out=str(tmp_path)), TWO, kill)
    assert told[:5] == [1, 2, 3, 4, 5]
    assert told[-1] == STEPS
    # Two other processes did the rest, from the newest checkpoint and not from the start.
    assert len(seen[0]) == len(seen[-1]) == 2
    assert not seen[0] & seen[-1]
    assert told.count(1) == 1
    assert [row["step"] for row in curve(tmp_path)] == list(range(1, STEPS + 1))
    undisturbed = weights(shared.out)
    for name, tensor in weights(tmp_path).items():
        assert torch.equal(tensor, undisturbed[name]), name


def test_a_mistake_comes_out_as_itself_and_is_not_tried_again(config, tmp_path, capfd):
    starts = []
    wrong = replace(config, batch_size=1024, out=str(tmp_path / "out"))
    with pytest.raises(TrainingError, match="512 pairs do not fill one batch of 1024") as caught:
        train_on_ray(wrong, RunConfig(workers=1), on_start=starts.append)
    assert type(caught.value) is TrainingError
    assert caught.value.where == "batch_size"
    assert starts == []
    assert not (tmp_path / "out").exists()
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_what_cannot_be_shared_or_placed_is_refused_before_a_worker_starts(config, local_ray):
    before = time.monotonic()
    with pytest.raises(TrainingError, match="a batch of 16 cannot be shared by 3 processes"):
        train_on_ray(config, RunConfig(workers=3))
    with pytest.raises(EngineError, match="4 workers of a CPU each do not fit: Ray has room for 3"):
        train_on_ray(config, RunConfig(workers=4))
    assert time.monotonic() - before < 5
    assert not alive(local_ray)


@pytest.mark.slow
def test_the_command_line_takes_one_worker_too_and_relative_paths(still, shape_shard, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.tar").symlink_to(shape_shard)
    (tmp_path / "model").symlink_to(still)
    sets = ["steps=2", "batch_size=8", "log_every=1", "model=./model", "device=cpu", "precision=float32"]
    args = [arg for one in sets for arg in ("--set", one)]
    assert call(["pretrain", "data.tar", "out", "--workers", "1", *args]) == 0
    printed = capfd.readouterr()
    assert printed.out.endswith("model  out/model\n")
    assert [line.split("  ")[0] for line in printed.err.splitlines()] == ["start", "pretrain 1/2", "pretrain 2/2"]
    assert len(curve(tmp_path / "out")) == 2
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


def test_without_workers_nothing_of_ray_is_loaded(still, shape_shard, tmp_path):
    sets = [f"model={still}", "steps=1", "batch_size=2", "device=cpu", "precision=float32"]
    args = [arg for one in sets for arg in ("--set", one)]
    probe = (
        "import sys; from capfilt.cli.main import call; code = call(sys.argv[1:]); "
        "print([m for m in sys.modules if m == 'ray' or m.startswith('ray.')]); sys.exit(code)"
    )
    command = [sys.executable, "-c", probe, "pretrain", shape_shard, tmp_path / "out", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"

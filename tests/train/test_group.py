"""Two processes that share each batch train as one with the whole batch: losses, weights, and after a stop."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from capfilt.errors import TrainingError
from capfilt.med.model import MED
from capfilt.train.config import DataConfig, ObjectiveConfig, OptimConfig, Task, TrainConfig
from capfilt.train.group import rows_of
from capfilt.train.run import train

WORKERS = 2
SCRIPT = Path(sys.executable).with_name("torchrun")


def config(task: Task, folder: Path, shard: Path, out: Path) -> TrainConfig:
    return TrainConfig(
        task=task,
        model=str(folder),
        out=str(out),
        steps=6,
        batch_size=16,
        log_every=1,
        checkpoint_every=3,
        data=DataConfig(shards=(str(shard),), origins=("human",), min_scale=0.6, shuffle_buffer=64),
        optim=OptimConfig(lr=1e-3, warmup_steps=2, decay="step", clip=1.0),
        objective=ObjectiveConfig(queue_size=48, momentum=0.9, alpha_ramp_epochs=0.1),
        device="cpu",
    )


def work(rank: int, runs: list[TrainConfig], meet: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=WORKERS)
    for run in runs:
        train(run)
    dist.destroy_process_group()


def curve(out: Path) -> list[dict[str, float]]:
    with (out / "log.csv").open(newline="") as f:
        return [
            {k: float(v) for k, v in row.items() if k not in ("images_per_s", "memory_gb")} for row in csv.DictReader(f)
        ]


def same(alone: Path, shared: Path) -> None:
    """The curves and the models of two runs, but for rounding."""
    wanted, found = curve(alone), curve(shared)
    assert len(wanted) == len(found) == 6
    for one, two in zip(wanted, found, strict=True):
        assert two == pytest.approx(one, rel=2e-4)
    theirs = MED.load(shared / "model").state_dict()
    for name, tensor in MED.load(alone / "model").state_dict().items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("task", ["pretrain", "captioner", "filter"])
def test_two_processes_have_the_curve_and_the_model_of_one(
    task: Task, still: Path, shape_shard: Path, tmp_path: Path
) -> None:
    alone, shared = (config(task, still, shape_shard, tmp_path / name) for name in ("alone", "shared"))
    train(alone)
    # Stopped after half of the steps and gone on with: what the processes know apart comes back too.
    mp.spawn(work, ([replace(shared, steps=3), shared], str(tmp_path / "meet")), nprocs=WORKERS)
    same(tmp_path / "alone", tmp_path / "shared")
    kept = sorted(folder.name for folder in (tmp_path / "shared" / "checkpoints").iterdir())
    assert kept == ["step-00000003", "step-00000006"]


def test_a_run_goes_on_with_more_processes_and_with_fewer(still: Path, shape_shard: Path, tmp_path: Path) -> None:
    """What one process wrote two go on from, and the other way round; neither shows in the curve or the model."""
    alone, more, fewer = (
        config("pretrain", still, shape_shard, tmp_path / name) for name in ("alone", "more", "fewer")
    )
    train(alone)
    train(replace(more, steps=3))
    mp.spawn(work, ([more, replace(fewer, steps=3)], str(tmp_path / "meet")), nprocs=WORKERS)
    train(fewer)
    for out in (more, fewer):
        same(Path(alone.out), Path(out.out))


def disagree(rank: int, run: TrainConfig, shards: list[str], out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=WORKERS)
    own = replace(run, data=replace(run.data, shards=tuple(shards[: 1 + rank])))
    try:
        train(own)
    except TrainingError as error:
        (Path(out) / f"{rank}.txt").write_text(str(error.what))
    dist.destroy_process_group()


def test_processes_that_read_different_shards_stop_at_once(still: Path, shape_shard: Path, tmp_path: Path) -> None:
    """Else each would take its rows of another batch, and in the end one would wait for the other in vain."""
    second = tmp_path / "more-00000.tar"
    second.write_bytes(shape_shard.read_bytes())
    run = config("pretrain", still, shape_shard, tmp_path / "run")
    mp.spawn(disagree, (run, [str(shape_shard), str(second)], str(tmp_path)), nprocs=WORKERS)
    for rank in range(WORKERS):
        assert (tmp_path / f"{rank}.txt").read_text() == "the processes do not agree on the number of pairs: 512, 1024"
    assert not (tmp_path / "run").exists()


def by_torchrun(*command: str | Path, sets: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """The command line in two processes, for two steps."""
    every = ("steps=2", "batch_size=8", "log_every=1", "device=cpu", "precision=float32", *sets)
    args = [arg for one in every for arg in ("--set", one)]
    start = [SCRIPT, "--standalone", f"--nproc-per-node={WORKERS}", "--no-python", SCRIPT.with_name("capfilt")]
    done = subprocess.run(
        [*start, *command, *args],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_torchrun_starts_the_command_line_in_every_process(still: Path, shape_shard: Path, tmp_path: Path) -> None:
    done = by_torchrun("pretrain", shape_shard, tmp_path / "out", sets=(f"model={still}",))
    assert len(curve(tmp_path / "out")) == 2
    assert done.stdout.count("model  ") == 1
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("holds", [pytest.param("captioner", marks=pytest.mark.slow), "filter"])
def test_what_is_shipped_is_finetuned_by_two_processes_without_a_word_of_torch(
    holds: Task, shape_shard: Path, tmp_path: Path
) -> None:
    """One half of a MED with a free EfficientNet: torch warned of weights without gradient, where each had one, and of
    the strides of its convolutions."""
    own = ("track=[]", "data.origins=[human]", f"init=med-mini/{holds}")
    done = by_torchrun("finetune", holds, shape_shard, tmp_path / "out", sets=own)
    assert "arning" not in done.stderr
    assert len(curve(tmp_path / "out")) == 2


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows_of(6) == slice(0, 6)
    monkeypatch.setattr("capfilt.med.ranks.world", lambda: (1, 3))
    assert rows_of(12) == slice(4, 8)
    for size in (10, 3):
        with pytest.raises(TrainingError, match=f"a batch of {size} cannot be shared by 3 processes"):
            rows_of(size)

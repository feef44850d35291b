"""Two processes that share each batch train as one with the whole batch: losses, weights, and after a stop."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from capfilt.errors import CapfiltError, RecipeError, TrainingError
from capfilt.med.model import MED
from capfilt.shards.read import samples
from capfilt.shards.tar import write_tar
from capfilt.train.config import DataConfig, ObjectiveConfig, OptimConfig, Task, TrainConfig
from capfilt.train.group import rows_of
from capfilt.train.pairs import Pair, Pairs, Source
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


@pytest.fixture
def dealt(shape_shard: Path, tmp_path: Path) -> Path:
    """Eight shards of ten pictures and more, so that few steps see more than an epoch of them."""
    folder = tmp_path / "dealt"
    folder.mkdir()
    some = [sample for sample, _ in zip(samples([str(shape_shard)]), range(92), strict=False)]
    for at in range(8):
        with (folder / f"s-{at:05d}.tar").open("wb") as file:
            write_tar(file, some[at::8])
    return folder


def read_by(rank: int, runs: list[TrainConfig], meet: str) -> None:
    """As :func:`work`, and writes down which shards this process has opened in training."""
    told: list[str] = []
    reads = Pairs.read

    def read(self: Pairs, source: Source, urls: list[str] | None = None) -> Iterator[Pair]:
        if urls and len(urls) > 1:  # counting takes them one by one
            told.extend(urls)
        return reads(self, source, urls)

    with mock.patch.object(Pairs, "read", read):
        work(rank, runs, meet)
    Path(f"{meet}-{rank}.txt").write_text("\n".join(told))


@pytest.mark.parametrize("streams", [2, 4])
def test_streams_make_the_same_batches_however_many_processes_read_them(
    streams: int, still: Path, dealt: Path, tmp_path: Path
) -> None:
    """One process and two, over a stop behind the first epoch and from two to one; each of the two reads its half."""
    base = config("pretrain", still, dealt, tmp_path)
    base = replace(base, data=replace(base.data, streams=streams, shuffle_buffer=8), checkpoint_every=2)
    alone, shared, fewer = (replace(base, out=str(tmp_path / name)) for name in ("alone", "shared", "fewer"))
    train(alone)
    mp.spawn(read_by, ([replace(shared, steps=4)], str(tmp_path / "first")), nprocs=WORKERS)
    mp.spawn(work, ([shared, replace(fewer, steps=4)], str(tmp_path / "meet")), nprocs=WORKERS)
    train(fewer)
    for out in (shared, fewer):
        same(Path(alone.out), Path(out.out))
    halves = [(tmp_path / f"first-{rank}.txt").read_text().split() for rank in range(WORKERS)]
    assert sorted(halves[0] + halves[1]) == sorted(map(str, dealt.iterdir())), "each shard once by one of the two"
    assert len(halves[0]) == len(halves[1])
    places = [
        json.loads((Path(out.out) / "checkpoints" / "step-00000006" / "state.json").read_text())["places"]
        for out in (alone, shared)
    ]
    assert places[0] == places[1]
    assert len(places[0]) == streams
    assert max(place["epoch"] for place in places[0].values()) == 1


def test_streams_that_a_batch_cannot_hold_evenly_are_refused(still: Path, dealt: Path, tmp_path: Path) -> None:
    run = config("pretrain", still, dealt, tmp_path / "run")
    with pytest.raises(RecipeError, match="16 rows are not as many of each of 3 streams"):
        replace(run, data=replace(run.data, streams=3))
    with pytest.raises(TrainingError, match="16 streams of 1 loader processes are too many for 8 shards") as caught:
        train(replace(run, data=replace(run.data, streams=16)))
    assert caught.value.where == str(dealt)
    assert not (tmp_path / "run").exists()


def differ(rank: int, run: TrainConfig, folders: list[str], out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/meet", rank=rank, world_size=WORKERS)
    try:
        train(replace(run, data=replace(run.data, shards=(folders[rank],))))
    except CapfiltError as error:
        (Path(out) / f"{rank}.txt").write_text(str(error.what))
    dist.destroy_process_group()


def test_a_copy_of_the_shards_that_is_not_whole_is_told(still: Path, dealt: Path, tmp_path: Path) -> None:
    """Each process counts its share of the shards, so that none sees that another machine's are shorter."""
    copy = tmp_path / "copy"
    shutil.copytree(dealt, copy)
    shard = sorted(copy.iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-10_000])
    whole, short = (sum(file.stat().st_size for file in folder.iterdir()) for folder in (dealt, copy))
    run = config("pretrain", still, dealt, tmp_path / "run")
    mp.spawn(differ, (run, [str(dealt), str(copy)], str(tmp_path)), nprocs=WORKERS)
    for rank in range(WORKERS):
        said = (tmp_path / f"{rank}.txt").read_text()
        assert said == f"the processes do not agree on the bytes of the shards on their disks: {whole}, {short}"


def test_what_one_process_finds_ends_the_others_with_a_word(still: Path, dealt: Path, tmp_path: Path) -> None:
    """A shard that only one of them counts is damaged: it says so, the other says which process failed."""
    shard = sorted(dealt.iterdir())[3]
    shard.write_bytes(shard.read_bytes()[:10_000])
    run = config("pretrain", still, dealt, tmp_path / "run")
    run = replace(run, data=replace(run.data, strict=True))
    mp.spawn(differ, (run, [str(dealt)] * WORKERS, str(tmp_path)), nprocs=WORKERS)
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in range(WORKERS)]
    assert "cut short" in said[1]
    assert said[0] == said[1], "who watches them may hear either"


def test_places_of_one_stream_that_differ_stop_the_run(
    still: Path, shape_shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's copy is damaged and no shorter: its rows are of other batches from there on."""
    theirs = torch.tensor([[0, 47]])
    monkeypatch.setattr("capfilt.train.run.of_all", lambda told, device: [told, theirs])
    with pytest.raises(TrainingError, match=r"other pairs of the same shards: \[Place\(epoch=0, pairs=47\), Place"):
        train(config("pretrain", still, shape_shard, tmp_path / "run"))


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
        assert (tmp_path / f"{rank}.txt").read_text() == "the processes do not agree on the number of shards: 1, 2"
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

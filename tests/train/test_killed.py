"""Killed at random moments and started again, a run ends with the very bits of one that nobody disturbed."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

CAPFILT = Path(sys.executable).with_name("capfilt")
STEPS = 40


def command(architecture: Path, shard: Path, out: Path) -> list[str | Path]:
    sets = [
        f"model={architecture}",
        f"steps={STEPS}",
        "batch_size=8",
        "checkpoint_every=1",
        "log_every=1",
        "precision=float32",
        "device=cpu",
        "track=[]",
        "accumulate=2",
        "data.shuffle_buffer=32",
        "data.loaders=0",
        "objective.queue_size=24",
        "optim.warmup_steps=4",
    ]
    return [CAPFILT, "pretrain", shard, out, "--quiet", *(arg for one in sets for arg in ("--set", one))]


def steps_done(out: Path) -> int:
    return max((int(folder.name[5:]) for folder in (out / "checkpoints").glob("step-*")), default=0)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_bits_of_one_undisturbed(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(tiny_architecture, shape_shard, whole), env=environment, check=True, timeout=250)
    chance = random.Random(20)
    killed_at: list[int] = []
    for _ in range(4):
        goal = steps_done(broken) + chance.randrange(3, 8)
        run = subprocess.Popen(command(tiny_architecture, shape_shard, broken), env=environment)
        while steps_done(broken) < goal and run.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.2)  # anywhere in a step, in the writing of a checkpoint too
        run.send_signal(signal.SIGKILL)
        assert run.wait(timeout=60) == -signal.SIGKILL, "it ended before it was killed"
        killed_at.append(steps_done(broken))
    subprocess.run(command(tiny_architecture, shape_shard, broken), env=environment, check=True, timeout=250)
    print(f"killed behind steps {killed_at} of {STEPS}")  # noqa: T201  for -s
    one, two = (load_file(out / "model" / "model.safetensors") for out in (whole, broken))
    assert all(torch.equal(one[name], two[name]) for name in one)
    ends = [load_file(out / "checkpoints" / f"step-{STEPS:08d}" / "state.safetensors") for out in (whole, broken)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    lines = []
    for out in (whole, broken):
        with (out / "log.csv").open(newline="") as file:
            lines.append([(row["step"], row["itc"], row["itm"], row["lm"]) for row in csv.DictReader(file)])
    # A resumed run also reports its first step; every step is reported here, so the lines are the same.
    assert lines[0] == lines[1]
    assert len(lines[0]) == STEPS

"""What a run tells of itself reaches TensorBoard, and Weights & Biases and MLflow where they are installed."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from capfilt.errors import TrainingError
from capfilt.train.config import DataConfig, ObjectiveConfig, OptimConfig, TrainConfig
from capfilt.train.curves import draw
from capfilt.train.log import Log, Skipped
from capfilt.train.run import train


def config(architecture: Path, shard: Path, out: Path) -> TrainConfig:
    return TrainConfig(
        model=str(architecture),
        out=str(out),
        steps=4,
        batch_size=8,
        log_every=1,
        checkpoint_every=2,
        data=DataConfig(shards=(str(shard),), rand_augment=False),
        optim=OptimConfig(warmup_steps=0, decay="step"),
        objective=ObjectiveConfig(queue_size=0),
        device="cpu",
    )


def test_tensorboard_has_each_report_once_over_a_stop(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = replace(config(tiny_architecture, shape_shard, tmp_path / "run"), held_out=(str(shape_shard),))
    train(replace(run, steps=2))
    train(run)
    told = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    told.Reload()
    assert {"train/itc", "train/itm", "train/lm", "train/lr", "train/images_per_s", "held-out/lm"} <= set(
        told.Tags()["scalars"]
    )
    assert [event.step for event in told.Scalars("train/lm")] == [1, 2, 3, 4]
    assert [event.step for event in told.Scalars("held-out/lm")] == [2, 4]
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_done(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    missing = [name for name in ("wandb", "mlflow") if importlib.util.find_spec(name) is None]
    if not missing:
        pytest.skip("both are installed here")
    run = replace(config(tiny_architecture, shape_shard, tmp_path / "run"), track=(missing[0],))
    with pytest.raises(TrainingError, match=f"{missing[0]} is not installed"):
        train(run)
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")  # theirs
def test_wandb_gets_the_run_without_a_network(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(replace(config(tiny_architecture, shape_shard, tmp_path / "run"), track=("wandb",)))
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.filterwarnings("ignore")  # theirs
def test_mlflow_goes_on_with_the_run_that_was_stopped(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    run = replace(config(tiny_architecture, shape_shard, tmp_path / "run"), track=("mlflow",))
    train(replace(run, steps=2))
    train(run)
    client = mlflow.MlflowClient(uri)
    ids = [r.info.run_id for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    assert len(ids) == 1
    assert [m.step for m in client.get_metric_history(ids[0], "train/lm")] == [1, 2, 3, 4]
    assert client.get_run(ids[0]).data.params["optim.decay"] == "step"


def test_half_a_line_that_a_kill_left_is_dropped(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv", 0)
    for step in (1, 2, 3):
        log.write(step, {"lm": step / 2, "lr": 1e-4})
    whole = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(whole + "4,1.2")
    again = Log(tmp_path / "log.csv", 9)
    assert (tmp_path / "log.csv").read_text() == whole
    assert again.ends() == (0.5, 1.5)
    assert Log(tmp_path / "log.csv", 2).ends() == (0.5, 1.0)


def test_what_is_passed_over_is_written_down_once(tmp_path: Path) -> None:
    first = Skipped(tmp_path / "skipped.csv")
    assert first.add([("a.tar#1", "broken\nin two"), ("a.tar#1", "again"), ("b.tar", "gone")]) == [
        ("a.tar#1", "again"),
        ("b.tar", "gone"),
    ]
    again = Skipped(tmp_path / "skipped.csv")
    assert again.add([("b.tar", "gone")]) == []
    assert (tmp_path / "skipped.csv").read_text() == "name,reason\na.tar#1,again\nb.tar,gone\n"


def test_curves_of_nothing_are_none(tmp_path: Path) -> None:
    assert draw(tmp_path, tmp_path / "curves.png") is None

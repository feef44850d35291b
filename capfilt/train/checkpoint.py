"""Checkpoints: tensors as safetensors, the rest as JSON, nothing pickled; a folder appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from capfilt.errors import TrainingError
from capfilt.med import ranks
from capfilt.train.group import of_all
from capfilt.train.pairs import Place

CPU = torch.device("cpu")


def rng_states(device: torch.device) -> dict[str, Tensor]:
    """The state of every process's generators, for :func:`save`; all processes must ask."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {f"{kind}/{rank}": s for kind, own in states.items() for rank, s in enumerate(of_all(own, device))}


def save(
    folder: Path,
    task: nn.Module,
    optimizer: torch.optim.AdamW,
    states: dict[str, Tensor],
    *,
    step: int,
    config: dict[str, Any],
    places: dict[int, Place],
    pairs: int,
    shards: str,
    keep: int,
) -> Path:
    """Write ``folder/step-NNNNNNNN`` and drop the oldest but ``keep``.

    Args:
        folder: of all checkpoints. task, optimizer, states: their state.
        step: steps done. config: the run's settings. places: how far each loader process is.
        pairs, shards: of an epoch, as the run counted them, and a digest of each shard's.
        keep: newest checkpoints that stay, this one counted.
    """
    target, temporary = folder / f"step-{step:08d}", folder / f".step-{step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tensors = {f"task/{name}": t for name, t in task.state_dict().items()}
    for name, state in _moments(task, optimizer).items():
        tensors |= {f"optimizer/{key}/{name}": t for key, t in state.items()}
    tensors |= {f"rng/{name}": state for name, state in states.items()}
    save_file(
        {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, temporary / "state.safetensors"
    )
    told = {"step": step, "config": config, "pairs": pairs, "shards": shards} | {
        "places": {str(worker): asdict(p) for worker, p in places.items()}
    }
    (temporary / "state.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    # A name must not outlive its bytes when the power goes.
    for file in (*temporary.iterdir(), temporary):
        sync(file)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    sync(folder)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        # Renamed first: half a folder must not look like a checkpoint.
        shutil.rmtree(old.rename(folder / f".{old.name}"))
    return target


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint, if there is one."""
    return max(folder.glob("step-*"), default=None)


def restore(
    folder: Path,
    task: nn.Module,
    optimizer: torch.optim.AdamW,
    *,
    config: dict[str, Any],
    steps: int,
    pairs: int,
    shards: str,
    device: torch.device = CPU,
) -> tuple[int, dict[int, Place]]:
    """Bring a run back to where it was saved.

    Args:
        folder: the checkpoint. task, optimizer: get its state.
        config: the run's settings, which must be those it was made with; another number of steps is allowed where the
            learning rate does not depend on it.
        steps: where the run is to end. pairs, shards: as :func:`save`, as they are counted now. device: where it runs.

    Returns:
        The step it goes on with, and how far each loader process was.

    Raises:
        TrainingError: it is damaged, or was made with other settings or another number of pairs; says which.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "state.safetensors")
        if not {"step", "config", "places"} <= state.keys() or "rng/cpu/0" not in tensors:
            raise ValueError("it is of another version, or not whole")
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(
            f"the checkpoint cannot be read: {error}",
            where=str(folder),
            mend="Remove this folder to go on from an earlier one.",
        ) from error
    free = ("steps", "epochs") if config.get("optim", {}).get("decay") == "step" else ()
    made_with = _later(state["config"])
    changed = sorted(k for k in config if made_with.get(k) != config[k] and k not in free)
    if changed:
        raise TrainingError(
            f"it was made with other settings of {', '.join(changed)}",
            where=str(folder),
            mend="Choose another output folder.",
        )
    if state.get("pairs", pairs) != pairs:  # decay, alpha and places would be those of another run
        raise TrainingError(
            f"the shards held {state['pairs']:,} pairs an epoch when the run began, and hold {pairs:,} now",
            where=str(folder),
            mend="Run again when what cannot be read is back; on other data, start in another folder from its weights.",
        )
    if state.get("shards", shards) != shards:
        raise TrainingError(
            "some shards hold other pairs than when the run began, though they are as many in all",
            where=str(folder),
            mend="Run again when what cannot be read is back; on other data, start in another folder from its weights.",
        )
    if state["step"] > steps:
        raise TrainingError(
            f"it is at step {state['step']} already, and the run is to end at {steps}",
            where=str(folder),
            mend="Choose another output folder.",
        )
    task.load_state_dict({n.removeprefix("task/"): t for n, t in tensors.items() if n.startswith("task/")})
    _restore_moments(task, optimizer, tensors)
    rank = ranks.world()[0]
    if f"rng/cpu/{rank}" in tensors:
        torch.set_rng_state(tensors[f"rng/cpu/{rank}"])
        if f"rng/cuda/{rank}" in tensors and device.type == "cuda":
            torch.cuda.set_rng_state(tensors[f"rng/cuda/{rank}"], device)
    else:  # a process that was not there before: it must not draw what another draws
        torch.manual_seed(hash((int(config.get("seed", 0)), rank, int(state["step"]))))
    return int(state["step"]), {int(worker): Place(**place) for worker, place in state["places"].items()}


def _later(config: dict[str, Any]) -> dict[str, Any]:
    """A run's settings with those that came after it began, at what leaves it as it was."""
    return {**config, "data": {"streams": 1, **config.get("data", {})}}


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _moments(task: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, dict[str, Tensor]]:
    return {name: optimizer.state[p] for name, p in task.named_parameters() if p in optimizer.state}


def _restore_moments(task: nn.Module, optimizer: torch.optim.AdamW, tensors: dict[str, Tensor]) -> None:
    parameters = dict(task.named_parameters())
    for full, tensor in tensors.items():
        kind, _, rest = full.partition("/")
        if kind == "optimizer":
            key, _, name = rest.partition("/")
            p = parameters[name]
            # The fused AdamW, which the loop takes, wants its step counts beside the weights too.
            optimizer.state[p][key] = tensor.to(p.device)

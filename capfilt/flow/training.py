"""A training run on Ray Train, on this machine or a cluster: workers share each batch, and one that dies is replaced.

Ray Train starts the processes, joins them to one group and watches them; each then trains as under torchrun. When one
dies, all are started again and go on from the newest checkpoint in the run's own folder, of which Ray knows nothing:
Ray's books are kept for the run and thrown away. Knows Ray and a training run's face; knows no model and no data.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from capfilt.errors import CapfiltError, EngineError
from capfilt.flow.cluster import DIED, cores, environment, machines, running
from capfilt.flow.config import RunConfig
from capfilt.train.config import TrainConfig
from capfilt.train.group import share_of
from capfilt.train.log import StepReport
from capfilt.train.run import OnStart, OnStep, TrainResult, train

RESTARTS = 3
"""How often the workers are started again after one of them died."""
PLACE_ATTEMPTS = 3
"""How often all workers are waited for once more: until a cluster has machines in place of lost ones."""
_SETTINGS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300"}  # a busy laptop needs more than Ray's minute
_ALONE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # one machine is not taken away and replaced


def train_on_ray(
    config: TrainConfig,
    run: RunConfig | None = None,
    on_step: OnStep | None = None,
    on_start: OnStart | None = None,
) -> TrainResult:
    """As :func:`capfilt.train.run.train`, by several processes of Ray.

    Args:
        config: the settings. ``out`` and what is read must be at the same path for all workers: one machine, or a
            shared file system. Relative paths are of this process's folder.
        run: how many workers, and where; without a number as many as there are GPUs, or cores where there are none.
        on_step: as of ``train``; called here in the driver, from another thread. Steps done again are told again.
        on_start: likewise.

    Raises:
        EngineError: Ray cannot be reached, has no room for the workers, or loses them too often.
        CapfiltError: whatever ``train`` raised in a worker, as it was raised, and at once.
    """
    run = run or RunConfig()
    if run.workers:
        share_of(config.batch_size // config.accumulate, run.workers)
    with running(max(cores(), run.workers or 1), run, without="without --workers"):
        gpus = config.device.startswith("cuda") or (config.device == "auto" and any(m.gpus for m in machines()))
        workers = _workers(run.workers, gpus=gpus)
        settings = _SETTINGS | (_ALONE if len(machines()) == 1 else {})
        with TemporaryDirectory() as books, _told(on_step, on_start) as told, environment(settings), _interruptible():
            trainer = ray.train.torch.TorchTrainer(
                _loop(config, told, steps=on_step is not None, starts=on_start is not None),
                torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpus else "gloo"),
                scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=gpus),
                run_config=ray.train.RunConfig(
                    storage_path=books,
                    name="train",
                    failure_config=ray.train.FailureConfig(
                        max_failures=RESTARTS, controller_failure_limit=PLACE_ATTEMPTS
                    ),
                    callbacks=[_no_retry()],
                ),
            )
            result = _fit(trainer)
    return replace(result, folder=Path(config.out) / "model")


def _loop(config: TrainConfig, told: Queue, *, steps: bool, starts: bool) -> Callable[[], TrainResult]:
    home, config = str(Path.cwd()), replace(config, out=str(Path(config.out).absolute()))

    def loop() -> TrainResult:
        """What every worker does."""
        with suppress(OSError):  # on another machine it may be missing, and is then not needed
            os.chdir(home)
        # Ray gives each worker's libraries one thread.
        torch.set_num_threads(max(1, cores() // ray.train.get_context().get_local_world_size()))
        own = config
        if config.device == "auto" or config.device.startswith("cuda"):
            own = replace(config, device=str(ray.train.torch.get_device()))
        # The queue's answer is waited for: a driver that is gone ends the run.
        return train(own, told.put if steps else None, told.put if starts else None)

    return loop


def _no_retry() -> ray.train.UserCallback:
    """What ends the run, in Ray's controller, on a mistake that another attempt would not mend."""

    # Made here, it travels by value: else the controller would load all that this module does.
    class NoRetry(ray.train.UserCallback):  # type: ignore[misc]  # Ray's has no types
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            """Raises it again; Ray does not retry what a callback raises."""
            for error in worker_exceptions.values():
                if isinstance(error, CapfiltError):
                    raise error

    return NoRetry()


def _fit(trainer: ray.train.torch.TorchTrainer) -> TrainResult:
    try:
        result: TrainResult = trainer.fit().return_value
    except ray.train.ControllerError as error:
        failure = error.controller_failure
        if isinstance(failure, CapfiltError):
            raise failure from None
        first = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        raise EngineError(f"Ray Train stopped: {first}", where="ray", mend=_AGAIN) from error
    except ray.train.WorkerGroupError as error:
        # Of a worker that died Ray holds what asking after its health gave.
        failures = [getattr(failure, "health_check_failure", failure) for failure in error.worker_failures.values()]
        if any(isinstance(failure, DIED) for failure in failures):
            raise EngineError(
                f"a worker died, and {RESTARTS} restarts did not help", where="ray", mend=_AGAIN
            ) from error
        raise
    return result


_AGAIN = (
    "Run again to go on from the newest checkpoint; if memory ran out, with fewer --workers or a smaller batch_size."
)


def _workers(asked: int | None, *, gpus: bool) -> int:
    """How many workers of a CPU each, and a GPU if ``gpus``.

    Raises:
        EngineError: there is no room for them. Ray would wait for it without a word.
    """
    room = sum(int(min(m.cpus, m.gpus) if gpus else m.cpus) for m in machines())
    if room >= (asked or 1):
        return asked or room
    kind = "GPU" if gpus else "CPU"
    raise EngineError(
        f"{asked or 1} workers of a {kind} each do not fit: Ray has room for {room}",
        where="workers",
        mend=f"Ask for {room} with --workers." if room else f"Add a machine with a {kind}, or set device to cpu.",
    )


@contextmanager
def _told(on_step: OnStep | None, on_start: OnStart | None) -> Iterator[Queue]:
    """A queue on this machine; what the first worker puts there is told here, at once."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    told = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def listen() -> None:
        while (news := told.get()) is not None:
            if isinstance(news, StepReport):
                if on_step:
                    on_step(news)
            elif on_start:
                on_start(news)

    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(listen)
        try:
            yield told
        finally:
            told.put(None)
        listening.result()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ray Train takes Ctrl-C for itself: it ends the workers, and then this process as if all were done."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stopped:
        raise KeyboardInterrupt from stopped
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)

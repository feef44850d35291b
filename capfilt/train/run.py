"""One training run: pretraining, or the finetuning of captioner or filter.

Knows the model's tasks and the loader; knows no pipeline. A run interrupted goes on from its newest
checkpoint when it is started again with the same settings. Started by torchrun, its processes share each batch, and
train as one process with the whole batch would.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from capfilt.captions import clean
from capfilt.errors import CapfiltError, TrainingError
from capfilt.med import ranks
from capfilt.med.device import precision_of
from capfilt.med.encoders import Begun
from capfilt.med.model import MED
from capfilt.med.objectives import alpha_at
from capfilt.train import checkpoint
from capfilt.train.begin import goes_on, model_of, task_of
from capfilt.train.config import TrainConfig
from capfilt.train.counting import check_size, counted, held_out_pairs, too_few
from capfilt.train.curves import draw
from capfilt.train.data import BatchStream, Raw, Shape, loader, plain_batches
from capfilt.train.group import agree, joined, means, of_all, rows_of, wait
from capfilt.train.log import Log, Meter, Skipped, StepReport, peak_memory_gb, skipped_in, total
from capfilt.train.pairs import Pairs, Place
from capfilt.train.schedule import lr_at
from capfilt.train.track import Tracker, check_installed, trackers


@dataclass(frozen=True)
class TrainResult:
    """Where the model is, and the sum of its losses at the first and the last report."""

    folder: Path
    steps: int
    first_loss: float
    last_loss: float
    skipped: int = 0
    """Shards, samples and pictures that could not be read; ``skipped.csv`` names them, and that of each process."""
    best_step: int | None = None
    """Where the losses on ``held_out`` were lowest; that model is in ``out/best``."""


OnStep = Callable[[StepReport], None]
OnStart = Callable[[list[Begun]], None]


def train(config: TrainConfig, on_step: OnStep | None = None, on_start: OnStart | None = None) -> TrainResult:
    """Train and write ``out/model`` (a model folder), ``out/checkpoints``, ``out/log.csv``, ``out/tensorboard``
    and, where matplotlib is installed, ``out/curves.png``.

    Args:
        config: the settings.
        on_step: is told of every ``log_every``-th step.
        on_start: is told, before a run's first step, where each part of the model is from; not when a run goes on.

    Raises:
        SourceError: shards are missing. ModelError: the model is unknown, or lacks the task's part.
        DataError: ``data.strict``, and something cannot be read.
        TrainingError: there is nothing to train on, a loss is not finite, or ``out`` holds another run.
    """
    with joined(config.device) as device:
        return _train(config, device, on_step, on_start)


def _train(config: TrainConfig, device: torch.device, on_step: OnStep | None, on_start: OnStart | None) -> TrainResult:
    check_installed(config.track)
    rows = rows_of(config.batch_size // config.accumulate)
    torch.manual_seed(config.seed)
    model, begun = model_of(config, goes_on=goes_on(config))
    # Longer texts are cut; the model may have fewer positions than the recipe has tokens.
    tokens = min(config.data.max_tokens, model.config.text.max_positions)
    pairs = Pairs(replace(config.data, max_tokens=tokens))
    held_out = held_out_pairs(config, pairs.config)
    pairs.check_streams(max(1, config.data.loaders))
    found = counted(pairs, device)
    check_size(found, config)
    pairs.check_streams(max(1, config.data.loaders))
    if begun and on_start and ranks.world()[0] == 0:
        on_start(begun)
    steps = config.steps or config.epochs * _per_epoch(found, config)
    task = task_of(config, model).to(device)
    # From here on each process draws its own dropout; the first one as it would alone.
    if ranks.world()[0]:
        torch.manual_seed(config.seed + ranks.world()[0])
    held = hashlib.blake2b(repr(pairs.by_shard).encode(), digest_size=16).hexdigest()
    return _Run(config, task, device, rows, found, held, steps).go(pairs, held_out, on_step)


def _per_epoch(found: int, config: TrainConfig) -> int:
    return max(1, found // config.batch_size)


class _Run:
    def __init__(
        self,
        config: TrainConfig,
        task: nn.Module,
        device: torch.device,
        rows: slice,
        found: int,
        shards: str,
        steps: int,
    ) -> None:
        self.shards = shards
        self.config, self.task, self.device, self.rows = config, task, device, rows
        self.rank, self.size = ranks.world()
        self.found, self.per_epoch, self.steps = found, _per_epoch(found, config), steps
        self.model: MED = task.model  # type: ignore[assignment]  # every task has one; nn.Module cannot say so
        trained = [p for p in task.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained, lr=config.optim.lr, weight_decay=config.optim.weight_decay, fused=True
        )
        # Finetuning a part of a whole model leaves the other's weights without gradient, which the wrapper must be
        # told; where there are none, it would look for them in each step, and warn.
        unused = config.task not in ("pretrain", self.model.config.holds)
        self.wrapped = _shared(task, finds_unused=unused) if self.size > 1 else task
        self.out = Path(config.out)
        self.settings = {k: v for k, v in _jsonable(asdict(config)).items() if k not in FREE}
        self.places: dict[int, Place] = {}
        self.read: set[int] = set()
        """Streams that this process has read since it began."""
        self.best: tuple[float, int] | None = None

    def go(self, pairs: Pairs, held_out: Pairs | None, on_step: OnStep | None) -> TrainResult:
        start = self._resume()
        agree("the step to go on with", start, self.device)
        log, held_log = (Log(self.out / name, start, writes=self.rank == 0) for name in ("log.csv", "held-out.csv"))
        self.best = min(((total(row), int(row["step"])) for row in held_log.rows), default=None)
        skipped = Skipped(self.out / ("skipped.csv" if self.rank == 0 else f"skipped-{self.rank}.csv"))
        told = trackers(self.config.track if self.rank == 0 else (), self.out, self.settings, start)
        if held_out is not None:
            self._check(held_out)
        batches = self._batches(pairs, start, skipped)
        self.task.train()
        meter = Meter(self.config.batch_size)
        for step in range(start, self.steps):
            lr = lr_at(step, self.config.optim, steps_per_epoch=self.per_epoch, steps=self.steps)
            pieces = [next(batches) for _ in range(self.config.accumulate)]
            meter.add(step + 1, self._step(pieces, step, lr), [name for raw in pieces for name in raw.names])
            if (step + 1) % self.config.log_every == 0 or step + 1 == self.steps or step == start:
                report = self._report(meter, step, lr)
                self._tell(report, log, told)
                if on_step and self.rank == 0:
                    on_step(report)
            if (step + 1) % self.config.checkpoint_every == 0 or step + 1 == self.steps:
                if held_out is not None:
                    self._measure(held_out, step + 1, held_log, told, skipped)
                self._save(step + 1)
        for tracker in told:
            tracker.close()
        self.task.eval()
        if self.rank == 0:
            self.model.save(self.out / "model")
            draw(self.out, self.out / "curves.png")
        wait()
        first, last = log.ends()
        best = self.best and self.best[1]
        return TrainResult(self.out / "model", self.steps, first, last, len(skipped_in(self.out)), best)

    def _batches(self, pairs: Pairs, start: int, skipped: Skipped) -> Iterator[Raw]:
        skip = start * self.config.accumulate
        stream = BatchStream(
            pairs, self.model.tokenizer, self._shape(), seed=self.config.seed, skip=skip, places=self.places
        )
        for raw in loader(stream, processes=self.config.data.loaders, pin=self.device.type == "cuda"):
            if isinstance(raw, CapfiltError):
                raise raw
            self.places.update(raw.places)
            self.read |= raw.places.keys()
            skipped.add(raw.bad)
            yield raw

    def _shape(self) -> Shape:
        # ``clean`` drops the prompt's last space, without which words would run together.
        prompt = clean(self.model.config.prompt) + " " if self.config.task == "captioner" else ""
        return Shape(
            size=self.model.config.vision.image_size,
            batch_size=self.config.batch_size // self.config.accumulate,
            rows=self.rows,
            prompt=prompt.lstrip(),
        )

    def _step(self, pieces: list[Raw], step: int, lr: float) -> dict[str, Tensor]:
        """One step of the optimiser; the batch comes in ``accumulate`` pieces."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for i, raw in enumerate(pieces):
            last = i + 1 == len(pieces)
            # Processes add up their gradients once, with the last piece.
            with nullcontext() if last or self.size == 1 else self.wrapped.no_sync():  # type: ignore[operator]
                losses = self._losses(raw, step, follow=i == 0)
                whole = torch.stack(list(losses.values())).sum() / len(pieces)
                whole.backward()  # type: ignore[no-untyped-call]
            for name, loss in losses.items():
                part = loss.detach() / len(pieces)
                sums[name] = sums[name] + part if name in sums else part
        if self.config.optim.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip)
        self.optimizer.step()
        return sums

    def _losses(self, raw: Raw, step: int, *, follow: bool) -> dict[str, Tensor]:
        o = self.config.objective
        alpha = alpha_at(step, steps_per_epoch=self.per_epoch, alpha=o.alpha, ramp_epochs=o.alpha_ramp_epochs)
        mixed = precision_of(self.config.precision, str(self.device)) == torch.bfloat16
        # On a CPU the backward pass of fused bfloat16 attention takes three times as long as the plain one.
        kernels = [SDPBackend.MATH] if mixed and self.device.type == "cpu" else list(_FUSED)
        with sdpa_kernel(kernels), torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            try:
                losses: dict[str, Tensor] = self.wrapped(raw.to(self.device), alpha=alpha, follow=follow)
            except RuntimeError as error:
                # Negatives cannot be drawn by what is not a number.
                self._check_weights(step, raw.names, error)
                raise
        return losses

    def _report(self, meter: Meter, step: int, lr: float) -> StepReport:
        own, rate = meter.take()
        losses = means(own, self.device)
        if not all(math.isfinite(loss) for loss in losses.values()):
            found = meter.first_wild()
            if found is None:  # the others' batch
                raise TrainingError(f"a loss is not finite by step {step + 1}", where=self.config.out, mend=_TAME)
            wild, values, names = found
            self._write_down(wild, names, values)
            raise TrainingError(f"a loss is not finite at step {wild}: {values}", where=self.config.out, mend=_TAME)
        eta = (self.steps - step - 1) * self.config.batch_size / rate
        return StepReport(step + 1, self.steps, losses, rate, lr, peak_memory_gb(self.device), eta)

    def _tell(self, report: StepReport, log: Log, told: list[Tracker]) -> None:
        numbers = {
            **report.losses,
            "lr": report.lr,
            "images_per_s": report.images_per_s,
            "memory_gb": report.memory_gb,
        }
        log.write(report.step, numbers)
        for tracker in told:
            tracker.write(report.step, {f"train/{name}": value for name, value in numbers.items()})

    def _check(self, held_out: Pairs) -> None:
        if next(plain_batches(held_out, self.model.tokenizer, self._shape(), limit=1), None) is None:
            raise too_few(self.config, "pairs that can be decoded")

    @torch.no_grad()
    def _measure(self, held_out: Pairs, step: int, log: Log, told: list[Tracker], skipped: Skipped) -> None:
        """The losses on held-out pairs, which leave queue, twin and generators as they were; the best model is kept."""
        self.task.eval()
        sums: dict[str, float] = {}
        made = 0
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.config.seed)
            for raw in plain_batches(held_out, self.model.tokenizer, self._shape(), limit=self.config.held_out_batches):
                made += 1
                skipped.add(raw.bad)
                for name, loss in self.task(raw.to(self.device), alpha=0.0, follow=False, push=False).items():
                    sums[name] = sums.get(name, 0.0) + float(loss)
        self.task.train()
        losses = means({name: value / made for name, value in sums.items()}, self.device)
        log.write(step, losses)
        for tracker in told:
            tracker.write(step, {f"held-out/{name}": value for name, value in losses.items()})
        if self.best is None or total(losses) < self.best[0]:
            self.best = total(losses), step
            if self.rank == 0:
                self.model.save(self.out / "best")

    def _resume(self) -> int:
        found = checkpoint.newest(self.out / "checkpoints")
        wait()  # or one process might make what another takes for an earlier run's
        if found is None:
            self.out.mkdir(parents=True, exist_ok=True)
            return 0
        start, self.places = checkpoint.restore(
            found,
            self.task,
            self.optimizer,
            config=self.settings,
            steps=self.steps,
            pairs=self.found,
            shards=self.shards,
            device=self.device,
        )
        return start

    def _check_weights(self, step: int, names: tuple[str, ...] = (), cause: Exception | None = None) -> None:
        """No checkpoint may hold what no run can go on from."""
        bad = [name for name, p in self.task.named_parameters() if not bool(torch.isfinite(p).all())]
        if bad:
            self._write_down(step + 1, names, {})
            raise TrainingError(
                f"weights are not finite at step {step + 1}: {bad[0]} and {len(bad) - 1} more",
                where=self.config.out,
                mend=_TAME,
            ) from cause

    def _write_down(self, step: int, names: tuple[str, ...] | Any, losses: dict[str, float]) -> None:
        """``not-finite.json``: the step, its losses and the pairs of its batch."""
        file = self.out / ("not-finite.json" if self.size == 1 else f"not-finite-{self.rank}.json")
        told = {"step": step, "losses": {name: str(v) for name, v in losses.items()}, "pairs": list(names)}
        file.write_text(json.dumps(told, indent=1), encoding="utf-8")

    def _save(self, step: int) -> None:
        self._check_weights(step - 1)
        states = checkpoint.rng_states(self.device)
        places = self._all_places()
        if self.rank == 0:
            checkpoint.save(
                self.out / "checkpoints",
                self.task,
                self.optimizer,
                states,
                step=step,
                config=self.settings,
                places=places,
                pairs=self.found,
                shards=self.shards,
                keep=self.config.keep,
            )
        wait()

    def _all_places(self) -> dict[int, Place]:
        """How far every stream is, those of other processes too.

        Raises:
            TrainingError: two processes have read different pairs of one stream, and so trained on rows of two batches.
        """
        told = torch.full((max(1, self.config.data.loaders) * self.config.data.streams, 2), -1, dtype=torch.int64)
        for number in self.read:
            told[number] = torch.tensor([self.places[number].epoch, self.places[number].pairs])
        places = dict(self.places)
        for number, of_each in enumerate(torch.stack(of_all(told, self.device), 1).tolist()):
            found = {Place(*place) for place in of_each if place[0] >= 0}
            if len(found) > 1:
                raise TrainingError(
                    f"the processes have read other pairs of the same shards: {sorted(found, key=astuple)}",
                    where=self.config.out,
                    mend="A shard is damaged on one machine: see skipped*.csv, copy it anew, and run again.",
                )
            if found:
                places[number] = found.pop()
        return places


def _shared(task: nn.Module, *, finds_unused: bool) -> nn.Module:
    # Of 1 x 1 convolutions, whose last two strides mean nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match", UserWarning)
    with warnings.catch_warnings():
        # Newer versions have another name for broadcast_buffers, which older ones do not know.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(task, find_unused_parameters=finds_unused, broadcast_buffers=False)


_TAME = (
    "The checkpoints here are whole, but go on the same way: start in another folder with a lower optim.lr, "
    "optim.clip: 1.0 or precision: float32; not-finite.json names the step and its pairs."
)
_FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)
FREE = ("device", "checkpoint_every", "log_every", "out", "keep", "track", "held_out", "held_out_batches")
"""Settings that do not decide what is trained: a run may go on with others."""


def _jsonable(value: object) -> dict[str, object]:
    def plain(v: object) -> object:
        if isinstance(v, dict):
            return {k: plain(x) for k, x in v.items()}
        return [plain(x) for x in v] if isinstance(v, tuple | list) else v

    out = plain(value)
    assert isinstance(out, dict)  # noqa: S101  asdict gives one
    return out

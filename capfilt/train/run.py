"""One training run: pretraining, or the finetuning of captioner or filter.

Knows the model's tasks and the loader; knows no pipeline. A run interrupted goes on from its newest
checkpoint when it is started again with the same settings. Started by torchrun, its processes share each batch, and
train as one process with the whole batch would.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from capfilt.captions import clean
from capfilt.catalog import model_folder
from capfilt.errors import ModelError, TrainingError
from capfilt.med import ranks
from capfilt.med.encoders import Begun, begin
from capfilt.med.hub import obtain
from capfilt.med.model import MED
from capfilt.med.objectives import alpha_at
from capfilt.med.tasks import CaptionerFinetune, FilterFinetune, Pretrain
from capfilt.train import checkpoint
from capfilt.train.config import TrainConfig
from capfilt.train.data import BatchStream, Pairs, loader
from capfilt.train.group import agree, joined, means, rows_of, wait
from capfilt.train.log import Log, Meter, StepReport
from capfilt.train.schedule import lr_at


@dataclass(frozen=True)
class TrainResult:
    """Where the model is, and the sum of its losses at the first and the last report."""

    folder: Path
    steps: int
    first_loss: float
    last_loss: float


OnStep = Callable[[StepReport], None]
OnStart = Callable[[list[Begun]], None]


def train(config: TrainConfig, on_step: OnStep | None = None, on_start: OnStart | None = None) -> TrainResult:
    """Train and write ``out/model`` (a model folder), ``out/checkpoints`` and ``out/log.csv``.

    Args:
        config: the settings.
        on_step: is told of every ``log_every``-th step.
        on_start: is told, before a run's first step, where each part of the model is from; not when a run goes on.

    Raises:
        SourceError: shards are missing. ModelError: the model is unknown, or lacks the task's part.
        TrainingError: there is nothing to train on, a loss is not finite, or ``out`` holds another run.
    """
    with joined(config.device) as device:
        return _train(config, device, on_step, on_start)


def _train(config: TrainConfig, device: torch.device, on_step: OnStep | None, on_start: OnStart | None) -> TrainResult:
    rows = rows_of(config.batch_size)
    torch.manual_seed(config.seed)
    model, begun = _start(config)
    if config.image_size is not None and config.image_size != model.config.vision.image_size:
        model = model.resized(config.image_size)
    if model.config.holds not in ("both", config.task):
        raise ModelError(
            f"the model holds a {model.config.holds} only",
            where=config.init or config.model,
            mend=f"Name a whole model, or one that holds what {config.task} trains.",
        )
    _check_prompt(model, config)
    pairs = Pairs(config.data)
    total = len(pairs)
    agree("the number of pairs", total, device)
    _check_size(total, config)
    if begun and on_start and ranks.world()[0] == 0:
        on_start(begun)
    per_epoch = max(1, total // config.batch_size)
    steps = config.steps or config.epochs * per_epoch
    task = task_of(config, model).to(device)
    # From here on each process draws its own dropout; the first one as it would alone.
    if ranks.world()[0]:
        torch.manual_seed(config.seed + ranks.world()[0])
    return _Run(config, task, device, rows, per_epoch, steps).go(pairs, on_step)


def _start(config: TrainConfig) -> tuple[MED, list[Begun]]:
    """The model before its first step, and where its parts are from; nothing where a checkpoint will replace them."""
    goes_on = checkpoint.newest(Path(config.out) / "checkpoints") is not None
    if config.init is not None:
        folder = model_folder(config.init)
        model = MED.load(folder).requires_grad_(True)
        whole = Begun("the whole model", str(folder), sum(p.numel() for p in model.parameters()))
        return model, [] if goes_on else [whole]
    model = MED.new(model_folder(config.model))
    if goes_on:
        return model, []
    vision, text = (None if source is None else obtain(source) for source in (config.init_vision, config.init_text))
    return model, begin(model, vision=vision, text=text)


def task_of(config: TrainConfig, model: MED) -> nn.Module:
    """The task that the settings name."""
    o = config.objective
    if config.task == "captioner":
        return CaptionerFinetune(model, label_smoothing=o.label_smoothing)
    contrast: dict[str, Any] = {
        "queue_size": o.queue_size,
        "momentum": o.momentum,
        # The paper's code masks the captions of one image when it finetunes for retrieval, and not before.
        "mask_same_image": o.exact is None or config.task == "filter",
        "mask_same_text": o.exact is None,
        "random_queue": o.exact is not None,
        "negative_floor": o.negative_floor,
    }
    if config.task == "filter":
        return FilterFinetune(model, **contrast)
    return Pretrain(model, label_smoothing=o.label_smoothing, **contrast)


def _check_size(total: int, config: TrainConfig) -> None:
    if total < config.batch_size:
        raise TrainingError(
            f"{total} pairs do not fill one batch of {config.batch_size}",
            where="batch_size",
            mend=f"Set batch_size to {max(2, total)} or less, or train on more shards.",
        )


def _check_prompt(model: MED, config: TrainConfig) -> None:
    prompt = len(model.tokenizer.pieces(clean(model.config.prompt)))
    if config.task == "captioner" and config.data.max_tokens < prompt + 3:
        raise TrainingError(
            f"{config.data.max_tokens} tokens leave no room for a word behind the prompt's {prompt}",
            where="data.max_tokens",
            mend=f"Set it to {prompt + 3} or more; 40 is the paper's.",
        )


def _freeze(model: MED, parts: tuple[str, ...]) -> None:
    for part in parts:
        found = [p for name, p in model.named_parameters() if name.startswith(part)]
        if not found:
            known = sorted({f"{name.split('.')[0]}." for name, _ in model.named_parameters()})
            raise TrainingError(
                f"no parameter's name begins with {part!r}",
                where="optim.freeze",
                mend=f"Names begin with {', '.join(known)}",
            )
        for p in found:
            p.requires_grad_(False)


class _Run:
    def __init__(
        self, config: TrainConfig, task: nn.Module, device: torch.device, rows: slice, per_epoch: int, steps: int
    ) -> None:
        self.config, self.task, self.device, self.rows = config, task, device, rows
        self.rank, self.size = ranks.world()
        self.per_epoch, self.steps = per_epoch, steps
        self.model: MED = task.model  # type: ignore[assignment]  # every task has one; nn.Module cannot say so
        _freeze(self.model, config.optim.freeze)
        trained = [p for p in task.parameters() if p.requires_grad]
        if not trained:
            raise TrainingError("nothing is left to train", where="optim.freeze", mend="Freeze less.")
        self.optimizer = torch.optim.AdamW(
            trained, lr=config.optim.lr, weight_decay=config.optim.weight_decay, fused=True
        )
        # Finetuning leaves heads or a direction without gradient, which the wrapper must be told.
        self.wrapped = (
            DistributedDataParallel(task, find_unused_parameters=config.task != "pretrain", broadcast_buffers=False)
            if self.size > 1
            else task
        )
        self.out = Path(config.out)
        self.settings = {k: v for k, v in _jsonable(asdict(config)).items() if k not in _SPEED_ONLY}

    def go(self, pairs: Pairs, on_step: OnStep | None) -> TrainResult:
        start = self._resume()
        agree("the step to go on with", start, self.device)
        log = Log(self.out / "log.csv", start, writes=self.rank == 0)
        stream = self._stream(pairs, start)
        batches = iter(loader(stream, processes=self.config.data.loaders, pin=self.device.type == "cuda"))
        self.task.train()
        meter = Meter(self.config.batch_size)
        for step in range(start, self.steps):
            lr = lr_at(step, self.config.optim, steps_per_epoch=self.per_epoch, steps=self.steps)
            meter.add(self._step(next(batches).to(self.device), step, lr))
            if (step + 1) % self.config.log_every == 0 or step + 1 == self.steps or step == start:
                report = self._report(meter, step, lr)
                log.write(report)
                if on_step and self.rank == 0:
                    on_step(report)
            if (step + 1) % self.config.checkpoint_every == 0 or step + 1 == self.steps:
                self._save(step + 1)
        self.task.eval()
        if self.rank == 0:
            self.model.save(self.out / "model")
        wait()
        first, last = log.ends()
        return TrainResult(self.out / "model", self.steps, first, last)

    def _stream(self, pairs: Pairs, start: int) -> BatchStream:
        # ``clean`` drops the prompt's last space, without which words would run together.
        prompt = clean(self.model.config.prompt) + " " if self.config.task == "captioner" else ""
        return BatchStream(
            pairs,
            self.model.tokenizer,
            size=self.model.config.vision.image_size,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            skip=start,
            rows=self.rows,
            prompt=prompt.lstrip(),
        )

    def _step(self, batch: object, step: int, lr: float) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        o = self.config.objective
        alpha = alpha_at(step, steps_per_epoch=self.per_epoch, alpha=o.alpha, ramp_epochs=o.alpha_ramp_epochs)
        mixed = self.config.precision == "bfloat16"
        # On a CPU the backward pass of fused bfloat16 attention takes three times as long as the plain one.
        kernels = [SDPBackend.MATH] if mixed and self.device.type == "cpu" else list(_FUSED)
        with sdpa_kernel(kernels), torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            try:
                losses: dict[str, Tensor] = self.wrapped(batch, alpha=alpha)
            except RuntimeError as error:
                # Negatives cannot be drawn by what is not a number.
                self._check_weights(step, error)
                raise
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        if self.config.optim.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip)
        self.optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def _report(self, meter: Meter, step: int, lr: float) -> StepReport:
        own, rate = meter.take()
        losses = means(own, self.device)
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise TrainingError(f"a loss is not finite at step {step + 1}: {losses}", where=self.config.out, mend=_TAME)
        return StepReport(step + 1, self.steps, losses, rate, lr)

    def _resume(self) -> int:
        found = checkpoint.newest(self.out / "checkpoints")
        wait()  # or one process might make what another takes for an earlier run's
        if found is None:
            self.out.mkdir(parents=True, exist_ok=True)
            return 0
        return checkpoint.restore(
            found, self.task, self.optimizer, config=self.settings, steps=self.steps, device=self.device
        )

    def _check_weights(self, step: int, cause: Exception | None = None) -> None:
        """No checkpoint may hold what no run can go on from."""
        bad = [name for name, p in self.task.named_parameters() if not bool(torch.isfinite(p).all())]
        if bad:
            raise TrainingError(
                f"weights are not finite at step {step + 1}: {bad[0]} and {len(bad) - 1} more",
                where=self.config.out,
                mend=_TAME,
            ) from cause

    def _save(self, step: int) -> None:
        self._check_weights(step - 1)
        states = checkpoint.rng_states(self.device)
        if self.rank == 0:
            folder = self.out / "checkpoints"
            checkpoint.save(folder, self.task, self.optimizer, states, step=step, config=self.settings)
        wait()


_TAME = (
    "The checkpoints here are whole, but go on the same way: start in another folder with a lower optim.lr, "
    "optim.clip: 1.0 or precision: float32."
)
_FUSED = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)
_SPEED_ONLY = ("device", "checkpoint_every", "log_every", "out")


def _jsonable(value: object) -> dict[str, object]:
    def plain(v: object) -> object:
        if isinstance(v, dict):
            return {k: plain(x) for k, x in v.items()}
        return [plain(x) for x in v] if isinstance(v, tuple) else v

    out = plain(value)
    assert isinstance(out, dict)  # noqa: S101  asdict gives one
    return out

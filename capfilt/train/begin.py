"""What a run begins with: the model and where its parts are from, its task, and all that can be wrong with both.

Knows models and settings; knows no steps and no files of a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timm.models.vision_transformer import Block
from torch import nn

from capfilt.captions import clean
from capfilt.catalog import model_folder
from capfilt.errors import ModelError, TrainingError
from capfilt.med.encoders import Begun, begin
from capfilt.med.hub import obtain
from capfilt.med.model import MED
from capfilt.med.tasks import CaptionerFinetune, FilterFinetune, Pretrain
from capfilt.med.text import Layer
from capfilt.train.config import TrainConfig


def model_of(config: TrainConfig, *, goes_on: bool) -> tuple[MED, list[Begun]]:
    """The model before its first step, and where its parts are from.

    Args:
        config: the settings.
        goes_on: whether a checkpoint will replace the weights; then nothing is said of their origin.

    Raises:
        ModelError: it is unknown, or lacks what the task trains. TrainingError: its prompt leaves no room for a word.
    """
    model, begun = _start(config, goes_on=goes_on)
    if config.image_size is not None and config.image_size != model.config.vision.image_size:
        model = model.resized(config.image_size)
    if model.config.holds not in ("both", config.task):
        raise ModelError(
            f"the model holds a {model.config.holds} only",
            where=config.init or config.model,
            mend=f"Name a whole model, or one that holds what {config.task} trains.",
        )
    _check_prompt(model, config)
    return model, begun


def _start(config: TrainConfig, *, goes_on: bool) -> tuple[MED, list[Begun]]:
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
    """The task that the settings name.

    Raises:
        TrainingError: it leaves nothing to train, or names parts that are not there.
    """
    task = _task_of(config, model)
    _freeze(model, config.optim.freeze)
    if not any(p.requires_grad for p in task.parameters()):
        raise TrainingError("nothing is left to train", where="optim.freeze", mend="Freeze less.")
    if config.gradient_checkpointing:
        model.vision.set_grad_checkpointing(True)
        model.text.recompute = True
    if config.compile:
        _compile(task)
    return task


def _task_of(config: TrainConfig, model: MED) -> nn.Module:
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


def _compile(task: nn.Module) -> None:
    """Layer by layer, the twin's too: what is around them asks questions of the data, which no compiled graph can
    answer."""
    for module in list(task.modules()):
        if isinstance(module, Block | Layer):
            module.compile(dynamic=True)


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


def goes_on(config: TrainConfig) -> bool:
    """Whether the run's folder holds a checkpoint."""
    return any((Path(config.out) / "checkpoints").glob("step-*"))

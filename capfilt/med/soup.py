"""Several finetunings of one model averaged weight by weight: a model soup.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", 2022. Knows models; knows no training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from capfilt.errors import ModelError
from capfilt.med.config import MEDConfig
from capfilt.med.model import MED


def average(folders: Sequence[Path]) -> MED:
    """The model whose weights are the mean of others' weights, in eval mode.

    Worth having only where all were finetuned from the same model, or are it: of models trained apart the mean knows
    nothing. Two models are in memory at a time, whatever their number.

    Args:
        folders: of the models, one or more; one that is named twice counts twice.

    Returns:
        A model of the first one's architecture; its weights are float32.

    Raises:
        ModelError: no folder is named, a model cannot be loaded, or two differ in architecture or vocabulary.
    """
    if not folders:
        raise ModelError("no model to average", mend="Name two or more.")
    mean = MED.load(folders[0])
    sums = mean.state_dict()
    for folder in folders[1:]:
        other = MED.load(folder)
        _require_alike(mean, other, folders[0], folder)
        for name, weights in other.state_dict().items():
            sums[name] += weights
    for weights in sums.values():
        weights.div_(len(folders))
    return mean


def _without_training(config: MEDConfig) -> MEDConfig:
    """The architecture without what only a finetuning differs in."""
    vision, text = replace(config.vision, drop_path=0.0), replace(config.text, dropout=0.0)
    return replace(config, vision=vision, text=text, prompt="")


def _require_alike(one: MED, other: MED, first: Path, folder: Path) -> None:
    mine, theirs = (_without_training(model.config) for model in (one, other))
    if mine != theirs:
        names = ("vision", "text", "embed_dim", "shared", "holds", "compat")
        differ = [name for name in names if getattr(mine, name) != getattr(theirs, name)]
        what = f"differs from {first} in {', '.join(differ)}"
    elif one.tokenizer.vocab != other.tokenizer.vocab:
        what = f"has another vocabulary than {first}"
    else:
        return
    raise ModelError(what, where=str(folder), mend="Average models that were finetuned from the same one.")

"""What the rounds are asked for, as data. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from capfilt.errors import RecipeError, require_within
from capfilt.recipe import Recipe
from capfilt.stages.config import CapFiltConfig
from capfilt.train.config import Task, TrainConfig

TRAININGS: tuple[Task, ...] = ("captioner", "filter", "pretrain")
"""The trainings of a round."""
ROLES: tuple[Literal["captioner", "filter"], ...] = ("captioner", "filter")
"""What is finetuned for the bootstrap, apart."""


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """What round 1 begins with: ``model``, or both of the others."""

    model: str | None = None
    """A whole pretrained MED, a name of the catalogue or a folder: captioner and filter are finetuned from it."""
    captioner: str | None = None
    """Round 1's captioner as it is: nothing is finetuned in that round."""
    filter: str | None = None
    """Round 1's filter as it is."""

    def __post_init__(self) -> None:
        mend = "Give start.model, or both start.captioner and start.filter."
        pair = [name for name in (self.captioner, self.filter) if name is not None]
        if self.model is not None and pair:
            raise RecipeError("a model is finetuned, and a captioner or filter is given", where="start", mend=mend)
        if self.model is None and len(pair) < 2:
            raise RecipeError("round 1 has nothing to begin with", where="start", mend=mend)


@dataclass(frozen=True, kw_only=True)
class HeldOutConfig:
    """Pairs that nothing is trained on, and how each round's models are measured on them."""

    data: tuple[str, ...] = ()
    """Shards, data sets or ``.json`` annotations; without any, nothing is measured."""
    pictures: int = 5000
    """At most so many, the first ones, 2 or more."""
    rerank: int = 256
    """Candidates of a query that ITM ranks again in retrieval, 0 for none."""
    batch_size: int = 64
    """Pictures at once, 1 or more."""
    device: str = "auto"
    """``auto`` takes a GPU where there is one."""

    def __post_init__(self) -> None:
        require_within("held_out.pictures", self.pictures, 2, 10**7)
        require_within("held_out.rerank", self.rerank, 0, 10**6)
        require_within("held_out.batch_size", self.batch_size, 1, 10**5)


@dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    """Everything that decides what the rounds write, but their number."""

    start: StartConfig
    """What round 1 begins with."""
    human: tuple[str, ...]
    """Clean human pairs: shards, folders of shards, data sets or globs. Finetuning takes them alone, and pretraining
    beside the bootstrapped ones."""
    captioner: TrainConfig = field(default_factory=lambda: TrainConfig(task="captioner"))
    """How the captioner is finetuned; what it starts from, its data and its folder are the round's."""
    filter: TrainConfig = field(default_factory=lambda: TrainConfig(task="filter"))
    """How the filter is finetuned, apart from the captioner: with shared weights it forgives the captioner's mistakes
    (paper, table 3)."""
    bootstrap: Recipe
    """How the web source is bootstrapped; captioner and filter are the round's."""
    pretrain: TrainConfig = field(default_factory=TrainConfig)
    """How the next model is pretrained, each round anew: to go on from the old weights does not help (paper, section
    4.5). ``init``, ``init_vision`` and ``init_text`` are the same in each round."""
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    """What each round is measured on."""

    def __post_init__(self) -> None:
        if not self.human:
            raise RecipeError("it is empty", where="human", mend="Name shards with human captions.")
        plain, default = TrainConfig(), CapFiltConfig()
        for task in TRAININGS:
            config: TrainConfig = getattr(self, task)
            if config.task != task:
                raise RecipeError(f"it is {config.task}", where=f"{task}.task", mend=f"Write {task}.task: {task}.")
            _leave(f"{task}.data.shards", config.data.shards, ())
            for name in ("out", *(("model", "init", "init_vision", "init_text") if task != "pretrain" else ())):
                _leave(f"{task}.{name}", getattr(config, name), getattr(plain, name))
        for name in ROLES:
            _leave(f"bootstrap.capfilt.{name}", getattr(self.bootstrap.capfilt, name), getattr(default, name))


def _leave(name: str, value: object, default: object) -> None:
    if value != default:
        raise RecipeError("each round sets it", where=name, mend="Leave it out.")

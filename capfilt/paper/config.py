"""What a table compares, and at which scale, as data. Loads no torch.

A table is a YAML file in ``pipelines/paper/tables``, a scale one in ``pipelines/paper/scales``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from capfilt.catalog import recipe_file
from capfilt.errors import RecipeError, require_within
from capfilt.med.config import MEDConfig, Sharing
from capfilt.recipe import load_config
from capfilt.stages.config import CapFiltConfig
from capfilt.train.config import TrainConfig

TABLES = "paper/tables"
SCALES = "paper/scales"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of a table. The defaults are no CapFilt: the raw web texts and the human ones."""

    title: str
    """What the row is called."""
    paper: dict[str, float] = field(default_factory=dict)
    """The paper's figures for it, by name (``CIDEr``, ``TR@1``, ``noise``); empty where the paper has none."""
    captioner: bool = False
    """Whether synthetic captions are trained on."""
    filter: bool = False
    """Whether texts below ``threshold`` are left out, web and synthetic alike."""
    decoding: Literal["nucleus", "beam"] = "nucleus"
    """How synthetic captions are written."""
    captions: int = 1
    """Synthetic captions a picture."""
    threshold: float | None = None
    """Least P(match) of a text, in [0, 1]; null leaves the scale's (``capfilt.threshold``)."""
    web: float = 1.0
    """How often an epoch sees each web text that is left, in [0, 100]; 0 does without web texts."""
    roles: Literal["decoupled", "decoupled_as_long", "shared"] = "decoupled"
    """``decoupled`` finetunes captioner and filter apart, ``shared`` one model for both (paper, table 4);
    ``decoupled_as_long`` gives the filter that is apart the steps and the learning rate of the shared one."""
    sharing: Sharing | None = None
    """What text encoder and decoder share (paper, table 3); null leaves the scale's."""
    steps: float = 1.0
    """Steps of the pretraining, as a multiple of the scale's."""
    start: Literal["anew", "continue"] = "anew"
    """Whether the model is pretrained from the same start as all, or goes on from the one that captioner and filter
    came from (paper, section 4.5)."""
    rounds: int = 1
    """How often captioner and filter are made and the web texts bootstrapped with them."""

    def __post_init__(self) -> None:
        require_within("captions", self.captions, 1, 64)
        if self.threshold is not None:
            require_within("threshold", self.threshold, 0.0, 1.0)
        require_within("web", self.web, 0.0, 100.0)
        require_within("steps", self.steps, 0.01, 100.0)
        require_within("rounds", self.rounds, 1, 9)
        if not self.captioner and not self.web:
            raise RecipeError("no web text and no synthetic one", where="web", mend="Set captioner: true or a web > 0.")
        if not (self.captioner or self.filter) and (self.rounds > 1 or self.start == "continue"):
            raise RecipeError(
                "nothing is bootstrapped", where="rounds", mend="Set captioner: true or filter: true, or leave it out."
            )


@dataclass(frozen=True, kw_only=True)
class Table:
    """Arms that differ in one thing."""

    title: str
    """What is compared."""
    section: str
    """Where the paper does so, or that it does not."""
    arms: dict[str, Arm]
    """By a short name; the first one is what the others are compared with."""
    show: tuple[str, ...] = ("CIDEr", "recall")
    """Figures that the printed table has, in order."""

    def __post_init__(self) -> None:
        if len(self.arms) < 2:
            raise RecipeError("fewer than two arms", where="arms", mend="Name what is compared.")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How the corpora of ``capfilt corpora build`` become a small human set and a larger noisy web set."""

    concepts_one_in: int = 3
    """One in so many trained concepts takes part, 1 takes all."""
    human_share: float = 0.3
    """Pictures of these concepts that keep their captions and are the human pairs, in (0, 1)."""
    wrong_share: float = 0.5
    """Of the other pictures, those whose alt text is the caption of another one, in [0, 1]; simulated noise."""
    clipart_one_in: int = 3
    """One in so many pictures of Open Clip Art joins the web pairs with its title, real noise; 0 for none."""

    def __post_init__(self) -> None:
        require_within("split.concepts_one_in", self.concepts_one_in, 1, 10**6)
        require_within("split.human_share", self.human_share, 0.001, 0.999)
        require_within("split.wrong_share", self.wrong_share, 0.0, 1.0)
        require_within("split.clipart_one_in", self.clipart_one_in, 0, 10**6)


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """What a pretrained model is measured on."""

    pictures: int = 300
    """Of each held-out set at most so many, the first ones."""
    rerank: int = 0
    """Candidates that ITM ranks again; 0 ranks by ITC alone."""
    beams: int = 3
    """Of the search that writes the captions."""
    batch_size: int = 64
    """Pictures at once."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large everything is."""

    model: MEDConfig
    """The architecture; its vocabulary is that of the corpora."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """Human and web pairs."""
    pretrain: TrainConfig
    """Every arm's pretraining, and that of the model that captioner and filter come from."""
    captioner: TrainConfig
    """The captioner's finetuning on human pairs."""
    filter: TrainConfig
    """The filter's finetuning on human pairs."""
    shared: TrainConfig
    """One model for both roles: finetuned by ITC, ITM and LM together."""
    next_captioner: TrainConfig
    """What an arm's model goes through before its captions are measured, as the paper's table says (Caption-FT)."""
    capfilt: CapFiltConfig = field(default_factory=CapFiltConfig)
    """How captions are written; models, decoding, number and threshold are the arm's."""
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    """What is measured."""

    def __post_init__(self) -> None:
        if self.pretrain.steps is None:
            raise RecipeError(
                "arms are compared at equal steps", where="pretrain.steps", mend="Say how many; epochs do not do here."
            )


def load_table(name: str) -> Table:
    """A table by its name (``a``) or its file.

    Raises:
        RecipeError: there is none, or it is not one; lists the names there are.
    """
    return load_config(Table, _named(TABLES, name))


def load_scale(name: str) -> Scale:
    """A scale by its name (``mini``) or its file.

    Raises:
        RecipeError: as :func:`load_table`.
    """
    return load_config(Scale, _named(SCALES, name))


def tables() -> list[str]:
    """Sorted names of the tables that there are."""
    return _names(TABLES)


def _named(folder: str, name: str) -> str:
    if Path(name).expanduser().is_file():
        return name
    names = _names(folder)
    if name not in names:
        what = "table" if folder == TABLES else "scale"
        raise RecipeError(f"no {what} of this name and no such file", where=name, mend=f"There are {', '.join(names)}.")
    return f"{folder}/{name}"


def _names(folder: str) -> list[str]:
    return sorted(file.stem for file in recipe_file("bootstrap").parent.glob(f"{folder}/*.yaml"))


def of_seed(config: TrainConfig, seed: int) -> TrainConfig:
    """The same training with another order, augmentation, dropout and choice of negatives."""
    return replace(config, seed=config.seed + 1000 * seed)

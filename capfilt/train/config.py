"""The settings of a training run. Loads no torch, so a recipe can be checked at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from capfilt.errors import RecipeError, require_within

Task = Literal["pretrain", "captioner", "filter"]
OriginName = Literal["web", "synthetic", "human"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """One of several sources that a run mixes; what it leaves null is as in the rest of ``data``."""

    shards: tuple[str, ...] = ()
    """As ``data.shards``; empty takes those, so one data set may be mixed by origin and score."""
    origins: tuple[OriginName, ...] | None = None
    """As ``data.origins``."""
    kept_only: bool | None = None
    """As ``data.kept_only``; false with a ``min_itm`` judges anew by score."""
    min_itm: float | None = None
    """As ``data.min_itm``."""
    captions_per_image: int | None = None
    """As ``data.captions_per_image``."""
    weight: float = 1.0
    """How often each of its pairs is seen an epoch, in (0, 100]: 2 is twice, 0.25 in every fourth epoch."""

    def __post_init__(self) -> None:
        if self.min_itm is not None:
            require_within("data.mix.min_itm", self.min_itm, 0.0, 1.0)
        if self.captions_per_image is not None:
            require_within("data.mix.captions_per_image", self.captions_per_image, 1, 10**6)
        require_within("data.mix.weight", self.weight, 1e-6, 100.0)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which shards, which of their captions, and how pictures are augmented."""

    shards: tuple[str, ...] = ()
    """Shards (tar or parquet), folders of shards or data sets written by ``capfilt bootstrap``, or globs."""
    mix: tuple[MixConfig, ...] = ()
    """Several sources with weights, in place of one; pairs of all are spread evenly over an epoch."""
    strict: bool = False
    """Whether a shard, a sample or a picture that cannot be read stops the run; else it is counted, written to
    ``skipped.csv`` and passed over."""
    origins: tuple[OriginName, ...] = ("web", "synthetic", "human")
    """Captions of these origins are trained on."""
    kept_only: bool = True
    """Whether captions that the filter rejected are left out."""
    min_itm: float = 0.0
    """Scored captions below this P(match) are left out, in [0, 1]; 0 leaves the verdict of the run."""
    captions_per_image: int | None = None
    """At most so many of an image's captions, the first of those that are wanted; null takes all."""
    min_scale: float = 0.2
    """Smallest share of the picture's area that a random crop takes, in (0, 1]; paper code 0.2, finetuning 0.5."""
    flip: bool = True
    """Whether pictures are mirrored half of the time."""
    rand_augment: bool = True
    """Whether two random distortions (N=2, M=5, each with p=0.5) are applied."""
    max_tokens: int = 30
    """Longest text in tokens, special ones counted; pretraining 30, filter finetuning 35. Never beyond the model's
    positions."""
    boilerplate: str | None = None
    """A file of texts, one a line, that describe no picture, such as the name of an uploader's series. Pairs with one
    of them are left out, and ITM is shown them beside pictures as unmatched."""
    boilerplate_share: float = 0.25
    """The share of a batch's pictures that ITM is shown with such a text, drawn evenly, in [0, 1]."""
    shuffle_buffer: int = 2000
    """Pairs held for shuffling, 1 or more; streams share it."""
    streams: int = 1
    """Shares that the shards are dealt out to each epoch, each of which has as many rows of every batch, so that a
    process reads the shards of its own rows only; 1: every process and every loader reads all shards. It divides
    ``batch_size / accumulate``. The batches of a run depend on it, not on the number of processes."""
    loaders: int = 0
    """Processes that decode and augment; 0 does it in the training process."""

    def __post_init__(self) -> None:
        require_within("data.min_itm", self.min_itm, 0.0, 1.0)
        if self.captions_per_image is not None:
            require_within("data.captions_per_image", self.captions_per_image, 1, 10**6)
        require_within("data.min_scale", self.min_scale, 0.01, 1.0)
        require_within("data.max_tokens", self.max_tokens, 4, 512)
        require_within("data.boilerplate_share", self.boilerplate_share, 0.0, 1.0)
        require_within("data.shuffle_buffer", self.shuffle_buffer, 1, 10**7)
        require_within("data.streams", self.streams, 1, 2**16)
        require_within("data.loaders", self.loaders, 0, 256)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its learning rate (paper, section 4.1)."""

    lr: float = 3e-4
    """Peak learning rate; the paper: 3e-4 (ViT-B), 2e-4 (ViT-L), finetuning 1e-5."""
    min_lr: float = 1e-6
    """Floor of the decay."""
    warmup_lr: float = 1e-6
    """Where the linear warm-up starts."""
    warmup_steps: int = 3000
    """Steps of warm-up; 0 starts at the peak. With ``step`` it ends with the first epoch at the latest."""
    decay: Literal["step", "cosine", "cosine_epoch"] = "step"
    """``step`` multiplies by ``decay_rate`` each epoch (pretraining); ``cosine`` falls to the floor with each step,
    ``cosine_epoch`` with each epoch (the paper's code, finetuning)."""
    decay_rate: float = 0.9
    """Factor an epoch of ``step``, in (0, 1]."""
    weight_decay: float = 0.05
    """AdamW's decoupled weight decay, 0 or more."""
    clip: float = 0.0
    """Largest gradient norm; 0 does not clip (as the paper's code)."""
    freeze: tuple[str, ...] = ()
    """Parts of the model that stay as they start, by the beginning of their parameters' names, such as ``vision.``."""

    def __post_init__(self) -> None:
        require_within("optim.lr", self.lr, 1e-9, 1.0)
        require_within("optim.min_lr", self.min_lr, 0.0, self.lr)
        require_within("optim.warmup_lr", self.warmup_lr, 0.0, self.lr)
        require_within("optim.warmup_steps", self.warmup_steps, 0, 10**9)
        require_within("optim.decay_rate", self.decay_rate, 1e-6, 1.0)
        require_within("optim.weight_decay", self.weight_decay, 0.0, 10.0)
        require_within("optim.clip", self.clip, 0.0, 1e6)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """ITC, ITM and LM (paper, section 3.2)."""

    queue_size: int = 57600
    """Momentum features kept for ITC, 0 or more; need not divide by the batch."""
    momentum: float | None = 0.995
    """Of the momentum twin, in [0, 1). null does without a twin: texts and images are compared with the batch's own
    features and gradients reach both (CLIP's ITC); only without a queue and with alpha 0."""
    alpha: float = 0.4
    """Weight of the twin's soft targets, in [0, 1]."""
    alpha_ramp_epochs: float = 2.0
    """Epochs over which alpha rises from 0."""
    label_smoothing: float = 0.1
    """Of LM, in [0, 1)."""
    exact: Literal["blip"] | None = None
    """``blip`` takes for negatives what the paper's code does: in pretraining two captions of one image, or one text of
    two images, and in finetuning a filter one text of two images; the queue starts full of random vectors. null masks
    such false negatives, and the queue starts empty. With either, negatives for ITM are drawn from the batch of all
    ranks, by similarity to the twin's features."""
    negative_floor: float = 1e-4
    """Added to each probability by which ITM's negatives are drawn, 0 or more; the paper's code 1e-4, which draws
    the most similar. Near 1 / batch_size half are drawn evenly: easier, for short runs and small models."""

    def __post_init__(self) -> None:
        require_within("objective.queue_size", self.queue_size, 0, 10**8)
        if self.momentum is not None:
            require_within("objective.momentum", self.momentum, 0.0, 0.999999)
        elif self.queue_size or self.alpha:
            raise RecipeError(
                "without a momentum twin there is no queue and there are no soft targets",
                where="objective.momentum",
                mend="Set objective.queue_size: 0 and objective.alpha: 0, or give a momentum.",
            )
        require_within("objective.alpha", self.alpha, 0.0, 1.0)
        require_within("objective.alpha_ramp_epochs", self.alpha_ramp_epochs, 0.0, 1e6)
        require_within("objective.negative_floor", self.negative_floor, 0.0, 1e6)
        require_within("objective.label_smoothing", self.label_smoothing, 0.0, 0.999)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, from scratch or from earlier weights."""

    task: Task = "pretrain"
    """``pretrain`` (ITC + ITM + LM), ``captioner`` (LM with prompt) or ``filter`` (ITC + ITM)."""
    model: str = "med-mini"
    """A name of the catalogue or a folder: its ``model.yaml`` is the architecture, its ``vocab.txt`` the words. Where
    ``init`` is given, that one's are taken."""
    init: str | None = None
    """A name or folder whose weights are the start; null starts from random weights, or from the two encoders below."""
    init_vision: str | None = None
    """A ViT of timm that the image encoder starts from: a path, a hub id or a URL (paper, section 4.1: ImageNet's)."""
    init_text: str | None = None
    """A BERT with its ``vocab.txt`` that the text stack starts from: a folder or a hub id."""
    image_size: int | None = None
    """Side of the pictures in px, if it is to be another than the model's; position embeddings are resized."""
    out: str = "runs/train"
    """Where the model, the checkpoints and the log go."""
    epochs: int = 20
    """Passes over the data, 1 or more."""
    steps: int | None = None
    """Stops after so many optimiser steps, if given; an epoch counts ``steps_per_epoch`` of them."""
    batch_size: int = 128
    """Pairs a step, those of all processes, 2 or more; the paper 2,880 (B)."""
    accumulate: int = 1
    """Equal pieces that a step's batch is computed in, one after the other, to save memory; gradients are averaged.
    ITC without a queue and ITM then see the negatives of one piece only."""
    gradient_checkpointing: bool = False
    """Whether layers are computed again in the backward pass instead of kept: about a third slower, in less memory."""
    compile: bool = False
    """Whether torch.compile fuses the layers; takes minutes at the start, and a C++ compiler on a CPU."""
    checkpoint_every: int = 500
    """Steps between checkpoints, 1 or more."""
    keep: int = 2
    """Checkpoints kept, the newest ones, 1 or more."""
    held_out: tuple[str, ...] = ()
    """Shards of other pictures, on which the losses are measured at each checkpoint; the model whose sum is lowest
    goes to ``out/best``."""
    held_out_batches: int = 16
    """Batches of them, at most."""
    track: tuple[Tracker, ...] = ("tensorboard",)
    """Where losses are told of beside ``log.csv``; wandb and mlflow must be installed."""
    log_every: int = 10
    """Steps between reports, 1 or more."""
    seed: int = 0
    """Of weights, order, augmentation and negatives."""
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    """``bfloat16`` computes under autocast; weights stay float32. ``auto`` is bfloat16 where the device multiplies in
    it (a GPU from Ampere on, a CPU with AMX or AVX-512 BF16), else float32."""
    device: str = "auto"
    """``auto`` takes a GPU where there is one, each process of torchrun its own."""
    data: DataConfig = field(default_factory=DataConfig)
    """What is trained on."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """How it is trained."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What is minimised."""

    def __post_init__(self) -> None:
        require_within("epochs", self.epochs, 1, 10**6)
        require_within("batch_size", self.batch_size, 2, 10**6)
        require_within("accumulate", self.accumulate, 1, 10**5)
        if self.batch_size % self.accumulate or self.batch_size < 2 * self.accumulate:
            raise RecipeError(
                f"a batch of {self.batch_size} is not {self.accumulate} equal pieces of 2 pairs or more",
                where="accumulate",
                mend="Take a divisor of batch_size.",
            )
        if self.batch_size // self.accumulate % self.data.streams:
            raise RecipeError(
                f"{self.batch_size // self.accumulate} rows are not as many of each of {self.data.streams} streams",
                where="data.streams",
                mend="Take a divisor of batch_size / accumulate.",
            )
        require_within("checkpoint_every", self.checkpoint_every, 1, 10**9)
        require_within("keep", self.keep, 1, 10**6)
        require_within("held_out_batches", self.held_out_batches, 1, 10**6)
        require_within("log_every", self.log_every, 1, 10**9)
        if self.image_size is not None:
            require_within("image_size", self.image_size, 16, 4096)
        if self.init is not None and (self.init_vision is not None or self.init_text is not None):
            raise RecipeError(
                "a model that starts from whole weights takes none from single encoders",
                where="init",
                mend="Leave out init, or leave out init_vision and init_text.",
            )
        if self.steps is not None:
            require_within("steps", self.steps, 1, 10**9)

"""The settings of the captioning-and-filtering stage, apart from it so that reading a recipe loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from capfilt.errors import RecipeError, require_one_of, require_within

Decoding = Literal["nucleus", "beam", "greedy"]
JudgeBy = Literal["itm", "itc"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]


@dataclass(frozen=True, kw_only=True)
class CapFiltConfig:
    """Which captioner and filter, how captions are decoded, and what is kept (paper, section 3.3)."""

    captioner: str | None = "med-mini/captioner"
    """A name of the catalogue or a model folder; null writes no synthetic captions."""
    filter: str | None = "med-mini/filter"
    """A name of the catalogue or a model folder; null scores nothing and keeps every caption."""
    prompt: str | None = None
    """Text that another captioner than a MED is given with each picture; a MED's stands in its ``model.yaml``."""
    decoding: Decoding = "nucleus"
    """How synthetic captions are written; the paper found nucleus sampling better than beam search. ``greedy`` always
    takes the likeliest token: beam search with one beam."""
    captions_per_image: int = 1
    """Synthetic captions an image, 1 or more; the paper writes 1."""
    top_p: float = 0.9
    """Nucleus: probability mass that is sampled from, in (0, 1]."""
    top_k: int = 0
    """Nucleus: at most so many tokens; 0 sets no bound. (Released BLIP code inherits 50 from its library.)"""
    num_beams: int = 3
    """Beam: hypotheses kept, 1 or more."""
    repetition_penalty: float | None = None
    """Makes tokens already written less likely; 1 is off. null is BLIP's: 1.1 in nucleus sampling, 1 elsewhere."""
    max_length: int = 20
    """Longest caption in tokens, the prompt's counted."""
    min_length: int = 5
    """Shortest caption in tokens, the prompt's counted."""
    threshold: float = 0.5
    """A text is kept when the filter's score is at least this; the paper's rule is P(match) >= 0.5."""
    judge_by: JudgeBy = "itm"
    """The score that decides: P(match) in [0, 1], or the cosine in [-1, 1], which is all that a CLIP knows."""
    skip_repeats: bool = True
    """Whether a synthetic caption that repeats another caption of its image, cleaned, is left out."""
    dtype: Dtype = "auto"
    """Precision of both models; it can change captions and scores a little. ``auto`` is bfloat16 on a GPU or a CPU
    that multiplies in it, float16 on an older GPU and float32 on another CPU; ``int8`` is for MEDs on CPUs."""
    seed: int = 0
    """Joined with each row's id to seed its sampling, so neither order nor workers change a caption."""
    batch_size: int | None = None
    """Images a batch, 1 or more; null takes as many as pay and as memory bears."""
    device: str = "auto"
    """``auto`` takes a GPU where there is one; else ``cpu``, ``cuda``, ``cuda:1``, ..."""
    cuda_graphs: bool = False
    """On a GPU: records the steps of nucleus sampling once and plays them for each batch, so that the GPU does not wait
    for their launches. Not tried on a GPU yet, so off."""
    cpus: float = 1.0
    """Logical CPUs of one worker, more than 0: the model's threads, or with a GPU those that decode pictures."""
    gpus: float = 0.0
    """GPUs of one worker; 0 runs on the CPU unless ``device`` says otherwise."""

    def __post_init__(self) -> None:
        for name, kind in (("decoding", Decoding), ("judge_by", JudgeBy), ("dtype", Dtype)):
            require_one_of(f"capfilt.{name}", getattr(self, name), kind)
        require_within("capfilt.captions_per_image", self.captions_per_image, 1, 64)
        require_within("capfilt.top_p", self.top_p, 1e-6, 1.0)
        require_within("capfilt.top_k", self.top_k, 0, 10**6)
        require_within("capfilt.num_beams", self.num_beams, 1, 64)
        if self.repetition_penalty is not None:
            require_within("capfilt.repetition_penalty", self.repetition_penalty, 1.0, 10.0)
        require_within("capfilt.max_length", self.max_length, 2, 512)
        require_within("capfilt.min_length", self.min_length, 0, self.max_length)
        require_within("capfilt.threshold", self.threshold, 0.0 if self.judge_by == "itm" else -1.0, 1.0)
        if self.batch_size is not None:
            require_within("capfilt.batch_size", self.batch_size, 1, 4096)
        require_within("capfilt.cpus", self.cpus, 0.01, 1024)
        require_within("capfilt.gpus", self.gpus, 0.0, 64)
        if self.captioner is None and self.filter is None:
            raise RecipeError(
                "captioner and filter are both null, so there is nothing to do",
                where="capfilt.captioner",
                mend="Name at least one of them.",
            )
        beams = {"nucleus": None, "beam": self.num_beams, "greedy": 1}[self.decoding]
        if beams is not None and self.captions_per_image > beams:
            name = "greedy decoding" if self.decoding == "greedy" else f"beam search with {beams} beams"
            raise RecipeError(
                f"{name} cannot give {self.captions_per_image} captions an image",
                where="capfilt.captions_per_image",
                mend="Raise num_beams, lower captions_per_image, or take decoding: nucleus.",
            )

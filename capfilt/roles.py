"""The two roles of CapFilt, whoever plays them: a captioner writes texts for pictures, a filter scores texts.

The MED plays both (``capfilt.med``); ``capfilt.peers`` lets models of Hugging Face play them. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

NUCLEUS_PENALTY = 1.1
"""Of BLIP's code, in nucleus sampling only."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How captions are written."""

    beams: int | None = None
    """Beam search with so many hypotheses, greedy with 1; None samples from the nucleus."""
    top_p: float = 0.9
    """Nucleus: probability mass, in (0, 1]."""
    top_k: int = 0
    """Nucleus: at most so many tokens; 0 sets no bound."""
    repetition_penalty: float | None = None
    """Makes tokens already there less likely, 1 or more, 1 is off; None is BLIP's: 1.1 in nucleus sampling, else 1."""
    max_length: int = 20
    """Tokens at most. The MED counts its prompt's, as BLIP does; other captioners count what they write."""
    min_length: int = 5
    """Tokens at least, counted likewise."""
    recorded: bool = False
    """Whether a MED on a GPU plays recorded steps (CUDA graphs) where it samples."""

    @property
    def penalty(self) -> float:
        """The repetition penalty that holds."""
        if self.repetition_penalty is not None:
            return self.repetition_penalty
        return NUCLEUS_PENALTY if self.beams is None else 1.0


@dataclass(frozen=True)
class Score:
    """``itm``: P(match) in [0, 1], None of a model that knows no such probability. ``itc``: cosine in [-1, 1]."""

    itm: float | None
    itc: float


class Captioner(Protocol):
    """Pictures in, synthetic captions out (paper, section 3.3)."""

    @property
    def image_size(self) -> int | None:
        """px of the square that it makes of a picture; None if it prepares pictures in a way of its own."""
        ...

    def picture_bytes(self, captions: int) -> int | None:
        """Bytes of memory that a picture of a batch takes at most, with so many captions; None where not known."""
        ...

    def write(self, pictures: Sequence[Image.Image], seeds: Sequence[Sequence[int]]) -> list[list[str]]:
        """K captions for each of B pictures.

        Args:
            pictures: RGB, any size.
            seeds: for each picture K seeds in [0, 2**128), which alone decide what is drawn; beam search takes
                only their number.

        Returns:
            B lists of K captions, without prompt; one may be empty.
        """
        ...


class Filter(Protocol):
    """How well texts match a picture (paper, section 3.3)."""

    @property
    def image_size(self) -> int | None:
        """px of the square that it makes of a picture; None if it prepares pictures in a way of its own."""
        ...

    def picture_bytes(self, texts: int) -> int | None:
        """Bytes of memory that a picture of a batch takes at most, with so many texts; None where not known."""
        ...

    def score(self, pictures: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        """Scores of every text against its picture.

        Args:
            pictures: B, RGB, any size.
            texts: for each picture any number of texts, as people wrote them.

        Returns:
            As ``texts``, a score for each.
        """
        ...

"""The stage that gives the project its name: caption each picture, score its texts, decide what is kept.

Captioner and filter are two separately finetuned models; each picture is decoded once and each model
encodes it once, however many texts there are. Captioner alone and filter alone are the same stage with
one of the two absent. Knows its settings; the models and the work are those of ``worker``.
"""

from __future__ import annotations

from dataclasses import dataclass

from capfilt.stages.base import Needs, Work
from capfilt.stages.config import CapFiltConfig


@dataclass(frozen=True, kw_only=True)
class CapFilt:
    """Captioning and filtering of one part.

    Web and synthetic texts are judged independently: a picture may keep none, one or several.
    """

    capfilt: CapFiltConfig
    name: str = "capfilt"
    reads: tuple[str, ...] = ("id", "image", "captions", "drop")
    writes: tuple[str, ...] = ("captions", "drop", "detail")

    @property
    def needs(self) -> Needs:
        """A long-lived worker that holds both models."""
        return Needs(cpus=self.capfilt.cpus, gpus=self.capfilt.gpus, stateful=True)

    def open(self) -> Work:
        """Load both models on this worker.

        Raises:
            ModelError: a model is unknown or damaged.
        """
        from capfilt.stages.worker import open_worker  # noqa: PLC0415 torch takes seconds, and a driver needs none

        return open_worker(self.capfilt)

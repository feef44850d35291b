"""Two-tower models of Hugging Face as filters: CLIP, SigLIP and their kin. Knows no records and no thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoModel

from capfilt.errors import ModelError
from capfilt.peers.loading import load
from capfilt.roles import Score

_LENGTH = 64
"""Tokens of a text where neither tokenizer nor model says how many: SigLIP's."""


class HuggingFaceFilter:
    """Scores texts by the cosine of both towers' features.

    A SigLIP knows a probability of a match, the sigmoid of its scaled and shifted cosine, which becomes ``itm``. A CLIP
    knows none: ``itm`` is None, and ``capfilt.judge_by: itc`` judges by the cosine.

    Args:
        model: in eval mode, on its device. processor: its own.

    Raises:
        ModelError: the model has not both towers.
    """

    image_size = None
    """See :class:`capfilt.roles.Filter`: the processor takes pictures of any size."""

    def __init__(self, model: Any, processor: Any) -> None:
        if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            raise ModelError(
                f"a {type(model).__name__} gives no features of pictures and texts to compare",
                where="filter",
                mend="Name a MED, a CLIP or a SigLIP.",
            )
        self.model, self.processor = model, processor

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Self:
        """A filter from a folder that transformers saved.

        Raises:
            ModelError: it holds no two-tower model.
        """
        return cls(*load(AutoModel, folder, role="filter", device=device, dtype=dtype))

    def picture_bytes(self, texts: int) -> None:
        """See :class:`capfilt.roles.Filter`: what these models hold is not known."""

    @torch.inference_mode()
    def score(self, pictures: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        """See :class:`capfilt.roles.Filter`; each picture is encoded once."""
        flat = [text for row in texts for text in row]
        if not flat:
            return [[] for _ in texts]
        pixels = self.processor(images=list(pictures), return_tensors="pt").to(self.model.device, self.model.dtype)
        # SigLIP was trained on texts padded to their full length, and reads shorter rows otherwise.
        words = self.processor(
            text=flat, padding="max_length", truncation=True, max_length=self._length(), return_tensors="pt"
        )
        image_BP = _unit(self.model.get_image_features(**pixels))
        text_TP = _unit(self.model.get_text_features(**words.to(self.model.device)))
        owner_T = torch.tensor([i for i, row in enumerate(texts) for _ in row], device=image_BP.device)
        cosine_T = (image_BP[owner_T] * text_TP).sum(-1).clamp(-1, 1)
        scores = iter(map(Score, self._matching(cosine_T), cosine_T.tolist()))
        return [[next(scores) for _ in row] for row in texts]

    def _length(self) -> int:
        """Tokens of a text: what the tokenizer says, which may be nothing, but no more than there are positions."""
        told = int(self.processor.tokenizer.model_max_length)
        config = getattr(self.model.config, "text_config", None)
        return min(told, getattr(config, "max_position_embeddings", None) or _LENGTH)

    def _matching(self, cosine_T: Tensor) -> list[float] | list[None]:
        bias = getattr(self.model, "logit_bias", None)
        if bias is None:
            return [None] * len(cosine_T)
        chances: list[float] = (cosine_T * self.model.logit_scale.float().exp() + bias.float()).sigmoid().tolist()
        return chances


def _unit(features: Any) -> Tensor:
    """Unit vectors, float32; transformers gives the features bare or as the pooled output."""
    bare = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(bare.float(), dim=-1)

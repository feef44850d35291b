"""The filter: how well texts match a picture, by ITM and by ITC (paper, section 3.3).

Knows the MED; knows no records and no thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from PIL import Image

from capfilt.captions import clean
from capfilt.errors import ModelError
from capfilt.med import memory
from capfilt.med.device import sent
from capfilt.med.model import MED
from capfilt.med.pixels import batch_of
from capfilt.med.text import ImageKeys
from capfilt.roles import Score

MAX_TOKENS = 35
"""Longest text the filter reads, special tokens counted (BLIP.md: filter finetuning)."""
_PADDED = 1.25
"""Empty texts are added so that each picture has as many, up to this many times the texts there are."""


class MEDFilter:
    """Scores texts with a MED's image-grounded encoder.

    Args:
        model: in eval mode, on its device, in its precision.

    Raises:
        ModelError: the model holds a captioner only.
    """

    def __init__(self, model: MED) -> None:
        if model.config.holds == "captioner":
            raise ModelError("this model is a captioner, it has no ITM head", where="filter", mend="Name a filter.")
        self.model = model

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Self:
        """A filter from a model folder."""
        return cls(MED.load(folder, device=device, dtype=dtype))

    @property
    def image_size(self) -> int:
        """See :class:`capfilt.roles.Filter`."""
        return self.model.config.vision.image_size

    def picture_bytes(self, texts: int) -> int:
        """See :class:`capfilt.roles.Filter`."""
        width = self.model.itm_head.weight.dtype.itemsize
        return memory.scored(self.model.config, width, texts=texts, max_length=MAX_TOKENS)

    @torch.inference_mode()
    def score(self, pictures: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        """See :class:`capfilt.roles.Filter`; each picture is encoded once."""
        model = self.model
        count, widest = sum(map(len, texts)), max(map(len, texts), default=0)
        if not count:
            return [[] for _ in texts]
        # With as many texts for each picture, its keys and values are read where they are, else copied for each text.
        even = widest * len(texts) <= _PADDED * count
        rows = [[*map(clean, row), *[""] * (widest - len(row) if even else 0)] for row in texts]
        owner = sent(torch.tensor([i for i, row in enumerate(rows) for _ in row]), model.device)
        tokens = model.tokenizer([text for row in rows for text in row], max_tokens=MAX_TOKENS).to(model.device)
        image_BNV = model.encode_image(batch_of(pictures, self.image_size, model.device, model.itm_head.weight.dtype))
        keys = ImageKeys.from_tokens(image_BNV)
        itm = model.match(keys if even else keys.rows(owner), tokens).float().softmax(-1)[:, 1]
        itc = (model.embed_image(image_BNV)[owner].float() * model.embed_text(tokens).float()).sum(-1)
        scores = iter(zip(itm.tolist(), itc.clamp(-1, 1).tolist(), strict=True))
        scored = [[Score(*next(scores)) for _ in row] for row in rows]
        return [row[: len(said)] for row, said in zip(scored, texts, strict=True)]

"""The filter: how well texts match a picture, by ITM and by ITC (paper, section 3.3).

Knows the MED; knows no records and no thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, starmap
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from capfilt.captions import clean
from capfilt.errors import ModelError
from capfilt.med import memory
from capfilt.med.device import sent
from capfilt.med.model import MED
from capfilt.med.pixels import batch_of
from capfilt.med.text import ImageKeys
from capfilt.med.tokenizer import Tokens
from capfilt.roles import Score

MAX_TOKENS = 35
"""Longest text the filter reads, special tokens counted (BLIP.md: filter finetuning)."""
GROUP = {"cpu": 8, "cuda": 64}
"""Fewest pictures that are scored together: fewer use a device badly."""
_PADDED = 1.25
"""Empty texts are added so that each picture has as many, up to this many times the texts there are."""
_SHORTER = 0.75
"""Texts of a group are longer than this share of its longest, where there are enough of them."""


def longest(model: MED) -> int:
    """Tokens of a text that are judged: as many as in the paper's code, where the model has positions for them."""
    return min(MAX_TOKENS, model.config.text.max_positions)


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
        return memory.scored(self.model.config, width, texts=texts, max_length=longest(self.model))

    @torch.inference_mode()
    def score(self, pictures: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[Score]]:
        """See :class:`capfilt.roles.Filter`; each picture is encoded once."""
        model, device = self.model, self.model.device
        said = [[clean(text) for text in row] for row in texts]
        if not any(said):
            return [[] for _ in texts]
        # Row 0 of the tokens is the empty text, then come each picture's own.
        tokens = model.tokenizer(["", *chain.from_iterable(said)], max_tokens=longest(model))
        firsts = accumulate(map(len, said), initial=1)
        owned = [[*range(first, first + len(row))] for first, row in zip(firsts, said, strict=False)]
        lengths = tokens.mask.sum(1).tolist()
        groups = by_length([max((lengths[at] for at in own), default=0) for own in owned], GROUP[device.type])
        image_BNV = model.encode_image(batch_of(pictures, self.image_size, device, model.itm_head.weight.dtype))
        asked = []
        for group in groups:
            rows = _evened([owned[i] for i in group])
            all_of_them = len(group) == len(pictures)
            some = image_BNV if all_of_them else image_BNV.index_select(0, sent(torch.tensor(group), device))
            asked.append((group, rows, self._pairs(some, rows, tokens)))
        scores: list[list[Score]] = [[] for _ in texts]
        for group, rows, (itm_P, itc_P) in asked:  # read back when the device has been given all
            found = starmap(Score, zip(itm_P.tolist(), itc_P.tolist(), strict=True))
            for i, row in zip(group, rows, strict=True):
                scores[i] = [next(found) for _ in row][: len(owned[i])]
        return scores

    def _pairs(self, image_BNV: Tensor, rows: Sequence[Sequence[int]], tokens: Tokens) -> tuple[Tensor, Tensor]:
        """P(match) and the cosine of each image with its rows of the tokens, float32 (P,) both, on the device."""
        model = self.model
        owner = sent(torch.tensor([i for i, row in enumerate(rows) for _ in row]), model.device)
        chosen = tokens.chosen([*chain.from_iterable(rows)]).to(model.device)
        keys = ImageKeys.from_tokens(image_BNV)
        even = len(set(map(len, rows))) == 1
        itm_P = model.match(keys if even else keys.rows(owner), chosen).float().softmax(-1)[:, 1]
        itc_P = (model.embed_image(image_BNV)[owner].float() * model.embed_text(chosen).float()).sum(-1)
        return itm_P, itc_P.clamp(-1, 1)


def by_length(longest: Sequence[int], fewest: int) -> list[list[int]]:
    """Pictures in groups whose texts are of about one length, since all texts of a group cost as much as its longest.

    Args:
        longest: of each picture the tokens of its longest text, 0 for a picture without texts, which is left out.
        fewest: pictures of a group, unless there are fewer in all.

    Returns:
        Places in ``longest``; in one group as they are, else the longest first.
    """
    there = [i for i, length in enumerate(longest) if length]
    groups: list[list[int]] = []
    for i in sorted(there, key=lambda i: -longest[i]):
        if not groups or (len(groups[-1]) >= fewest and longest[i] <= _SHORTER * longest[groups[-1][0]]):
            groups.append([])
        groups[-1].append(i)
    if len(groups) > 1 and len(groups[-1]) < fewest:
        rest = groups.pop()
        groups[-1] += rest
    return groups if len(groups) != 1 else [there]


def _evened(rows: list[list[int]]) -> list[list[int]]:
    """The rows with row 0 added to the shorter ones, where that adds few.

    With as many texts for each picture, its keys and values are read where they are, else copied for each text.
    """
    widest = max(map(len, rows))
    if widest * len(rows) > _PADDED * sum(map(len, rows)):
        return rows
    return [row + [0] * (widest - len(row)) for row in rows]

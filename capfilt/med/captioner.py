"""The captioner: pictures in, synthetic captions out (paper, section 3.3).

Knows the MED and decoding; knows no records, files or thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from capfilt.captions import clean
from capfilt.errors import ModelError
from capfilt.med import memory
from capfilt.med.decoding import Limits, Nucleus, beam, nucleus
from capfilt.med.graphs import Recordings
from capfilt.med.model import MED
from capfilt.med.pixels import batch_of
from capfilt.roles import Writing


class MEDCaptioner:
    """Writes captions with a MED's image-grounded decoder.

    Args:
        model: in eval mode, on its device, in its precision.
        writing: how.

    Raises:
        ModelError: the prompt leaves no room for a caption, or the model holds a filter only.
    """

    def __init__(self, model: MED, writing: Writing) -> None:
        if model.config.holds == "filter":
            raise ModelError("this model is a filter, it has no decoder", where="captioner", mend="Name a captioner.")
        self.model, self.writing = model, writing
        tokenizer = model.tokenizer
        self._prompt = [tokenizer.dec, *tokenizer.pieces(clean(model.config.prompt))]
        if len(self._prompt) >= writing.max_length or writing.max_length > model.config.text.max_positions:
            raise ModelError(
                f"captions of {writing.max_length} tokens do not fit: the prompt takes {len(self._prompt)}, "
                f"the model has {model.config.text.max_positions} positions",
                where="max_length",
                mend="Change max_length.",
            )
        self._limits = Limits(
            max_length=writing.max_length,
            min_length=writing.min_length,
            end=tokenizer.sep,
            forbidden=tuple(sorted(tokenizer.special - {tokenizer.sep})),
        )
        self._sampling = Nucleus(top_p=writing.top_p, top_k=writing.top_k, repetition_penalty=writing.penalty)
        self._probed = False
        self._recordings: Recordings | None = None
        if writing.recorded and model.device.type == "cuda":
            self._recordings = Recordings(model.text, self._prompt, self._sampling, self._limits)

    @classmethod
    def load(cls, folder: Path, writing: Writing, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Self:
        """A captioner from a model folder."""
        return cls(MED.load(folder, device=device, dtype=dtype), writing)

    @property
    def image_size(self) -> int:
        """See :class:`capfilt.roles.Captioner`."""
        return self.model.config.vision.image_size

    def picture_bytes(self, captions: int) -> int:
        """See :class:`capfilt.roles.Captioner`."""
        width = next(self.model.text.parameters()).dtype.itemsize
        rows = self.writing.beams or captions
        return memory.captioned(self.model.config, width, captions=rows, max_length=self.writing.max_length)

    @torch.inference_mode()
    def write(self, pictures: Sequence[Image.Image], seeds: Sequence[Sequence[int]]) -> list[list[str]]:
        """See :class:`capfilt.roles.Captioner`; the captions are cleaned."""
        model, how = self.model, self.writing
        dtype = next(model.vision.parameters()).dtype
        image_BNV = model.encode_image(batch_of(pictures, self.image_size, model.device, dtype))
        finite = torch.isfinite(image_BNV).all()
        if not self._probed and bool(finite):
            self._probe(image_BNV, dtype)
        if how.beams is None and self._recordings is not None:
            ids = self._recordings.write(image_BNV, seeds)
        elif how.beams is None:
            ids = nucleus(model.text, image_BNV, self._prompt, seeds, self._sampling, self._limits)
        else:
            ids = beam(
                model.text,
                image_BNV,
                self._prompt,
                how.beams,
                len(seeds[0]),
                self._limits,
                repetition_penalty=how.penalty,
            )
        if not bool(finite):  # asked at the end: on a GPU asking waits for all that came before
            raise ValueError(f"The captioner's image encoder gave numbers that are none in {str(dtype)[6:]}")
        return [[model.tokenizer.text(row).strip() for row in rows] for rows in ids]

    def _probe(self, image_BNV: Tensor, dtype: torch.dtype) -> None:
        """A decoder that overflows in this precision does so at its first word; its captions would be nonsense."""
        text, length = self.model.text, len(self._prompt)
        prompt_BL = torch.tensor([self._prompt], device=image_BNV.device).expand(len(image_BNV), -1)
        logits_BW = text.write_step(prompt_BL, text.start_cache(image_BNV, repeat=1, max_length=length), 0)
        if not bool(torch.isfinite(logits_BW).all()):
            raise ValueError(f"The captioner's decoder gave numbers that are none in {str(dtype)[6:]}")
        self._probed = True

"""Image-to-text models of Hugging Face as captioners: BLIP, BLIP-2, GIT, Florence-2, LLaVA and others.

The model, its cache and its beam search are transformers'; the nucleus is ours, so that here too a row's own seed
decides what is drawn, whatever the batch. Knows no records and no thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, LogitsProcessor, LogitsProcessorList

from capfilt.captions import clean
from capfilt.med.decoding import draw, uniforms
from capfilt.peers.loading import load
from capfilt.roles import Writing

ASKED = "Describe the image in one short sentence."
"""What a model that chats is asked if no prompt is given."""


class SeededNucleus(LogitsProcessor):
    """Leaves to each row the one token that its own seed draws from the nucleus.

    Args:
        seeds: one for each row, in [0, 2**128).
        writing: ``top_p`` and ``top_k``.
    """

    def __init__(self, seeds: Sequence[int], writing: Writing, *, device: torch.device) -> None:
        self._uniform_RS = torch.from_numpy(np.stack([uniforms(seed, writing.max_length) for seed in seeds])).to(device)
        self._writing, self._step = writing, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (R, W) with all but the drawn token at minus infinity."""
        del input_ids
        uniform_R = self._uniform_RS[:, self._step]
        self._step += 1
        drawn_R = draw(scores.float(), uniform_R, top_p=self._writing.top_p, top_k=self._writing.top_k)
        return torch.full_like(scores, float("-inf")).scatter(1, drawn_R[:, None], 0.0)


class HuggingFaceCaptioner:
    """Writes captions with a model of transformers' image-to-text classes.

    Args:
        model: in eval mode, on its device. processor: its own.
        writing: how; lengths count the tokens that are written, without the prompt.
        prompt: text given with each picture; a model with a chat template is asked :data:`ASKED` without one.
    """

    image_size = None
    """See :class:`capfilt.roles.Captioner`: the processor takes pictures of any size."""

    def __init__(self, model: Any, processor: Any, writing: Writing, *, prompt: str | None) -> None:
        self.model, self.processor, self.writing = model, processor, writing
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is not None:
            tokenizer.padding_side = "left"  # what is written follows the prompt
        self._prompt = self._templated(prompt) if getattr(processor, "chat_template", None) else prompt

    @classmethod
    def load(
        cls, folder: Path, writing: Writing, *, prompt: str | None, device: str = "cpu", dtype: torch.dtype
    ) -> Self:
        """A captioner from a folder that transformers saved.

        Raises:
            ModelError: it holds no image-to-text model.
        """
        model, processor = load(AutoModelForImageTextToText, folder, role="captioner", device=device, dtype=dtype)
        return cls(model, processor, writing, prompt=prompt)

    def picture_bytes(self, captions: int) -> None:
        """See :class:`capfilt.roles.Captioner`: what these models hold is not known."""

    @torch.inference_mode()
    def write(self, pictures: Sequence[Image.Image], seeds: Sequence[Sequence[int]]) -> list[list[str]]:
        """See :class:`capfilt.roles.Captioner`."""
        how, count = self.writing, len(seeds[0])
        asked = {"text": [self._prompt] * len(pictures), "padding": True} if self._prompt else {}
        inputs = self.processor(images=list(pictures), return_tensors="pt", **asked)
        inputs = self._open_ended(inputs).to(self.model.device, self.model.dtype)
        settings: dict[str, Any] = {
            "max_new_tokens": how.max_length,
            "min_new_tokens": how.min_length,
            "num_return_sequences": count,
            "use_cache": True,
        }
        if how.beams is None:
            flat = [seed for row in seeds for seed in row]
            drawn = SeededNucleus(flat, how, device=self.model.device)
            settings |= {
                "do_sample": True,  # so that a picture may have several; nothing is left to draw
                "num_beams": 1,
                "temperature": 1.0,
                "top_k": 0,
                "top_p": 1.0,
                "repetition_penalty": how.penalty,
                "logits_processor": LogitsProcessorList([drawn]),
            }
        else:
            settings |= {"do_sample": False, "num_beams": how.beams, "repetition_penalty": how.penalty}
        ids = self.model.generate(**inputs, **settings)
        texts = self._texts(ids, inputs.get("input_ids"), count)
        return [texts[i : i + count] for i in range(0, len(texts), count)]

    def _open_ended(self, inputs: Any) -> Any:
        inputs.pop("token_type_ids", None)  # tokenizers of BERT's kind give them, and no decoder takes them
        if self.model.config.model_type == "git" and "input_ids" in inputs:
            # Its tokenizer ends each text, and it would go on after the end; BLIP cuts the end off by itself.
            for name in ("input_ids", "attention_mask"):
                inputs[name] = inputs[name][:, :-1]
        return inputs

    def _texts(self, ids_RL: Tensor, prompt_BL: Tensor | None, count: int) -> list[str]:
        """What was written, cleaned: some models repeat the prompt before it, others do not."""
        start = 0
        if prompt_BL is not None:
            asked_RL = prompt_BL.repeat_interleave(count, 0)
            length = asked_RL.shape[1]
            start = length if torch.equal(ids_RL[:, :length], asked_RL) else 0
        texts = self.processor.batch_decode(ids_RL[:, start:], skip_special_tokens=True)
        prompt = clean(self._prompt or "")
        return [clean(text).removeprefix(prompt).strip() for text in texts]

    def _templated(self, prompt: str | None) -> str:
        content = [{"type": "image"}, {"type": "text", "text": prompt or ASKED}]
        text: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return text

"""A task joins the model and its losses: pretraining, and the finetuning of captioner and filter.

Shapes: B pairs, N image tokens, V vision width, L tokens. A task takes a batch and gives named losses
whose plain sum is minimised. Knows no optimiser, schedule or data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from capfilt.captions import clean
from capfilt.med import objectives
from capfilt.med.model import MED, TEMPERATURE
from capfilt.med.momentum import FeatureQueue, MomentumTwin
from capfilt.med.tokenizer import Tokens


@dataclass(frozen=True)
class Batch:
    """B pairs: normalised pixels (B, 3, S, S), texts' tokens, and int64 ids (B,) of each pair's image and text."""

    pixels: Tensor
    tokens: Tokens
    images: Tensor
    texts: Tensor


class Task(Protocol):
    """What the training loop drives."""

    model: MED

    def __call__(self, batch: Batch, *, alpha: float) -> dict[str, Tensor]:
        """Named scalar losses."""
        ...


class FilterFinetune(nn.Module):
    """ITC + ITM, with the momentum twin and its queue (paper, section 3.3: the filter).

    Args:
        model: the MED.
        queue_size: momentum features kept, 0 without a twin. momentum: of the twin; None does without one.
        mask_same_image: whether two captions of one image match each other; in the paper's pretraining code they are
            false negatives.
        mask_same_text: the same for two images with one and the same text.
        random_queue: the queue starts full of random vectors, as in the paper's code, not empty.
        negative_floor: how evenly ITM's negatives are drawn, see :func:`objectives.hard_negatives`.
    """

    def __init__(
        self,
        model: MED,
        *,
        queue_size: int,
        momentum: float | None,
        mask_same_image: bool = True,
        mask_same_text: bool = True,
        random_queue: bool = False,
        negative_floor: float = objectives.NEGATIVE_FLOOR,
    ) -> None:
        super().__init__()
        self.model = model
        self.twin = MomentumTwin(model) if momentum is not None else None
        self.queue = FeatureQueue(queue_size, model.config.embed_dim)
        if random_queue:
            self.queue.fill_randomly()
        self.momentum = momentum
        self.mask_same_image = mask_same_image
        self.mask_same_text = mask_same_text
        self.negative_floor = negative_floor

    def forward(self, batch: Batch, *, alpha: float) -> dict[str, Tensor]:
        """Losses ``itc`` and ``itm``."""
        losses, _ = self.contrast_and_match(batch, alpha)
        return losses

    def contrast_and_match(self, batch: Batch, alpha: float) -> tuple[dict[str, Tensor], Tensor]:
        """Losses ``itc`` and ``itm``, and the image tokens, which LM uses again."""
        with torch.no_grad():
            self.model.temperature.clamp_(*TEMPERATURE)
        image_BNV = self.model.encode_image(batch.pixels)
        itc, image_BB, text_BB = self.contrast(batch, image_BNV, alpha)
        images, texts = self.draw_negatives(batch, image_BB, text_BB)
        return {"itc": itc, "itm": self.match(batch, image_BNV, images, texts)}, image_BNV

    def contrast(self, batch: Batch, image_BNV: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
        """ITC, and the similarities within the batch from which hard negatives are drawn."""
        model, size = self.model, batch.images.shape[0]
        image_BP, text_BP = model.embed_image(image_BNV), model.embed_text(batch.tokens)
        if self.twin is None or self.momentum is None:
            return self._contrast_within(batch, image_BP, text_BP)
        with torch.no_grad():
            # A twin's dropout would blur its targets the same way as the original's: it stays in the mode of the task.
            self.twin.follow(model, self.momentum)
            slow_image_BP, slow_text_BP = self.twin.embed(batch.pixels, batch.tokens)
            queued_image, queued_text, queued_images, queued_texts = self.queue.features()
            image_keys_MP = torch.cat([slow_image_BP, queued_image.to(slow_image_BP.dtype)])
            text_keys_MP = torch.cat([slow_text_BP, queued_text.to(slow_text_BP.dtype)])
            positive_BM = self._positive(
                batch, torch.cat([batch.images, queued_images]), torch.cat([batch.texts, queued_texts])
            )
            scale = 1 / model.temperature
            image_targets = objectives.itc_targets(slow_image_BP @ text_keys_MP.T * scale, positive_BM, alpha)
            text_targets = objectives.itc_targets(slow_text_BP @ image_keys_MP.T * scale, positive_BM, alpha)
        image_BM = image_BP @ text_keys_MP.T / model.temperature
        text_BM = text_BP @ image_keys_MP.T / model.temperature
        loss = objectives.itc(image_BM, text_BM, image_targets, text_targets)
        self.queue.push(slow_image_BP, slow_text_BP, batch.images, batch.texts)
        return loss, image_BM[:, :size], text_BM[:, :size]

    def _contrast_within(self, batch: Batch, image_BP: Tensor, text_BP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ITC against the batch's own features, through both of which gradients flow (CLIP's)."""
        positive_BB = self._positive(batch, batch.images, batch.texts)
        image_BB = image_BP @ text_BP.T / self.model.temperature
        targets_BB = objectives.itc_targets(image_BB.detach(), positive_BB, 0.0)
        return objectives.itc(image_BB, image_BB.T, targets_BB, targets_BB), image_BB, image_BB.T

    def _positive(self, batch: Batch, images_M: Tensor, texts_M: Tensor) -> Tensor:
        """bool (B, M): which keys belong to which query; always its own."""
        positive = torch.eye(batch.images.shape[0], images_M.shape[0], dtype=torch.bool, device=images_M.device)
        if self.mask_same_image:
            positive |= objectives.same(batch.images, images_M)
        if self.mask_same_text:
            positive |= objectives.same(batch.texts, texts_M)
        return positive

    def draw_negatives(self, batch: Batch, image_BB: Tensor, text_BB: Tensor) -> tuple[Tensor, Tensor]:
        """A hard negative image for each text and a hard negative text for each image: int64 (B,), -1 where there is
        none."""
        positive_BB = self._positive(batch, batch.images, batch.texts)
        images = objectives.hard_negatives(text_BB, positive_BB, floor=self.negative_floor)
        texts = objectives.hard_negatives(image_BB, positive_BB, floor=self.negative_floor)
        return images, texts

    def match(self, batch: Batch, image_BNV: Tensor, images: Tensor, texts: Tensor) -> Tensor:
        """ITM over B true pairs, the texts with their negative images, and the images with their negative texts."""
        rows = torch.arange(batch.images.shape[0], device=images.device)
        image_rows = torch.cat([rows, images[images >= 0], rows[texts >= 0]])
        text_rows = torch.cat([rows, rows[images >= 0], texts[texts >= 0]])
        tokens = Tokens(batch.tokens.ids[text_rows], batch.tokens.mask[text_rows])
        matched = (torch.arange(image_rows.shape[0], device=rows.device) < rows.shape[0]).long()
        # Plain indexing adds gradients up in the order in which threads come: two runs would differ by rounding.
        return objectives.itm(self.model.match(image_BNV.index_select(0, image_rows), tokens), matched)


class Pretrain(FilterFinetune):
    """ITC + ITM + LM, plain sum (paper, section 3.2)."""

    def __init__(self, model: MED, *, label_smoothing: float, **contrast: Any) -> None:
        super().__init__(model, **contrast)
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch, *, alpha: float) -> dict[str, Tensor]:
        """Losses ``itc``, ``itm`` and ``lm``."""
        losses, image_BNV = self.contrast_and_match(batch, alpha)
        return {**losses, "lm": self.language(batch, image_BNV)}

    def language(self, batch: Batch, image_BNV: Tensor) -> Tensor:
        """LM of each text given its image."""
        labels = objectives.lm_labels(batch.tokens.begin_with(self.model.tokenizer.dec).ids, batch.tokens.mask)
        logits = self.model.decode(image_BNV, batch.tokens)
        return objectives.lm(logits, labels, label_smoothing=self.label_smoothing)


class CaptionerFinetune(nn.Module):
    """LM with the prompt masked in the loss (paper, section 3.3: the captioner).

    The texts of its batches begin with the model's prompt.
    """

    def __init__(self, model: MED, *, label_smoothing: float) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.prompt_tokens = 1 + len(model.tokenizer.pieces(clean(model.config.prompt)))

    def forward(self, batch: Batch, *, alpha: float) -> dict[str, Tensor]:
        """Loss ``lm``; ``alpha`` plays no part."""
        del alpha
        image_BNV = self.model.encode_image(batch.pixels)
        labels = objectives.lm_labels(batch.tokens.ids, batch.tokens.mask, prompt_tokens=self.prompt_tokens)
        logits = self.model.decode(image_BNV, batch.tokens)
        return {"lm": objectives.lm(logits, labels, label_smoothing=self.label_smoothing)}

"""A task joins the model and its losses: pretraining, and the finetuning of captioner and filter.

Shapes: B pairs, N image tokens, V vision width, L tokens. A task takes a batch and gives named losses
whose plain sum is minimised. Where a process group is initialised, B pairs are one rank's of M = W * B, keys and
negatives come from all ranks, and the mean over ranks of a loss is that of one process with all M pairs, if gradients
are averaged as DistributedDataParallel does. Knows no optimiser, schedule or data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from capfilt.captions import clean
from capfilt.med import objectives, ranks
from capfilt.med.model import MED, TEMPERATURE
from capfilt.med.momentum import FeatureQueue, MomentumTwin
from capfilt.med.text import ImageKeys
from capfilt.med.tokenizer import Tokens


@dataclass(frozen=True)
class Unmatched:
    """U texts that describe no picture, and the rows int64 (U,) of this rank's pictures that they are shown beside."""

    tokens: Tokens
    rows: Tensor


@dataclass(frozen=True)
class Batch:
    """B pairs: normalised pixels (B, 3, S, S), texts' tokens, and int64 ids (B,) of each pair's image and text;
    and what ITM is shown as unmatched beside the batch's own negatives."""

    pixels: Tensor
    tokens: Tokens
    images: Tensor
    texts: Tensor
    unmatched: Unmatched | None = None


class Task(Protocol):
    """What the training loop drives."""

    model: MED

    def __call__(self, batch: Batch, *, alpha: float, follow: bool = True, push: bool = True) -> dict[str, Tensor]:
        """Named scalar losses.

        ``follow`` is false where the weights have not moved since the twin last followed them, ``push`` where the batch
        is only measured and must not come into the queue.
        """
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

    def forward(self, batch: Batch, *, alpha: float, follow: bool = True, push: bool = True) -> dict[str, Tensor]:
        """Losses ``itc`` and ``itm``."""
        losses, _ = self.contrast_and_match(batch, alpha, follow=follow, push=push)
        return losses

    @torch.no_grad()
    def _follow(self) -> None:
        """Once a step, before the losses: the twin follows the model, and the temperature stays in its range."""
        self.model.temperature.clamp_(*TEMPERATURE)
        if self.twin is not None and self.momentum is not None:
            self.twin.follow(self.model, self.momentum)

    def contrast_and_match(
        self, batch: Batch, alpha: float, *, follow: bool = True, push: bool = True
    ) -> tuple[dict[str, Tensor], ImageKeys]:
        """Losses ``itc`` and ``itm``, and the images' keys, which LM uses again."""
        image_BNV = self.model.encode_image(batch.pixels)
        itc, image_BM, text_BM = self.contrast(batch, image_BNV, alpha, follow=follow, push=push)
        images, texts = self.draw_negatives(batch, image_BM, text_BM)
        keys = ImageKeys.from_tokens(image_BNV)
        if not self.model.text.recompute:  # what is computed again must not be held on to
            keys = keys.kept()
        return {"itc": itc, "itm": self.match(batch, image_BNV, images, texts, keys)}, keys

    def contrast(
        self, batch: Batch, image_BNV: Tensor, alpha: float, *, follow: bool = True, push: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """ITC, and the similarities to the batch of all ranks (B, M) from which hard negatives are drawn."""
        model = self.model
        if follow:
            self._follow()
        image_BP, text_BP = model.embed_image(image_BNV), model.embed_text(batch.tokens)
        # Over a temperature of 0.07 the rounding of bfloat16 would move similarities by as much as they differ.
        with torch.autocast(image_BP.device.type, enabled=False):
            return self._contrast(batch, image_BP.float(), text_BP.float(), alpha, push=push)

    def _contrast(
        self, batch: Batch, image_BP: Tensor, text_BP: Tensor, alpha: float, *, push: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        images_M, texts_M = ranks.gathered(batch.images), ranks.gathered(batch.texts)
        if self.twin is None or self.momentum is None:
            return self._contrast_within(batch, image_BP, text_BP, images_M, texts_M)
        with torch.no_grad():
            # A twin's dropout would blur its targets the same way as the original's: it stays in the mode of the task.
            slow_image_BP, slow_text_BP = self.twin.embed(batch.pixels, batch.tokens)
            new_image_MP, new_text_MP = ranks.gathered(slow_image_BP), ranks.gathered(slow_text_BP)
            # Held-out pairs meet their batch alone: a queue still filling makes each measure harder than the last.
            queued = self.queue.features() if push else tuple(room[:0] for room in self.queue.features())
            queued_image, queued_text, queued_images, queued_texts = queued
            image_keys_KP = torch.cat([new_image_MP, queued_image.to(new_image_MP.dtype)])
            text_keys_KP = torch.cat([new_text_MP, queued_text.to(new_text_MP.dtype)])
            positive_BK = self._positive(
                batch, torch.cat([images_M, queued_images]), torch.cat([texts_M, queued_texts])
            )
            scale = 1 / model.temperature
            image_targets = objectives.itc_targets(slow_image_BP @ text_keys_KP.T * scale, positive_BK, alpha)
            text_targets = objectives.itc_targets(slow_text_BP @ image_keys_KP.T * scale, positive_BK, alpha)
        image_BK = image_BP @ text_keys_KP.T / model.temperature
        text_BK = text_BP @ image_keys_KP.T / model.temperature
        loss = objectives.itc(image_BK, text_BK, image_targets, text_targets)
        if push:
            self.queue.push(new_image_MP, new_text_MP, images_M, texts_M)
        size = images_M.shape[0]
        return loss, image_BK[:, :size], text_BK[:, :size]

    def _contrast_within(
        self, batch: Batch, image_BP: Tensor, text_BP: Tensor, images_M: Tensor, texts_M: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """ITC against the batch's own features, through both of which gradients flow (CLIP's)."""
        positive_BM = self._positive(batch, images_M, texts_M)
        image_BM = image_BP @ ranks.gathered_with_gradient(text_BP).T / self.model.temperature
        text_BM = text_BP @ ranks.gathered_with_gradient(image_BP).T / self.model.temperature
        targets_BM = objectives.itc_targets(image_BM.detach(), positive_BM, 0.0)
        return objectives.itc(image_BM, text_BM, targets_BM, targets_BM), image_BM, text_BM

    def _positive(self, batch: Batch, images_K: Tensor, texts_K: Tensor) -> Tensor:
        """bool (B, K): which keys belong to which query; always its own."""
        size = batch.images.shape[0]
        own = torch.arange(size, device=images_K.device) + ranks.first_row(size)
        positive = own[:, None] == torch.arange(images_K.shape[0], device=images_K.device)
        if self.mask_same_image:
            positive |= objectives.same(batch.images, images_K)
        if self.mask_same_text:
            positive |= objectives.same(batch.texts, texts_K)
        return positive

    def draw_negatives(self, batch: Batch, image_BM: Tensor, text_BM: Tensor) -> tuple[Tensor, Tensor]:
        """A hard negative image for each text and a hard negative text for each image, of all ranks: int64 (B,) in
        [0, M), -1 where there is none."""
        size, device = batch.images.shape[0], image_BM.device
        positive_BM = self._positive(batch, ranks.gathered(batch.images), ranks.gathered(batch.texts))
        # Every rank draws for all, with the same seed, and takes its own: so does one process with the whole batch.
        positive_MM = ranks.gathered(positive_BM.to(torch.uint8)).bool()
        generator = torch.Generator(device).manual_seed(ranks.same_seed(device))
        mine = slice(ranks.first_row(size), ranks.first_row(size) + size)
        images, texts = (
            objectives.hard_negatives(
                ranks.gathered(similarity), positive_MM, floor=self.negative_floor, generator=generator
            )[mine]
            for similarity in (text_BM, image_BM)
        )
        return images, texts

    def match(
        self, batch: Batch, image_BNV: Tensor, images: Tensor, texts: Tensor, keys: ImageKeys | None = None
    ) -> Tensor:
        """ITM over B true pairs, the texts with their negative images, the images with their negative texts, and what
        the batch names as unmatched.

        Args:
            image_BNV: image tokens. keys: what was made of them, where another objective uses it too.
            images, texts: the negatives, as drawn.
        """
        size = batch.images.shape[0]
        own = torch.arange(size, device=images.device) + ranks.first_row(size)
        image_rows = torch.cat([own, images[images >= 0], own[texts >= 0]])
        text_rows = torch.cat([own, own[images >= 0], texts[texts >= 0]])
        tokens = Tokens(*ranks.gathered_texts(batch.tokens.ids, batch.tokens.mask))
        if batch.unmatched is not None:
            image_rows = torch.cat([image_rows, own[batch.unmatched.rows]])
            text_rows = torch.cat(
                [text_rows, len(tokens.ids) + torch.arange(len(batch.unmatched.rows), device=own.device)]
            )
            tokens = tokens.beside(batch.unmatched.tokens)
        matched = (torch.arange(image_rows.shape[0], device=own.device) < size).long()
        others_BNV, places = ranks.from_others(image_BNV, image_rows)
        keys = keys or ImageKeys.from_tokens(image_BNV)
        if others_BNV is not None:
            keys = keys.beside(ImageKeys.from_tokens(others_BNV))
        loss = objectives.itm(
            self.model.match(keys.rows(places), Tokens(tokens.ids[text_rows], tokens.mask[text_rows])), matched
        )
        return loss * ranks.share(matched.shape[0], loss.device)


class Pretrain(FilterFinetune):
    """ITC + ITM + LM, plain sum (paper, section 3.2)."""

    def __init__(self, model: MED, *, label_smoothing: float, **contrast: Any) -> None:
        super().__init__(model, **contrast)
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch, *, alpha: float, follow: bool = True, push: bool = True) -> dict[str, Tensor]:
        """Losses ``itc``, ``itm`` and ``lm``."""
        losses, keys = self.contrast_and_match(batch, alpha, follow=follow, push=push)
        return {**losses, "lm": self.language(batch, keys)}

    def language(self, batch: Batch, image: Tensor | ImageKeys) -> Tensor:
        """LM of each text given its image, by tokens or keys."""
        labels = objectives.lm_labels(batch.tokens.begin_with(self.model.tokenizer.dec).ids, batch.tokens.mask)
        return _language(self.model, image, batch.tokens, labels, self.label_smoothing)


class CaptionerFinetune(nn.Module):
    """LM with the prompt masked in the loss (paper, section 3.3: the captioner).

    The texts of its batches begin with the model's prompt.
    """

    def __init__(self, model: MED, *, label_smoothing: float) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.prompt_tokens = 1 + len(model.tokenizer.pieces(clean(model.config.prompt)))

    def forward(self, batch: Batch, *, alpha: float, follow: bool = True, push: bool = True) -> dict[str, Tensor]:
        """Loss ``lm``; the settings of a contrast play no part."""
        del alpha, follow, push
        image_BNV = self.model.encode_image(batch.pixels)
        labels = objectives.lm_labels(batch.tokens.ids, batch.tokens.mask, prompt_tokens=self.prompt_tokens)
        return {"lm": _language(self.model, image_BNV, batch.tokens, labels, self.label_smoothing)}


def _language(
    model: MED, image: Tensor | ImageKeys, tokens: Tokens, labels_BL: Tensor, label_smoothing: float
) -> Tensor:
    loss = objectives.lm(model.decode(image, tokens), labels_BL, label_smoothing=label_smoothing)
    return loss * ranks.share((labels_BL[:, 1:] != objectives.IGNORE).sum(), loss.device)

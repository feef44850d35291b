"""The momentum twin and the queue of its features (MoCo; ALBEF; BLIP.md).

Shapes: B pairs, Q places of the queue, P channels. Both are plain state of a training task: they are
saved in checkpoints and never part of a released model.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capfilt.med.model import MED
from capfilt.med.tokenizer import Tokens


class MomentumTwin(nn.Module):
    """A slow copy of the two unimodal encoders and their projections."""

    def __init__(self, model: MED) -> None:
        super().__init__()
        self.vision = copy.deepcopy(model.vision)
        self.text = copy.deepcopy(model.text)
        self.vision_proj = copy.deepcopy(model.vision_proj)
        self.text_proj = copy.deepcopy(model.text_proj)
        self.requires_grad_(False)

    @torch.no_grad()
    def follow(self, model: MED, momentum: float) -> None:
        """twin = momentum * twin + (1 - momentum) * model, for every weight."""
        for name in ("vision", "text", "vision_proj", "text_proj"):
            mine, theirs = getattr(self, name).parameters(), getattr(model, name).parameters()
            torch._foreach_lerp_(list(mine), [p.detach() for p in theirs], 1 - momentum)

    @torch.no_grad()
    def embed(self, pixels_BCHW: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Unit vectors (B, P) of images and texts."""
        image_BNV = self.vision.forward_features(pixels_BCHW)
        image_BP = F.normalize(self.vision_proj(image_BNV[:, 0]), dim=-1)
        text_BP = F.normalize(self.text_proj(self.text.read(tokens.ids, tokens.mask)[:, 0]), dim=-1)
        return image_BP, text_BP


class FeatureQueue(nn.Module):
    """The last ``size`` momentum features and the ids of their images and texts; any batch fits any size.

    It starts empty: places not yet filled take no part, so there are no random vectors to compare with.
    """

    image_QP: Tensor
    text_QP: Tensor
    images_Q: Tensor
    texts_Q: Tensor
    state: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("image_QP", torch.zeros(size, width))
        self.register_buffer("text_QP", torch.zeros(size, width))
        # Ids are hashes, never negative 1 in practice: what is not of the data matches nothing.
        self.register_buffer("images_Q", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("texts_Q", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("state", torch.zeros(2, dtype=torch.int64))  # next place, places filled

    def features(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is filled: image vectors, text vectors, image ids and text ids."""
        filled = int(self.state[1])
        return self.image_QP[:filled], self.text_QP[:filled], self.images_Q[:filled], self.texts_Q[:filled]

    @torch.no_grad()
    def fill_randomly(self) -> None:
        """Fill every place with a random unit vector that belongs to nothing (the paper's code starts so)."""
        for room in (self.image_QP, self.text_QP):
            room.copy_(F.normalize(torch.randn_like(room), dim=-1))
        self.state[1] = self.size

    @torch.no_grad()
    def push(self, image_BP: Tensor, text_BP: Tensor, images_B: Tensor, texts_B: Tensor) -> None:
        """Put the batch over the oldest places; a batch larger than the queue leaves its last rows."""
        if not self.size:
            return
        count = min(self.size, images_B.shape[0])
        places = (torch.arange(count, device=images_B.device) + self.state[0]) % self.size
        for room, rows in (
            (self.image_QP, image_BP),
            (self.text_QP, text_BP),
            (self.images_Q, images_B),
            (self.texts_Q, texts_B),
        ):
            room[places] = rows[-count:].to(room.dtype)
        self.state[0] = (self.state[0] + count) % self.size
        self.state[1] = (self.state[1] + count).clamp(max=self.size)

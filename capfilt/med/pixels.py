"""From a decoded picture to the pixels that the vision encoder reads. Knows no files and no augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's channel statistics, as BLIP uses them."""


def to_uint8(picture: Image.Image, size: int) -> Tensor:
    """An RGB picture as uint8 (3, size, size), squeezed to the square by bicubic resampling (BLIP's evaluation)."""
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def normalise(pixels_BCHW: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to float32 with CLIP's mean and deviation taken out, on the same device."""
    mean = torch.tensor(MEAN, device=pixels_BCHW.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=pixels_BCHW.device).view(1, 3, 1, 1)
    return (pixels_BCHW.float() / 255 - mean) / std


def batch_of(pictures: Sequence[Image.Image], size: int) -> Tensor:
    """B RGB pictures as normalised pixels (B, 3, size, size), float32 on the CPU."""
    return normalise(torch.stack([to_uint8(picture, size) for picture in pictures]))

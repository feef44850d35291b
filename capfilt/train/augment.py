"""Augmentation of training pictures: random crop, mirror, two random distortions (BLIP.md).

Works on uint8 (3, H, W) and draws only from the generator it is given, so a sample is augmented the same way
whichever process does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

LEVEL = 5 / 10
"""M = 5 of 10."""
FILL = [128.0, 128.0, 128.0]
RATIO = (3 / 4, 4 / 3)


def crop(pixels_CHW: Tensor, size: int, min_scale: float, generator: torch.Generator) -> Tensor:
    """A random part of ``min_scale`` to all of the area, aspect 3:4 to 4:3, resized bicubically to a square."""
    height, width = pixels_CHW.shape[-2:]
    for _ in range(10):
        area = height * width * _between(generator, min_scale, 1.0)
        ratio = math.exp(_between(generator, math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = _below(generator, height - h + 1), _below(generator, width - w + 1)
            return _resized(pixels_CHW, top, left, h, w, size)
    return _resized(pixels_CHW, 0, 0, height, width, size)


def mirror(pixels_CHW: Tensor, generator: torch.Generator) -> Tensor:
    """Left and right exchanged half of the time."""
    return pixels_CHW.flip(-1) if _between(generator, 0, 1) < 0.5 else pixels_CHW


def distort(pixels_CHW: Tensor, generator: torch.Generator) -> Tensor:
    """Two operations drawn from ten, each applied with probability one half (RandAugment, N=2, M=5)."""
    for _ in range(2):
        operation = OPERATIONS[_below(generator, len(OPERATIONS))]
        sign = 1 if _between(generator, 0, 1) < 0.5 else -1
        if _between(generator, 0, 1) < 0.5:
            pixels_CHW = operation(pixels_CHW, sign)
    return pixels_CHW


def _affine(angle: float = 0.0, shift: tuple[float, float] = (0, 0), shear: tuple[float, float] = (0, 0)) -> Operation:
    def apply(pixels_CHW: Tensor, sign: int) -> Tensor:
        moved = [round(s * sign) for s in shift]
        leaned = [s * sign for s in shear]
        out: Tensor = V.affine(
            pixels_CHW, angle * sign, moved, 1.0, leaned, interpolation=InterpolationMode.BILINEAR, fill=FILL
        )
        return out

    return apply


Operation = Callable[[Tensor, int], Tensor]
_SHEAR = math.degrees(math.atan(0.3 * LEVEL))
_ENHANCE = 1.8 * LEVEL + 0.1  # 1.0 at M = 5: brightness and sharpness then change nothing, as in the paper's code
OPERATIONS: tuple[Operation, ...] = (
    lambda x, _: x,
    lambda x, _: V.autocontrast(x),
    lambda x, _: V.equalize(x),
    lambda x, _: V.adjust_brightness(x, _ENHANCE),
    lambda x, _: V.adjust_sharpness(x, _ENHANCE),
    _affine(angle=30 * LEVEL),
    _affine(shear=(_SHEAR, 0)),
    _affine(shear=(0, _SHEAR)),
    _affine(shift=(10 * LEVEL, 0)),
    _affine(shift=(0, 10 * LEVEL)),
)


def _resized(pixels_CHW: Tensor, top: int, left: int, height: int, width: int, size: int) -> Tensor:
    out: Tensor = V.resized_crop(
        pixels_CHW, top, left, height, width, [size, size], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    return out


def _between(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _below(generator: torch.Generator, count: int) -> int:
    return int(torch.randint(count, (), generator=generator))

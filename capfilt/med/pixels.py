"""From decoded pictures to the pixels that the vision encoder reads. Knows no files and no augmentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self, overload

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
    mean, std = (torch.tensor(v).view(1, 3, 1, 1).to(pixels_BCHW.device, non_blocking=True) for v in (MEAN, STD))
    return (pixels_BCHW.float() / 255 - mean) / std


class Seen:
    """One picture, resized ahead of the models that will look at it. Made in any thread.

    Args:
        picture: RGB.
        sizes: px, the squares that models ask for. With none the picture itself is kept, for models that prepare
            pictures in a way of their own; else only the squares are, which take less memory.
    """

    def __init__(self, picture: Image.Image, sizes: Iterable[int] = ()) -> None:
        self.squares = {size: to_uint8(picture, size) for size in sizes}
        self.picture = None if self.squares else picture

    def square(self, size: int) -> Tensor:
        """uint8 (3, size, size)."""
        if size in self.squares:
            return self.squares[size]
        return to_uint8(self._whole(), size)

    def _whole(self) -> Image.Image:
        if self.picture is None:
            raise ValueError(f"only squares of {sorted(self.squares)} px were kept of this picture")
        return self.picture


class Pictures(Sequence[Image.Image]):
    """The pictures of a batch. Models that read squares of one size on one device share the copy that is there."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.seen = seen
        self._there: dict[tuple[int, torch.device], Tensor] = {}

    @classmethod
    def of(cls, pictures: Sequence[Image.Image]) -> Self:
        """A batch of RGB pictures of any size; a batch stays what it is."""
        return pictures if isinstance(pictures, cls) else cls([Seen(picture) for picture in pictures])

    def squares(self, size: int, device: torch.device) -> Tensor:
        """uint8 (B, 3, size, size) on ``device``; a GPU may still be waiting for it."""
        key = (size, device)
        if key not in self._there:
            rows = [one.square(size) for one in self.seen]
            # From pinned memory a GPU fetches by itself, while this thread goes on.
            room = torch.empty(len(rows), 3, size, size, dtype=torch.uint8, pin_memory=device.type == "cuda")
            torch.stack(rows, out=room)
            self._there[key] = room.to(device, non_blocking=True)
        return self._there[key]

    @overload
    def __getitem__(self, at: int) -> Image.Image: ...
    @overload
    def __getitem__(self, at: slice) -> list[Image.Image]: ...
    def __getitem__(self, at: int | slice) -> Image.Image | list[Image.Image]:
        """The pictures themselves, where they were kept."""
        return [one._whole() for one in self.seen[at]] if isinstance(at, slice) else self.seen[at]._whole()

    def __len__(self) -> int:
        """B."""
        return len(self.seen)


def batch_of(
    pictures: Sequence[Image.Image],
    size: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """B RGB pictures as normalised pixels (B, 3, size, size) in ``dtype`` on ``device``."""
    return normalise(Pictures.of(pictures).squares(size, torch.device(device))).to(dtype)

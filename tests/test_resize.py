"""Downsizing gives what PIL's bicubic gives, on every processor."""

from __future__ import annotations

import numpy as np
import pytest
from cykooz_resizer import CpuExtensions, ImageData, PixelType, Resizer
from PIL import Image

from capfilt.resize import _BICUBIC, resized


def scene(mode: str, size: tuple[int, int]) -> Image.Image:
    picture = Image.effect_mandelbrot(size, (-2, -1.5, 1, 1.5), 60).convert("RGB")
    picture.paste((250, 20, 30), (size[0] // 3, size[1] // 4, size[0] // 2, size[1] // 2))
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
@pytest.mark.parametrize("size", [(320, 240), (200, 150), (33, 240), (1, 1)])
def test_it_is_bicubic(mode, size):
    picture = scene(mode, (400, 300))
    found, expected = resized(picture, size), picture.resize(size, Image.Resampling.BICUBIC)
    assert (found.mode, found.size) == (mode, size)
    far = np.abs(np.asarray(found).astype(int) - np.asarray(expected))
    assert far.mean() < 2
    assert np.percentile(far, 99) <= 8


def test_much_smaller_is_averaged():
    picture = scene("RGB", (3000, 2000))
    far = np.abs(
        np.asarray(resized(picture, (300, 200))).astype(int)
        - np.asarray(picture.resize((300, 200), Image.Resampling.LANCZOS))
    )
    assert far.mean() < 3


def test_every_processor_gives_the_same():
    picture = scene("RGB", (400, 300))
    found = set()
    for extensions in (CpuExtensions.none, CpuExtensions.sse4_1, CpuExtensions.avx2):
        resizer, after = Resizer(), ImageData(123, 77, PixelType.U8x4)
        try:
            resizer.cpu_extensions = extensions
        except ValueError:
            continue  # this processor has not got them
        resizer.resize(ImageData(400, 300, PixelType.U8x4, picture.tobytes("raw", "RGBX")), after, _BICUBIC)
        found.add(after.get_buffer())
    assert len(found) == 1

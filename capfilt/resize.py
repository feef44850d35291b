"""Bicubic downsizing, several times as fast as PIL's own: what else costs most of a picture's time.

The result does not depend on what the processor can do. Knows PIL.
"""

from __future__ import annotations

from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

_BICUBIC = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.catmull_rom), use_alpha=False)
_KINDS = {"RGB": (PixelType.U8x4, "RGBX"), "L": (PixelType.U8, "L")}
_GAP = 3


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at a smaller size, antialiased.

    Args:
        image: any mode that can be averaged; RGB and grey are fast.
        size: (width, height) in pixels, not larger than the picture's.
    """
    factor = int(min(image.width / size[0], image.height / size[1]) / _GAP)
    if factor > 1:
        # As far as averaging whole blocks does no harm; it also bounds what is copied below.
        image = image.reduce(factor)
    if image.mode not in _KINDS:
        return image.resize(size, Image.Resampling.BICUBIC)
    pixels, layout = _KINDS[image.mode]
    before = ImageData(*image.size, pixels, image.tobytes("raw", layout))
    after = ImageData(*size, pixels)
    # A resizer of its own for each: they hold buffers, and threads work here at the same time.
    Resizer().resize(before, after, _BICUBIC)
    return Image.frombytes(image.mode, size, after.get_buffer(), "raw", layout)

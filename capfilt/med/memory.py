"""How much memory a picture takes on its way through a model, so that a batch can be as large as memory bears.

Estimates from the architecture, rather too high than too low. Knows configs; knows no devices and no batches.
"""

from __future__ import annotations

from capfilt.med.config import MEDConfig

_PIXEL = 3 * (1 + 4 + 4)
"""Bytes of a pixel: as uint8, as float32, and as float32 normalised."""
_MAPS = 32
"""Numbers a pixel in the first maps of a stem of convolutions."""
_BLOCK = 16
"""Widths that a block holds of each token: input, norm, queries, keys, values, output, the MLP's inside twice."""
_WORD = 80
"""Bytes that sampling holds of each word of the vocabulary: logits, sorted, their places, masses in float64."""


def seen(config: MEDConfig, width: int) -> int:
    """Bytes while one picture passes the vision encoder.

    Args:
        config: the model's.
        width: bytes of one number, 2 or 4.
    """
    vision = config.vision
    pixel = _PIXEL + width * (3 if vision.stem == "patch" else _MAPS)
    return vision.image_size**2 * pixel + _tokens(config) * _BLOCK * vision.width * width


def captioned(config: MEDConfig, width: int, *, captions: int, max_length: int) -> int:
    """Bytes of one picture while its captions are written: keys and values of all layers, and what sampling takes."""
    text = config.text
    keys = 2 * text.depth * (_tokens(config) + max_length) * text.width * width
    return seen(config, width) + captions * (keys + text.vocab_size * _WORD)


def scored(config: MEDConfig, width: int, *, texts: int, max_length: int) -> int:
    """Bytes of one picture while texts are matched with it: a layer's keys and values, again for each text."""
    text = config.text
    keys = 2 * _tokens(config) * text.width * (texts + 1)
    return seen(config, width) + (keys + texts * max_length * _BLOCK * text.width) * width


def _tokens(config: MEDConfig) -> int:
    return (config.vision.image_size // config.vision.patch_size) ** 2 + 1

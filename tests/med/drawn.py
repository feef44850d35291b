"""Weights, pixels and features that any two programs can draw alike: from the name of a tensor alone.

A parity fixture then holds numbers only, and no weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SPREAD = 0.08
"""Standard deviation of what is drawn: large enough that every part of the model changes the result."""


def drawn(name: str, shape: Sequence[int]) -> Tensor:
    """Float32 of ``shape``, normal, the same wherever ``name`` is the same."""
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "big")
    values = np.random.Generator(np.random.Philox(key=key)).standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy(values)


def weight(name: str, shape: Sequence[int], salt: str = "") -> Tensor:
    """A weight under the original code's name: scales of norms near 1, all else near 0."""
    near = 1.0 if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "LayerNorm.weight")) else 0.0
    return near + SPREAD * drawn(salt + name, shape)


def first_name(name: str) -> str:
    """The name by which a weight is drawn: of those that BLIP's encoder and decoder share, the encoder's."""
    if name == "text_decoder.cls.predictions.decoder.weight":
        return "text_encoder.embeddings.word_embeddings.weight"
    if name == "text_decoder.cls.predictions.decoder.bias":
        return "text_decoder.cls.predictions.bias"
    shared = name.startswith("text_decoder.bert.") and ".attention." not in name
    return name.replace("text_decoder.bert.", "text_encoder.", 1) if shared else name

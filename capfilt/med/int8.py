"""Linear layers in 8 bits, for CPUs that multiply bytes faster than floats (AVX-512 VNNI, AMX).

Weights are rounded once, with a scale for each output; inputs when they come, with a scale for each row, so that a
picture's result depends on no other picture of its batch. Shapes: R rows, K inputs, N outputs. Knows layers; knows not
what a model is for.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_TOP = 127
_TINY = 1e-12


class Int8Linear(nn.Module):
    """What a linear layer computes, for inference.

    Args:
        linear: float; its weights are copied.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight_NK = linear.weight.detach().float()
        scale_N = weight_NK.abs().amax(1).clamp_min(_TINY) / _TOP
        self.weight_NK: Tensor
        self.scale_N: Tensor
        self.bias_N: Tensor
        self.register_buffer("weight_NK", (weight_NK / scale_N[:, None]).round_().to(torch.int8))
        self.register_buffer("scale_N", scale_N / _TOP)
        bias = torch.zeros(len(scale_N)) if linear.bias is None else linear.bias.detach().float().clone()
        self.register_buffer("bias_N", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) float32 to (..., N) float32."""
        rows_RK = x.reshape(-1, x.shape[-1])
        top_R1 = torch.maximum(rows_RK.amax(-1, keepdim=True), -rows_RK.amin(-1, keepdim=True)).clamp_min_(_TINY)
        bytes_RK = torch.mul(rows_RK, _TOP / top_R1).round_().to(torch.int8)
        # The product of bytes is summed in 32 bits: nothing is lost there.
        out_RN = torch._int_mm(bytes_RK, self.weight_NK.t()).float()
        out_RN = torch.addcmul(self.bias_N, out_RN.mul_(top_R1), self.scale_N, out=out_RN)
        return out_RN.view(*x.shape[:-1], -1)


def quantise(module: nn.Module, wanted: Callable[[str], bool]) -> nn.Module:
    """Puts 8-bit layers in place of linear ones, within ``module``, which it returns.

    Args:
        module: on the CPU, float32, in eval mode.
        wanted: whether the linear layer of this name, dotted, is meant.
    """
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear) and wanted(name):
            parent, _, own = name.rpartition(".")
            setattr(module.get_submodule(parent), own, Int8Linear(layer))
    return module

"""8-bit layers: near the float ones, each row by itself, and where they are asked for only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from capfilt.errors import ModelError
from capfilt.med.int8 import Int8Linear
from capfilt.med.model import MED
from capfilt.peers.opening import open_filter


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32), st.sampled_from([(1, 8, 8), (17, 64, 24), (40, 96, 200)]), st.floats(-6, 6), st.booleans()
)
def test_the_result_is_that_of_floats_within_what_bytes_can_tell(
    seed: int, shape: tuple[int, int, int], power: float, bias: bool
) -> None:
    rows, inputs, outputs = shape
    torch.manual_seed(seed)
    linear = nn.Linear(inputs, outputs, bias=bias)
    x = torch.randn(rows, inputs) * 10**power
    with torch.inference_mode():
        exact, rounded = linear(x), Int8Linear(linear)(x)
    # Either factor is off by half a step at most, a step being a 127th of the largest in its row.
    half_x = x.abs().amax(-1, keepdim=True) / 254
    half_w = linear.weight.abs().amax(-1) / 254
    bound = half_x * linear.weight.abs().sum(-1) + x.abs().sum(-1, keepdim=True) * half_w + inputs * half_x * half_w
    assert ((rounded - exact).abs() <= bound * 1.01 + 1e-6).all()


def test_a_row_does_not_care_for_the_others() -> None:
    torch.manual_seed(0)
    layer, x = Int8Linear(nn.Linear(64, 32)), torch.randn(5, 64)
    loud = torch.cat([x[:2], torch.full((1, 64), 1e6), x[3:]])
    assert torch.equal(layer(x)[[0, 1, 3, 4]], layer(loud)[[0, 1, 3, 4]])


def test_nothing_and_no_number() -> None:
    layer = Int8Linear(nn.Linear(16, 8))
    assert torch.equal(layer(torch.zeros(2, 3, 16)), layer.bias_N.expand(2, 3, 8))
    assert layer(torch.full((1, 16), float("nan"))).isnan().all()


def test_a_model_has_bytes_where_whole_pictures_pass_and_floats_elsewhere(
    tiny_architecture: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    MED.new(tiny_architecture).save(tmp_path)
    model, exact = MED.load(tmp_path, dtype=torch.int8), MED.load(tmp_path)
    names = {name for name, layer in model.named_modules() if isinstance(layer, Int8Linear)}
    assert {name.split(".")[0] for name in names} == {"vision", "text"}
    assert all("cross_attention" in name for name in names if name.startswith("text"))
    assert "vision.blocks.0.mlp.fc1" in names
    size = model.config.vision.image_size
    pixels = torch.randn(3, 3, size, size)
    with torch.inference_mode():
        near, there = model.encode_image(pixels), exact.encode_image(pixels)
        assert torch.equal(model.encode_image(pixels[1:2]), near[1:2])
    assert 0 < float((near - there).norm() / there.norm()) < 0.05


def test_it_is_refused_on_gpus_and_for_others_models(tiny_architecture: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="for CPUs"):
        MED.load(tiny_architecture, device="cuda", dtype=torch.int8)
    with pytest.raises(ModelError, match="for MEDs"):
        open_filter(tmp_path, device="cpu", dtype=torch.int8)

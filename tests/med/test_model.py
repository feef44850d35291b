"""The MED's image encoder: the stem of BLIP's ViT and the convolutional one of small models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from capfilt.errors import ModelError
from capfilt.med.config import MEDConfig
from capfilt.med.model import BACKBONE, MED, PatchStem, patch_product
from capfilt.med.released import export_huggingface, export_original
from capfilt.med.tokenizer import MEDTokenizer


def with_stem(architecture: Path, stem: str, patch_size: int = 8) -> MED:
    config = MEDConfig.load(architecture)
    vision = replace(config.vision, stem=stem, patch_size=patch_size)
    torch.manual_seed(0)
    return MED(replace(config, vision=vision), MEDTokenizer.load(architecture)).eval()


@pytest.mark.parametrize("patch_size", [2, 4, 8, 16])
def test_a_conv_stem_gives_as_many_patches_as_the_plain_one(tiny_architecture: Path, patch_size: int) -> None:
    plain, conv = (with_stem(tiny_architecture, stem, patch_size) for stem in ("patch", "conv"))
    pixels = torch.randn(2, 3, 32, 32)
    assert conv.encode_image(pixels).shape == plain.encode_image(pixels).shape == (2, 1 + (32 // patch_size) ** 2, 64)
    strides = [m.stride for m in conv.vision.patch_embed.modules() if isinstance(m, nn.Conv2d)]
    assert strides.count((2, 2)) == patch_size.bit_length() - 1


def test_the_product_of_patches_is_the_convolution() -> None:
    stem = PatchStem(img_size=32, patch_size=8, embed_dim=24)
    pixels = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    torch.testing.assert_close(patch_product(pixels, stem.proj), stem(pixels), atol=1e-5, rtol=1e-5)


def test_a_conv_stem_keeps_pictures_apart_in_any_batch(tiny_architecture: Path) -> None:
    model = with_stem(tiny_architecture, "conv").train()
    pixels = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model.encode_image(pixels)[:1], model.encode_image(pixels[:1]), atol=1e-5, rtol=1e-5)


def test_a_model_with_a_conv_stem_comes_back_whole_and_can_be_halved(tiny_architecture: Path, tmp_path: Path) -> None:
    model = with_stem(tiny_architecture, "conv")
    model.save(tmp_path)
    pixels = torch.randn(1, 3, 32, 32)
    for again in (MED.load(tmp_path), model.only("captioner"), model.only("filter")):
        assert again.config.vision.stem == "conv"
        assert torch.equal(again.encode_image(pixels), model.encode_image(pixels))


def test_a_conv_stem_needs_patches_that_halve(tiny_architecture: Path) -> None:
    config = MEDConfig.load(tiny_architecture)
    with pytest.raises(ModelError, match="power of 2"):
        replace(config, vision=replace(config.vision, image_size=36, patch_size=12, stem="conv"))


def test_a_conv_stem_is_not_exported_as_a_blip(tiny_architecture: Path, tmp_path: Path) -> None:
    model = with_stem(tiny_architecture, "conv")
    with pytest.raises(ModelError, match="conv stem"):
        export_original(model, tmp_path / "x" / "model.pth")
    with pytest.raises(ModelError, match="conv stem"):
        export_huggingface(model, tmp_path / "y", holds="filter")
    assert not list(tmp_path.iterdir())


def lite(architecture: Path) -> MED:
    config = MEDConfig.load(architecture)
    vision = replace(config.vision, stem="efficientnet_lite0", image_size=64, patch_size=32)
    torch.manual_seed(0)
    return MED(replace(config, vision=vision), MEDTokenizer.load(architecture)).eval()


def test_an_efficientnet_stem_gives_a_token_for_each_place_of_its_map(tiny_architecture: Path, tmp_path: Path) -> None:
    model = lite(tiny_architecture)
    pixels = torch.randn(2, 3, 64, 64)
    image = model.encode_image(pixels)
    assert image.shape == (2, 1 + 4, 64)
    model.save(tmp_path)
    again = MED.load(tmp_path)
    assert torch.equal(again.encode_image(pixels), image)
    assert torch.equal(model.only("filter").encode_image(pixels), image)


def test_an_efficientnet_stem_sees_each_picture_alone_in_training_too(tiny_architecture: Path) -> None:
    model = lite(tiny_architecture).train()
    pixels = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(model.encode_image(pixels)[:1], model.encode_image(pixels[:1]), atol=1e-4, rtol=1e-4)
    backbone = model.get_submodule(BACKBONE)
    assert not list(backbone.buffers())
    assert not [m for m in backbone.modules() if "Norm" in type(m).__name__]


def test_an_efficientnet_stem_needs_patches_of_32(tiny_architecture: Path) -> None:
    config = MEDConfig.load(tiny_architecture)
    with pytest.raises(ModelError, match="32 for an EfficientNet-Lite0"):
        replace(config, vision=replace(config.vision, stem="efficientnet_lite0", patch_size=16))

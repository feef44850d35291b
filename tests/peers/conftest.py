"""Models of Hugging Face in the layout of the hub, with random weights, small enough to build in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

WORDS = ["a", "the", "red", "green", "blue", "black", "circle", "square", "on", "white", "photo", "of", "describe"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIDE = {"height": 32, "width": 32}
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
EYE = TOWER | {"image_size": 32, "patch_size": 8}

Build = Callable[[Path], Path]


def tokenizer(folder: Path, longest: int = 16, **more: object) -> BertTokenizer:
    file = folder / "words.txt"
    file.write_text("\n".join([*SPECIAL, *WORDS]) + "\n")
    return BertTokenizer(str(file), model_max_length=longest, **more)


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights large enough to have opinions; norms stay as they are."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 0.2)
    return model


def blip(folder: Path) -> Path:
    words = tokenizer(folder)
    size = len(words)
    text = TOWER | {"vocab_size": size + 2, "encoder_hidden_size": 32, "max_position_embeddings": 32}
    special = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(text_config=text | special, vision_config=EYE, projection_dim=16)
    lively(BlipForConditionalGeneration(config)).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size=SIDE), words).save_pretrained(folder)
    return folder


def git(folder: Path) -> Path:
    words = tokenizer(folder)
    special = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = GitConfig(vision_config=EYE, vocab_size=len(words), max_position_embeddings=64, **TOWER, **special)
    lively(GitForCausalLM(config)).save_pretrained(folder)
    processor = CLIPImageProcessor(size=SIDE, crop_size=SIDE)
    GitProcessor(processor, words).save_pretrained(folder)
    return folder


def llava(folder: Path) -> Path:
    """A model that chats: the picture stands in the text, between what is asked."""
    words = tokenizer(folder, 64, additional_special_tokens=["<image>"])
    vision = EYE | {"model_type": "clip_vision_model", "projection_dim": 16}
    special = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = LlamaConfig(vocab_size=len(words), max_position_embeddings=64, **TOWER, **special)
    image = words.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=image, image_seq_length=16)
    model = lively(LlavaForConditionalGeneration(config))
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 3, 0
    model.save_pretrained(folder)
    template = (
        "{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %} {{ c['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}"
    )
    LlavaProcessor(
        CLIPImageProcessor(size=SIDE, crop_size=SIDE),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    words = tokenizer(folder)
    special = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = TOWER | {"vocab_size": len(words), "max_position_embeddings": 16} | special
    lively(CLIPModel(CLIPConfig(text_config=text, vision_config=EYE, projection_dim=16))).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(size=SIDE, crop_size=SIDE), words).save_pretrained(folder)
    return folder


def siglip(folder: Path) -> Path:
    words = tokenizer(folder)
    special = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = TOWER | {"vocab_size": len(words), "max_position_embeddings": 16, "projection_size": 32} | special
    lively(SiglipModel(SiglipConfig(text_config=text, vision_config=EYE))).save_pretrained(folder)
    SiglipProcessor(SiglipImageProcessor(size=SIDE), words).save_pretrained(folder)
    return folder


BUILDERS: dict[str, Build] = {b.__name__: b for b in (blip, git, llava, clip, siglip)}


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model by its kind, built when first asked for."""
    built: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in built:
            torch.manual_seed(0)
            built[kind] = BUILDERS[kind](tmp_path_factory.mktemp(kind))
        return built[kind]

    return get

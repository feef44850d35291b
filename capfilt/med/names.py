"""The names that released BLIP weights have, beside ours (BLIP.md; Salesforce's code and Hugging Face's).

Tables only: from each name of ours to the names under which the original code stores that weight. A weight
that encoder and decoder share stands there under both. Knows no tensors and no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_VISION = "visual_encoder."
_ENCODER = "text_encoder."
_DECODER = "text_decoder.bert."
_HEAD = "text_decoder.cls.predictions."
_PLAIN = {"vision_proj": "vision_proj", "text_proj": "text_proj", "itm_head": "itm_head"}
_PARTS = {
    "embeddings.word.": "embeddings.word_embeddings.",
    "embeddings.position.": "embeddings.position_embeddings.",
    "embeddings.norm.": "embeddings.LayerNorm.",
}
_IN_LAYER = {
    "self_attention.query": "attention.self.query",
    "self_attention.key": "attention.self.key",
    "self_attention.value": "attention.self.value",
    "self_attention.out": "attention.output.dense",
    "self_attention.norm": "attention.output.LayerNorm",
    "cross_attention.query": "crossattention.self.query",
    "cross_attention.key": "crossattention.self.key",
    "cross_attention.value": "crossattention.self.value",
    "cross_attention.out": "crossattention.output.dense",
    "cross_attention.norm": "crossattention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "feed_forward.norm": "output.LayerNorm",
}
_LM_HEAD = {
    "text.lm_head.transform.weight": ("transform.dense.weight",),
    "text.lm_head.transform.bias": ("transform.dense.bias",),
    "text.lm_head.norm.weight": ("transform.LayerNorm.weight",),
    "text.lm_head.norm.bias": ("transform.LayerNorm.bias",),
    "text.lm_head.bias": ("bias", "decoder.bias"),
}
_LAYER = re.compile(r"text\.layers\.(\d+)\.(\w+)\.(both|encode|decode)\.(\w+)\.(weight|bias)")
_EMBEDDING = re.compile(r"text\.(embeddings)\.(both|encode|decode)\.(\w+\.)(weight|bias)")
_IN_BLOCK = {
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_OUT_OF_BLOCK = {
    "visual_encoder.cls_token": "vision_model.embeddings.class_embedding",
    "visual_encoder.pos_embed": "vision_model.embeddings.position_embedding",
    "visual_encoder.patch_embed.proj.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual_encoder.patch_embed.proj.bias": "vision_model.embeddings.patch_embedding.bias",
    "visual_encoder.norm.weight": "vision_model.post_layernorm.weight",
    "visual_encoder.norm.bias": "vision_model.post_layernorm.bias",
}
_BLOCK = re.compile(r"visual_encoder\.blocks\.(\d+)\.(.+)\.(weight|bias)")
_STATE = re.compile(
    r"(visual_encoder|vision_proj|text_encoder|text_proj)_m\..*"
    r"|image_queue|text_queue|queue_ptr|idx_queue|ptr_queue"
    r"|(.*\.)?position_ids"
)
DUPLICATES = (f"{_HEAD}decoder.weight", f"{_HEAD}decoder.bias")
"""Tied copies that some files leave out."""
OPTIONAL = ("temp",)
"""What files of finished models leave out: no score of theirs depends on it."""


def is_training_state(name: str) -> bool:
    """Whether a name is of the momentum twin, the queue or a counter: what no model needs once it is trained."""
    return _STATE.fullmatch(name) is not None


def originals(name: str) -> tuple[str, ...]:
    """The names under which the original code stores our weight ``name``.

    Args:
        name: of a :class:`capfilt.med.model.MED`'s state dict.

    Raises:
        KeyError: no weight of ours is called so.
    """
    if name == "temperature":
        return ("temp",)
    if name.startswith("vision."):
        return (_VISION + name.removeprefix("vision."),)
    if name in _LM_HEAD:
        return tuple(_HEAD + tail for tail in _LM_HEAD[name])
    head, _, tail = name.rpartition(".")
    if head in _PLAIN:
        return (f"{_PLAIN[head]}.{tail}",)
    return tuple(_text(name))


def _text(name: str) -> Iterator[str]:
    if match := _EMBEDDING.fullmatch(name):
        _, direction, part, tail = match.groups()
        there = _PARTS[f"embeddings.{part}"] + tail
    elif match := _LAYER.fullmatch(name):
        layer, block, direction, part, tail = match.groups()
        there = f"encoder.layer.{layer}.{_IN_LAYER[f'{block}.{part}']}.{tail}"
    else:
        raise KeyError(name)
    if direction in ("both", "encode"):
        yield _ENCODER + there
    if direction in ("both", "decode"):
        yield _DECODER + there
        if there == "embeddings.word_embeddings.weight":
            yield f"{_HEAD}decoder.weight"


def to_huggingface(name: str) -> str:
    """Hugging Face's name for a name of the original code; text and heads are called the same."""
    if name in _OUT_OF_BLOCK:
        return _OUT_OF_BLOCK[name]
    if match := _BLOCK.fullmatch(name):
        block, part, tail = match.groups()
        return f"vision_model.encoder.layers.{block}.{_IN_BLOCK.get(part, part)}.{tail}"
    return name


def from_huggingface(names: Iterable[str]) -> dict[str, str]:
    """From Hugging Face's names to those of the original code; unknown ones stay as they are."""
    inside = {there: here for here, there in _IN_BLOCK.items()}
    outside = {there: here for here, there in _OUT_OF_BLOCK.items()}
    found = {}
    for name in names:
        match = re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if match:
            block, part, tail = match.groups()
            found[name] = f"{_VISION}blocks.{block}.{inside.get(part, part)}.{tail}"
        else:
            found[name] = outside.get(name, name)
    return found

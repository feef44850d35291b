"""Reads and writes BLIP weights as they were released: Salesforce's ``.pth`` and Hugging Face's folders.

Every weight must find its place: an unknown name, a missing one or one of another shape is an error that lists
them. Nothing is unpickled: ``.pth`` files are read with ``weights_only``. Knows local files; ``hub`` fetches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertTokenizer, BlipConfig, BlipImageProcessor

from capfilt.errors import ModelError
from capfilt.med.config import Holds, MEDConfig, Sharing, TextConfig, VisionConfig
from capfilt.med.model import MED, resized_positions
from capfilt.med.names import DUPLICATES, OPTIONAL, from_huggingface, is_training_state, originals, to_huggingface
from capfilt.med.tokenizer import MEDTokenizer
from capfilt.med.weights import read_json, read_weights, weights_file

Layout = Literal["original", "huggingface"]
HEAD_WIDTH = 64
"""Channels of one attention head in ViT-B, ViT-L and BERT, for files that do not tell the number of heads."""
TEMPERATURE = 0.07
"""Taken where a file has none; it plays no part in scores."""
VISION_EPS = 1e-6
"""With which BLIP was trained, and which every MED has."""
THEIR_EPS = 1e-5
"""Hugging Face's default, which folders of BLIP say too, published ones among them: said, not meant."""
BERT_BASE = (768, 12)
"""Width and heads: Hugging Face's text configuration says 8 heads unless told."""


@dataclass(frozen=True)
class Released:
    """Weights as a file has them, under the original code's names, and what is told beside them."""

    weights: dict[str, Tensor]
    layout: Layout
    config: Mapping[str, Any]
    """Hugging Face's ``config.json``, else empty."""
    file: Path


def read(path: Path) -> Released:
    """Weights of a ``.pth`` or ``.safetensors`` file, or of a Hugging Face folder; safetensors where there is a choice.

    Raises:
        ModelError: there is no such file, or it cannot be read without running code that it brings.
    """
    file = weights_file(path)
    told = file.parent / "config.json"
    config = read_json(told) if told.is_file() else {}
    weights = read_weights(file)
    layout: Layout = "huggingface" if any(name.startswith("vision_model.") for name in weights) else "original"
    if layout == "huggingface":
        renamed = from_huggingface(weights)
        weights = {renamed[name]: tensor for name, tensor in weights.items()}
    weights = {name: tensor for name, tensor in weights.items() if not is_training_state(name)}
    if not any(name.startswith("visual_encoder.") for name in weights):
        raise ModelError("no BLIP weights: it has no visual_encoder", where=str(file), mend="Name a file of BLIP.")
    return Released(weights, layout, config if layout == "huggingface" else {}, file)


def architecture(released: Released, *, prompt: str = "a picture of ") -> MEDConfig:
    """The architecture that the weights' shapes and, for Hugging Face's folders, ``config.json`` tell.

    Raises:
        ModelError: a weight that decides it is missing, or ``config.json`` contradicts BLIP (heads, eps).
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in released.weights.items()}
    holds = _holds(shapes, released.file)
    stack = "text_decoder.bert." if holds == "captioner" else "text_encoder."
    _, places, width = _shape(shapes, "visual_encoder.pos_embed", released.file)
    patch = _shape(shapes, "visual_encoder.patch_embed.proj.weight", released.file)[-1]
    words, text_width = _shape(shapes, f"{stack}embeddings.word_embeddings.weight", released.file)
    embed = shapes.get("vision_proj.weight", (MEDConfig().embed_dim,))[0]
    vision_heads, text_heads = _heads(released, width, text_width)
    return MEDConfig(
        vision=VisionConfig(
            image_size=round((places - 1) ** 0.5) * patch,
            patch_size=patch,
            width=width,
            depth=_count(shapes, "visual_encoder.blocks."),
            heads=vision_heads,
            drop_path=0.1 if width == 1024 else 0.0,
        ),
        text=TextConfig(
            vocab_size=words,
            width=text_width,
            depth=_count(shapes, f"{stack}encoder.layer."),
            heads=text_heads,
            ffn_width=_shape(shapes, f"{stack}encoder.layer.0.intermediate.dense.weight", released.file)[0],
            max_positions=_shape(shapes, f"{stack}embeddings.position_embeddings.weight", released.file)[0],
        ),
        embed_dim=embed,
        shared=_sharing(released.weights) if holds == "both" else "all_but_self_attention",
        holds=holds,
        prompt=prompt,
    )


def _holds(shapes: Mapping[str, Any], file: Path) -> Holds:
    encoder = any(name.startswith("text_encoder.") for name in shapes)
    decoder = any(name.startswith("text_decoder.") for name in shapes)
    if encoder and decoder:
        return "both"
    if not encoder and not decoder:
        raise ModelError("has no text_encoder and no text_decoder", where=str(file), mend="Name a file of BLIP.")
    return "filter" if encoder else "captioner"


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, file: Path) -> tuple[int, ...]:
    if name not in shapes:
        raise ModelError(f"lacks {name}", where=str(file), mend="Copy the file again, whole.")
    return shapes[name]


def _count(shapes: Mapping[str, Any], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})


def _heads(released: Released, width: int, text_width: int) -> tuple[int, int]:
    vision, text = released.config.get("vision_config"), released.config.get("text_config")
    if not isinstance(vision, dict) or not isinstance(text, dict):
        return max(1, width // HEAD_WIDTH), max(1, text_width // HEAD_WIDTH)
    where, mend = str(released.file.parent / "config.json"), "Correct config.json if it is wrong."
    eps = vision.get("layer_norm_eps", THEIR_EPS)
    if eps not in (VISION_EPS, THEIR_EPS):
        raise ModelError(f"vision_config.layer_norm_eps is {eps}, BLIP's is {VISION_EPS}", where=where, mend=mend)
    heads = int(text.get("num_attention_heads", 8))
    if text_width == BERT_BASE[0] and heads != BERT_BASE[1]:
        raise ModelError(f"text_config.num_attention_heads is {heads}, BERT-base has 12", where=where, mend=mend)
    return int(vision.get("num_attention_heads", 12)), heads


def _sharing(weights: Mapping[str, Tensor]) -> Sharing:
    """By comparing the matrices that the encoder and the decoder hold under the same name: a part is shared if most are
    equal, so that one that is damaged is found out where shared weights are placed."""

    def same(part: str) -> bool:
        names = [n for n, mine in weights.items() if n.startswith("text_encoder.") and part in n and mine.dim() > 1]
        pairs = ((weights[n], weights.get(n.replace("text_encoder.", "text_decoder.bert.", 1))) for n in names)
        equal = sum(theirs is not None and torch.equal(mine, theirs) for mine, theirs in pairs)
        return 2 * equal > len(names) or not names

    if not same(".intermediate."):
        return "none"
    own, cross = same(".attention."), same(".crossattention.")
    if own and cross:
        return "all"
    return "all_but_cross_attention" if own else "all_but_self_attention"


def build(released: Released, tokenizer: MEDTokenizer, config: MEDConfig) -> MED:
    """A model with these weights, in eval mode; position embeddings are resized where the image size differs.

    Raises:
        ModelError: names or shapes do not fit; lists all of them.
    """
    with torch.device("meta"):
        model = MED(config, tokenizer)
    taken, known, problems = _placed(released.weights, list(model.state_dict()))
    problems += [f"has no place in a MED: {name}" for name in sorted(set(released.weights) - known)]
    if "vision.pos_embed" in taken:
        taken["vision.pos_embed"] = resized_positions(taken["vision.pos_embed"], config.vision)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems += [
        f"{originals(name)[0]} is {tuple(tensor.shape)}, should be {shapes[name]}"
        for name, tensor in taken.items()
        if tuple(tensor.shape) != shapes[name]
    ]
    if problems:
        raise ModelError(
            "; ".join(problems),
            where=str(released.file),
            mend="Name a whole captioning, retrieval or pretraining checkpoint of BLIP.",
        )
    model.load_state_dict({name: tensor.float() for name, tensor in taken.items()}, assign=True)
    return model.eval().requires_grad_(False)


def _placed(weights: Mapping[str, Tensor], ours: list[str]) -> tuple[dict[str, Tensor], set[str], list[str]]:
    """Our names with their weights, the released names that were used, and what is wrong."""
    taken: dict[str, Tensor] = {}
    known: set[str] = set()
    problems: list[str] = []
    for name in ours:
        theirs = originals(name)
        known.update(theirs)
        there = [weights[n] for n in theirs if n in weights]
        problems += [f"missing: {n}" for n in theirs if n not in weights and n not in (*DUPLICATES, *OPTIONAL)]
        if not there:
            there = [torch.tensor(TEMPERATURE)] if name == "temperature" else []
        # A scalar is stored with or without a dimension of one.
        taken.update({name: there[0].reshape(()) if name == "temperature" else there[0]} if there else {})
        problems += [
            f"not the same as what it is tied to: {n}"
            for n in theirs
            if n in weights and not torch.equal(weights[n], there[0])
        ]
    return taken, known, problems


def import_model(
    path: Path, vocab: Path, target: Path, *, image_size: int | None = None, prompt: str = "a picture of "
) -> MED:
    """Reads released weights and writes them as a model folder of ours.

    Args:
        path: as :func:`read` takes it. vocab: folder with BERT's ``vocab.txt``.
        target: the folder to write. image_size: px, if it is to be another than the weights'.

    Raises:
        ModelError: as :func:`read`, :func:`architecture` and :func:`build`.
    """
    released = read(path)
    config = architecture(released, prompt=prompt)
    if image_size is not None:
        config = replace(config, vision=replace(config.vision, image_size=image_size))
    model = build(released, MEDTokenizer.load(vocab), config)
    model.save(target)
    return model


def original_weights(model: MED) -> dict[str, Tensor]:
    """The model's weights under the names of the original code; a shared weight under each of its names.

    Raises:
        ModelError: BLIP has no such model.
    """
    if model.config.vision.stem != "patch":
        raise ModelError(
            f"BLIP's vision has no {model.config.vision.stem} stem, so no code of others could read this model",
            where="vision.stem",
            mend="Export a model whose stem is patch.",
        )
    return {there: tensor for name, tensor in model.state_dict().items() for there in originals(name)}


def export_original(model: MED, file: Path) -> None:
    """Writes a ``.pth`` as the original code reads it: ``{"model": weights}``.

    Raises:
        ModelError: BLIP has no such model.
    """
    if model.config.holds == "both" and model.config.shared in ("none", "all_but_cross_attention"):
        raise ModelError(
            f"the original code ties all but self-attention: it would load another model than one that shares "
            f"{model.config.shared}",
            where="shared",
            mend="Export captioner and filter apart: --layout huggingface --as captioner, then --as filter.",
        )
    weights = {name: tensor.clone() for name, tensor in original_weights(model).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    torch.save({"model": weights}, temporary)
    temporary.replace(file)


def export_huggingface(model: MED, folder: Path, *, holds: Holds) -> None:
    """Writes a folder for ``BlipForConditionalGeneration`` or ``BlipForImageTextRetrieval``.

    Args:
        holds: ``captioner`` or ``filter``: which of the two.

    Raises:
        ModelError: the model does not hold it, ``both`` was asked for, for which there is no class, or BLIP has no
            such model.
    """
    if holds == "both" or model.config.holds not in ("both", holds):
        raise ModelError(
            f"a {model.config.holds} model cannot be written as {holds}", where="--as", mend="Say captioner or filter."
        )
    prefixes = ("visual_encoder.", *(("text_decoder.",) if holds == "captioner" else _FILTER))
    weights = {
        to_huggingface(name): tensor.detach().float().clone()
        for name, tensor in original_weights(model).items()
        if name.startswith(prefixes)
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config
    side, vision, text = config.vision.image_size, asdict(config.vision), asdict(config.text)
    BlipConfig(
        vision_config={
            "image_size": side,
            "patch_size": vision["patch_size"],
            "hidden_size": vision["width"],
            "intermediate_size": 4 * vision["width"],
            "num_hidden_layers": vision["depth"],
            "num_attention_heads": vision["heads"],
            "layer_norm_eps": VISION_EPS,
        },
        text_config={
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "encoder_hidden_size": vision["width"],
            "intermediate_size": text["ffn_width"],
            "num_hidden_layers": text["depth"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["max_positions"],
            "bos_token_id": model.tokenizer.dec,
            "eos_token_id": model.tokenizer.sep,
            "sep_token_id": model.tokenizer.sep,
            "pad_token_id": model.tokenizer.pad,
        },
        image_text_hidden_size=config.embed_dim,
        architectures=["BlipForConditionalGeneration" if holds == "captioner" else "BlipForImageTextRetrieval"],
    ).save_pretrained(folder)
    model.tokenizer.save(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    BlipImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)


_FILTER = ("text_encoder.", "vision_proj.", "text_proj.", "itm_head.")

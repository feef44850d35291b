"""A whole MED that starts from encoders which others have trained: a ViT of timm and a BERT (paper, section 4.1).

Every weight of theirs must find its place, apart from their own heads; what they do not give stays random, and is told.
Knows local files; ``hub`` fetches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor

from capfilt.errors import ModelError
from capfilt.med.model import MED, resized_positions
from capfilt.med.names import originals
from capfilt.med.text import LAYER_NORM_EPS
from capfilt.med.weights import read_json, read_weights, weights_file

SCRATCH = "random"
_VISION_HEADS = ("head.", "pre_logits.")
"""timm's classifier, which no MED has."""
_TEXT_HEADS = re.compile(
    r"pooler\..*|cls\.seq_relationship\..*|cls\.predictions\.decoder\..*|(.*\.)?position_ids"
    r"|embeddings\.token_type_embeddings\.weight"
)
"""What of a BERT has no place of its own: its heads but LM's transform and bias, tied copies, and the segments."""
_SEGMENTS = "embeddings.token_type_embeddings.weight"
_OLD_NORM = {"gamma": "weight", "beta": "bias"}
"""How the first BERTs call a norm's weights."""
_PARTS = (
    (re.compile(r"vision\."), "image encoder"),
    (re.compile(r"text\.embeddings\."), "text embeddings"),
    (re.compile(r"text\.layers\.\d+\.self_attention\."), "text self-attention"),
    (re.compile(r"text\.layers\.\d+\.cross_attention\."), "text cross-attention"),
    (re.compile(r"text\.layers\.\d+\.feed_forward\."), "text feed-forward"),
    (re.compile(r"text\.lm_head\."), "LM head"),
    (re.compile(r"(vision|text)_proj\."), "ITC projections"),
    (re.compile(r"itm_head\."), "ITM head"),
)


@dataclass(frozen=True)
class Begun:
    """Where one part of a model is from."""

    part: str
    """Such as ``text cross-attention``."""
    source: str
    """The file, or ``random``."""
    parameters: int
    """Numbers in it."""


def begin(model: MED, *, vision: Path | None = None, text: Path | None = None) -> list[Begun]:
    """Put weights of trained encoders into a new model, in place.

    Args:
        model: holds both parts.
        vision: file or folder of a ViT, named as timm names it; a classifier is left out and position embeddings are
            resized bicubically where the image size differs.
        text: folder of a BERT with ``vocab.txt``. Both directions start from it, and so does LM's head where the
            folder has one. Words are found by their piece, so that a smaller vocabulary does. BERT's embedding of
            the first segment, which every text of one segment has added, is added to the positions: the text encoder
            then computes what BERT does. (BLIP's published code leaves it out.)

    Returns:
        Each part and its source, in the order of the model; a part of which rows are random stands twice.

    Raises:
        ModelError: a file cannot be read, or does not fit the architecture; lists every name.
    """
    random = {name: tensor.numel() for name, tensor in model.state_dict().items() if name != "temperature"}
    taken: list[tuple[str, str, int]] = []
    for source, found in (
        (vision, _vision(model, vision) if vision else {}),
        (text, _text(model, text) if text else {}),
    ):
        for name, count in found.items():
            taken.append((_part(name), str(source), count))
            random[name] -= count
    taken += [(_part(name), SCRATCH, count) for name, count in random.items() if count]
    return _summed(taken)


def _summed(taken: list[tuple[str, str, int]]) -> list[Begun]:
    order = [part for _, part in _PARTS]
    sums: dict[tuple[str, str], int] = {}
    for part, source, count in taken:
        sums[part, source] = sums.get((part, source), 0) + count
    rows = [Begun(part, source, count) for (part, source), count in sums.items()]
    return sorted(rows, key=lambda row: order.index(row.part))


def _part(name: str) -> str:
    return next(part for pattern, part in _PARTS if pattern.match(name))


def _vision(model: MED, path: Path) -> dict[str, int]:
    """Names of ours that the ViT gave, with how many numbers."""
    file, config = weights_file(path), model.config.vision
    if config.stem != "patch":
        raise ModelError(f"a ViT has no {config.stem} stem", where="vision.stem", mend="Take a model of stem patch.")
    told = file.parent / "config.json"
    if told.is_file():
        _check_vision(model, told)
    theirs = {n: t for n, t in read_weights(file).items() if not n.startswith(_VISION_HEADS)}
    side = (theirs["pos_embed"].shape[1] - 1) ** 0.5 if "pos_embed" in theirs else 0.5
    if side.is_integer() and theirs["pos_embed"].shape[2] == config.width:
        theirs["pos_embed"] = resized_positions(theirs["pos_embed"], config)
    _put(dict(model.vision.named_parameters()), theirs, file=file)
    return {f"vision.{name}": tensor.numel() for name, tensor in theirs.items()}


def _check_vision(model: MED, told: Path) -> None:
    """Heads and eps leave no trace in the weights' shapes."""
    name = read_json(told).get("architecture")
    if not isinstance(name, str) or not timm.is_model(name):
        return
    with torch.device("meta"):
        net = timm.create_model(name, pretrained=False)
    heads = getattr(getattr(getattr(net, "blocks", [None])[0], "attn", None), "num_heads", None)
    eps = getattr(getattr(net, "norm", None), "eps", None)
    mine = (model.config.vision.heads, 1e-6)
    if (heads, eps) != mine:
        raise ModelError(
            f"{name} has {heads} heads and a LayerNorm eps of {eps}, the model {mine[0]} and {mine[1]}",
            where=str(told),
            mend="Take a ViT of the model's kind.",
        )


def _text(model: MED, folder: Path) -> dict[str, int]:
    """Names of ours that the BERT gave, with how many numbers."""
    file = weights_file(folder)
    told = file.parent / "config.json"
    if told.is_file():
        _check_text(model, told)
    theirs = {_bert_name(name): tensor for name, tensor in read_weights(file).items()}
    rows = _rows(model, file.parent)
    mine: dict[str, Tensor] = {}
    there: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for name, tensor in model.text.named_parameters():
        wanted = _wanted(f"text.{name}")
        if wanted is None or (wanted.startswith("cls.") and not any(n.startswith("cls.predictions.") for n in theirs)):
            continue
        mine[name] = tensor
        if wanted in theirs:
            there[name] = _fitted(wanted, theirs, tensor, rows)
            counts[f"text.{name}"] = there[name].numel()
            if wanted in _BY_PIECE:
                counts[f"text.{name}"] = sum(row is not None for row in rows) * there[name][0].numel()
    known = {_wanted(f"text.{name}") for name in mine}
    unknown = {f"BERT's {n}": t for n, t in theirs.items() if n not in known and not _TEXT_HEADS.fullmatch(n)}
    _put(mine, {**there, **unknown}, file=file)
    return counts


_BY_PIECE = ("embeddings.word_embeddings.weight", "cls.predictions.bias")
_POSITIONS = "embeddings.position_embeddings.weight"


def _wanted(name: str) -> str | None:
    """BERT's name for a weight of ours; None for what no BERT has."""
    there = originals(name)[0]
    if ".crossattention." in there:
        return None
    return re.sub(r"^(text_encoder\.|text_decoder\.bert\.|text_decoder\.(?=cls\.))", "", there)


def _bert_name(name: str) -> str:
    head, _, tail = name.removeprefix("bert.").rpartition(".")
    return f"{head}.{_OLD_NORM.get(tail, tail)}" if head else tail


def _fitted(wanted: str, theirs: Mapping[str, Tensor], mine: Tensor, rows: list[int | None]) -> Tensor:
    """Their weight in the shape of ours where there is a rule for it: words by piece, the first positions."""
    found = theirs[wanted].float()
    if wanted in _BY_PIECE and found.shape[1:] == mine.shape[1:]:
        out = mine.detach().clone()
        for row, origin in enumerate(rows):
            if origin is not None:
                out[row] = found[origin]
        return out
    if wanted == _POSITIONS and found.shape[1:] == mine.shape[1:] and len(found) >= len(mine):
        segments = theirs.get(_SEGMENTS)
        return found[: len(mine)] + (0.0 if segments is None else segments[0].float())
    return found


def _rows(model: MED, folder: Path) -> list[int | None]:
    """For each id of ours the row of the same piece in theirs; [DEC] and [ENC] have none."""
    try:
        text = (folder / "vocab.txt").read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(
            "no vocab.txt there", where=str(folder), mend="Put the BERT's vocab.txt beside its weights."
        ) from error
    ids = {piece.rstrip("\r"): row for row, piece in enumerate(text.split("\n")) if piece.strip()}
    return [*(ids.get(piece) for piece in model.tokenizer.vocab), None, None]


def _check_text(model: MED, told: Path) -> None:
    """What leaves no trace in the weights' shapes."""
    config, data = model.config.text, read_json(told)
    mine = {
        "num_attention_heads": config.heads,
        "layer_norm_eps": LAYER_NORM_EPS,
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
    }
    wrong = [
        f"{name} is {data[name]}, the model's {want}" for name, want in mine.items() if data.get(name, want) != want
    ]
    if wrong:
        raise ModelError("; ".join(wrong), where=str(told), mend="Take a BERT of the model's kind.")


def _put(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], *, file: Path) -> None:
    problems = [f"missing {name}" for name in mine if name not in theirs]
    problems += [f"unknown {name}" for name in theirs if name not in mine]
    problems += [
        f"{name} is {tuple(theirs[name].shape)}, should be {tuple(tensor.shape)}"
        for name, tensor in mine.items()
        if name in theirs and theirs[name].shape != tensor.shape
    ]
    if problems:
        raise ModelError(
            "the encoder does not fit the model: " + "; ".join(problems),
            where=str(file),
            mend="Take an encoder of the model's width and depth.",
        )
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(theirs[name])

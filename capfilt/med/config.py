"""The architecture of a MED as data, read from and written to ``model.yaml``. Loads no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from capfilt.errors import ModelError

Sharing = Literal["all", "all_but_cross_attention", "all_but_self_attention", "none"]
Holds = Literal["both", "captioner", "filter"]
HOLDS: tuple[Holds, ...] = ("both", "captioner", "filter")
Stem = Literal["patch", "conv", "efficientnet_lite0"]
STEMS: tuple[Stem, ...] = ("patch", "conv", "efficientnet_lite0")
LITE_PATCH = 32
"""Pixels of the side of what an EfficientNet-Lite0 makes one place of."""
Compat = Literal["none", "huggingface"]
COMPAT: tuple[Compat, ...] = ("none", "huggingface")
SHARING: tuple[Sharing, ...] = ("all", "all_but_cross_attention", "all_but_self_attention", "none")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The image encoder, a ViT (paper, section 3.1). Defaults: ViT-B/16 at 224 px."""

    image_size: int = 224
    """Side of the square input in px; a multiple of ``patch_size``."""
    patch_size: int = 16
    """Side of a patch in px."""
    width: int = 768
    """Channels; a multiple of ``heads``."""
    depth: int = 12
    """Blocks."""
    heads: int = 12
    """Attention heads."""
    drop_path: float = 0.0
    """Stochastic depth in training, in [0, 1); 0.1 for ViT-L."""
    stem: Stem = "patch"
    """How pixels become patches: ``patch``, one linear map (ViT, BLIP), or ``conv``, 3x3 convolutions of stride 2
    (Xiao et al. 2021), with which a small ViT learns far sooner from few pictures; ``patch_size`` a power of 2. Or
    ``efficientnet_lite0``, that network (Tan and Le 2019) up to its sixth stage, whose ImageNet weights are
    given at the start: a hybrid ViT (Dosovitskiy et al. 2021, section 3.1); ``patch_size`` 32."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text stack, BERT-like. Defaults: BERT-base with [DEC] and [ENC]."""

    vocab_size: int = 30524
    """Word pieces, [DEC] and [ENC] counted."""
    width: int = 768
    """Channels; a multiple of ``heads``."""
    depth: int = 12
    """Layers."""
    heads: int = 12
    """Attention heads."""
    ffn_width: int = 3072
    """Channels inside the feed-forward network."""
    max_positions: int = 512
    """Longest text in tokens."""
    dropout: float = 0.1
    """Of embeddings, attention and residuals in training, in [0, 1)."""


@dataclass(frozen=True, kw_only=True)
class MEDConfig:
    """A multimodal mixture of encoder-decoder (paper, Figure 2)."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    """The image encoder."""
    text: TextConfig = field(default_factory=TextConfig)
    """The text stack, one for all three modes."""
    embed_dim: int = 256
    """Channels of the space in which ITC compares image and text."""
    shared: Sharing = "all_but_self_attention"
    """What text encoder and decoder share (paper, Table 3)."""
    holds: Holds = "both"
    """What the model can do: ``captioner`` has no text encoder and no heads of ITC and ITM, ``filter`` no decoder."""
    compat: Compat = "none"
    """``huggingface`` leaves [CLS] in position 0 when it matches, as Hugging Face's and the original ``BLIP_ITM`` do,
    though BLIP was trained with [ENC] there."""
    prompt: str = "a picture of "
    """What the captioner's texts begin with; empty for none. Not part of the caption it gives."""

    def __post_init__(self) -> None:
        _check(self.vision.image_size % self.vision.patch_size == 0, "vision.image_size", "a multiple of patch_size")
        _check(self.vision.stem in STEMS, "vision.stem", f"one of {', '.join(STEMS)}")
        patch = self.vision.patch_size
        _check(
            self.vision.stem == "patch" or patch & (patch - 1) == 0, "vision.patch_size", "a power of 2 for a conv stem"
        )
        lite = self.vision.stem == "efficientnet_lite0"
        _check(not lite or patch == LITE_PATCH, "vision.patch_size", f"{LITE_PATCH} for an EfficientNet-Lite0")
        _check(self.vision.width % self.vision.heads == 0, "vision.width", "a multiple of vision.heads")
        _check(self.text.width % self.text.heads == 0, "text.width", "a multiple of text.heads")
        _check(self.holds in HOLDS, "holds", f"one of {', '.join(HOLDS)}")
        _check(self.compat in COMPAT, "compat", f"one of {', '.join(COMPAT)}")
        _check(self.shared in SHARING, "shared", f"one of {', '.join(SHARING)}")

    @classmethod
    def load(cls, folder: Path) -> MEDConfig:
        """Read ``folder/model.yaml``.

        Raises:
            ModelError: the file is missing, is not YAML, or names an unknown or unfitting field.
        """
        file = folder / "model.yaml"
        try:
            data = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ModelError(
                "no model.yaml there", where=str(folder), mend="Name a model folder that has one."
            ) from error
        except yaml.YAMLError as error:
            raise ModelError(f"not YAML: {error}", where=str(file), mend="Mend the file.") from error
        return cls.from_dict(data, where=str(file))

    @classmethod
    def from_dict(cls, data: Any, *, where: str) -> MEDConfig:
        """Build from plain values; absent fields take their defaults."""
        top = _known(cls, data, where)
        if "vision" in top:
            top["vision"] = VisionConfig(**_known(VisionConfig, top["vision"], f"{where}: vision"))
        if "text" in top:
            top["text"] = TextConfig(**_known(TextConfig, top["text"], f"{where}: text"))
        return cls(**top)

    def save(self, folder: Path) -> None:
        """Write ``folder/model.yaml`` with every field."""
        text = yaml.safe_dump(asdict(self), sort_keys=False)
        (folder / "model.yaml").write_text(text, encoding="utf-8")


def _known(kind: type[Any], data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ModelError("not a table of fields", where=where, mend="Mend the file.")
    kinds = {f.name: f.default for f in fields(kind)}
    unknown = sorted(set(data) - set(kinds))
    if unknown:
        raise ModelError(
            f"unknown field {', '.join(map(str, unknown))}", where=where, mend=f"Known are: {', '.join(kinds)}."
        )
    for name, value in data.items():
        default = kinds[name]
        if isinstance(default, int | float | str) and not _fits(value, default):
            raise ModelError(
                f"{name} is {value!r}", where=where, mend=f"Give a value like {default!r} that is not negative."
            )
    return dict(data)


def _fits(value: Any, default: float | str) -> bool:
    if isinstance(default, str):
        return isinstance(value, str)
    kinds = int if isinstance(default, int) else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= (1 if kinds is int else 0)


def _check(good: bool, name: str, must: str) -> None:
    if not good:
        raise ModelError(f"{name} must be {must}", where="model.yaml", mend=f"Change {name}.")


def vocabulary(folder: Path) -> Path:
    """The file of a model's vocabulary: its own, else that of the folder above, if there is one."""
    own, family = folder / "vocab.txt", folder.resolve().parent / "vocab.txt"
    return family if family.is_file() and not own.exists() else own

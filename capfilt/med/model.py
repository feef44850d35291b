"""The MED: image encoder, text stack and the four heads (paper, section 3.1 and Figure 2).

Shapes: B batch, L text tokens, N image tokens (patches and [CLS]), D text width, V vision width,
P width of the contrastive space, W words.

Knows no data, no optimiser and no decoding; see ``objectives``, ``tasks`` and ``decoding``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from capfilt.errors import ModelError
from capfilt.med.config import Holds, MEDConfig, VisionConfig
from capfilt.med.int8 import quantise
from capfilt.med.text import ImageKeys, TextStack
from capfilt.med.tokenizer import MEDTokenizer, Tokens

TEMPERATURE = (0.001, 0.5)
"""The range the learned temperature is clamped to."""
INIT_STD = 0.02
"""Of every weight of the text stack and the heads; larger embeddings start LM far above ln(W)."""


def image_encoder(config: VisionConfig) -> VisionTransformer:
    """timm's ViT with BLIP's settings: class token, qkv bias, LayerNorm eps 1e-6, no pooling, no classifier."""
    return VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        qkv_bias=True,
        num_classes=0,
        global_pool="",
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        drop_path_rate=config.drop_path,
        embed_layer=STEMS[config.stem],
    )


class PatchStem(PatchEmbed):
    """The one projection of each patch; on a GPU as a matrix product, whose units a convolution of that size misses."""

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Image tokens (B, N, V), without [CLS]."""
        if not pixels_BCHW.is_cuda or not isinstance(self.proj, nn.Conv2d):
            out: Tensor = super().forward(pixels_BCHW)  # type: ignore[no-untyped-call]
            return out
        return patch_product(pixels_BCHW, self.proj)


def patch_product(pixels_BCHW: Tensor, proj: nn.Conv2d) -> Tensor:
    """What a convolution of one step a patch gives, as one matrix product: (B, N, V), patches row by row."""
    p = proj.kernel_size[0]
    b, c, h, w = pixels_BCHW.shape
    patches = pixels_BCHW.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5)
    return F.linear(patches.reshape(b, -1, c * p * p), proj.weight.flatten(1), proj.bias)


class ConvStem(PatchEmbed):
    """Convolutions of 3x3 and stride 2 in place of the one patch projection (Xiao et al. 2021, "Early Convolutions
    Help Transformers See Better"): each halves the picture, the last gives ``embed_dim`` channels.

    Normalised by group, not by batch: nothing is learned that a momentum twin would not follow.
    """

    def __init__(self, *, patch_size: int, embed_dim: int, in_chans: int = 3, bias: bool = True, **rest: Any) -> None:
        super().__init__(patch_size=patch_size, embed_dim=embed_dim, in_chans=in_chans, bias=bias, **rest)
        halvings = patch_size.bit_length() - 1
        layers: list[nn.Module] = []
        channels = in_chans
        for left in reversed(range(halvings)):
            wider = embed_dim >> left
            layers += [
                nn.Conv2d(channels, wider, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, wider),
                nn.GELU(),
            ]
            channels = wider
        stem = nn.Sequential(*layers, nn.Conv2d(channels, embed_dim, 1, bias=bias))
        self.proj = stem  # type: ignore[assignment]  # timm declares the one convolution


class Backbone(nn.Module):
    """The first six stages of timm's EfficientNet-Lite0: (B, 3, H, W) to (B, 192, H / 32, W / 32).

    Its batch norms are folded into the convolutions before them, which saves passes over the maps; the running means
    that its weights came with are then fixed, in training too.
    """

    channels = 192
    stages = 6

    def __init__(self) -> None:
        super().__init__()
        net: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0, global_pool="")
        net.blocks, net.conv_head, net.bn2 = net.blocks[: self.stages], nn.Identity(), nn.Identity()
        _fold_norms(net)
        self.net = net

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Feature maps."""
        # CPUs convolve faster, depthwise above all, where a pixel's channels lie side by side.
        out: Tensor = self.net.forward_features(pixels_BCHW.contiguous(memory_format=torch.channels_last))
        return out


def _fold_norms(module: nn.Module) -> None:
    """Give each convolution with a norm behind it a bias in place of that norm."""
    before: nn.Module | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, BatchNormAct2d) and isinstance(before, nn.Conv2d):
            before.bias = nn.Parameter(torch.zeros(before.out_channels))
            setattr(module, name, child.act)
        elif isinstance(child, nn.Conv2d):
            before = child
        else:
            _fold_norms(child)


class LiteStem(PatchEmbed):
    """An EfficientNet-Lite0 in place of the patch projection; each place of its map is a patch."""

    def __init__(self, *, embed_dim: int, bias: bool = True, **rest: Any) -> None:
        super().__init__(embed_dim=embed_dim, bias=bias, **rest)
        self.proj = nn.Sequential(  # type: ignore[assignment]  # timm declares the one convolution
            OrderedDict(backbone=Backbone(), out=nn.Conv2d(Backbone.channels, embed_dim, 1, bias=bias))
        )


STEMS: dict[str, type[PatchEmbed]] = {"patch": PatchStem, "conv": ConvStem, "efficientnet_lite0": LiteStem}
"""By ``vision.stem``."""
BACKBONE = "vision.patch_embed.proj.backbone.net"
"""Where the EfficientNet is in a MED."""


class MED(nn.Module):
    """The model of the paper; ``encode``, ``match`` and ``decode`` are its three functionalities.

    >>> import capfilt
    >>> from capfilt.catalog import model_folder
    >>> model = capfilt.MED.load(model_folder("med-mini/filter"))
    >>> model.embed_text(model.tokenizer(["an apple", "a guitar"], max_tokens=35)).shape
    torch.Size([2, 96])

    Args:
        config: the architecture.
        tokenizer: must give ids below ``config.text.vocab_size``.

    Raises:
        ModelError: the vocabulary does not fit the config.
    """

    def __init__(self, config: MEDConfig, tokenizer: MEDTokenizer) -> None:
        super().__init__()
        if tokenizer.size != config.text.vocab_size:
            raise ModelError(
                f"vocab.txt gives {tokenizer.size} ids with [DEC] and [ENC], model.yaml says {config.text.vocab_size}",
                where="text.vocab_size",
                mend="Use the vocabulary that the model was trained with.",
            )
        self.config = config
        self.tokenizer = tokenizer
        self.vision = image_encoder(config.vision)
        self.text = TextStack(config.text, config.vision.width, config.shared, config.holds)
        heads: list[nn.Module] = []
        if config.holds != "captioner":
            self.vision_proj = nn.Linear(config.vision.width, config.embed_dim)
            self.text_proj = nn.Linear(config.text.width, config.embed_dim)
            self.itm_head = nn.Linear(config.text.width, 2)
            self.temperature = nn.Parameter(torch.tensor(0.07))
            heads = [self.vision_proj, self.text_proj, self.itm_head]
        for part in (self.text, *heads):
            part.apply(_initialise)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        """Normalised pixels (B, 3, image_size, image_size) to image tokens (B, N, V), [CLS] first."""
        out: Tensor = self.vision.forward_features(pixels_BCHW)
        return out

    def encode_text(self, tokens: Tokens) -> Tensor:
        """Text alone, beginning with [CLS]: (B, L, D)."""
        return self.text.read(tokens.ids, tokens.mask)

    def embed_image(self, image_BNV: Tensor) -> Tensor:
        """Image tokens to unit vectors (B, P)."""
        return F.normalize(self.vision_proj(image_BNV[:, 0]), dim=-1)

    def embed_text(self, tokens: Tokens) -> Tensor:
        """Texts to unit vectors (B, P)."""
        return F.normalize(self.text_proj(self.encode_text(tokens)[:, 0]), dim=-1)

    def match(self, image: Tensor | ImageKeys, tokens: Tokens) -> Tensor:
        """ITM logits (B, 2), unmatched and matched. Position 0 becomes [ENC], as in training (see ``compat``).

        Args:
            image: each text's image: tokens (B, N, V), or keys of B rows where an image has several texts.
            tokens: B texts.
        """
        marked = tokens if self.config.compat == "huggingface" else tokens.begin_with(self.tokenizer.enc)
        states_BLD = self.text.read(marked.ids, marked.mask, image)
        out: Tensor = self.itm_head(states_BLD[:, 0])
        return out

    def decode(self, image: Tensor | ImageKeys, tokens: Tokens) -> Tensor:
        """LM logits (B, L, W) of the next token. Position 0 becomes [DEC]. Arguments as of :meth:`match`."""
        return self.text.write(tokens.begin_with(self.tokenizer.dec).ids, image)

    def save(self, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
        """Write ``model.yaml``, ``vocab.txt`` and ``model.safetensors`` into a folder.

        Args:
            folder: made if absent.
            dtype: of the stored weights; float16 halves the file.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder)
        self.tokenizer.save(folder)
        weights = {name: t.detach().to("cpu", dtype).contiguous() for name, t in self.state_dict().items()}
        temporary = folder / ".model.safetensors"
        save_file(weights, temporary, metadata={"format": "pt"})
        temporary.replace(folder / "model.safetensors")

    def only(self, holds: Holds) -> MED:
        """The part of the model that captions or the part that filters, with weights of its own.

        Raises:
            ModelError: the model does not hold that part.
        """
        if self.config.holds not in ("both", holds):
            raise ModelError(f"a {self.config.holds} holds no {holds}", where="holds", mend="Name a model that does.")
        with torch.device("meta"):
            part = MED(replace(self.config, holds=holds), self.tokenizer)
        mine = self.state_dict()
        direction = ".decode." if holds == "captioner" else ".encode."
        taken = {n: mine[n if n in mine else n.replace(direction, ".both.", 1)].clone() for n in part.state_dict()}
        part.load_state_dict(taken, assign=True)
        return part.eval().requires_grad_(False)

    def resized(self, image_size: int) -> MED:
        """The same model for pictures of another size (paper, section 4.1: pretrained at 224, finetuned at 384).

        Args:
            image_size: px, a multiple of the patch size; position embeddings are resized bicubically.
        """
        vision = replace(self.config.vision, image_size=image_size)
        with torch.device("meta"):
            model = MED(replace(self.config, vision=vision), self.tokenizer)
        weights = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        weights["vision.pos_embed"] = resized_positions(weights["vision.pos_embed"], vision)
        model.load_state_dict(weights, assign=True)
        return model.train(self.training)

    @classmethod
    def load(cls, folder: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Self:
        """A model saved by :meth:`save`, in eval mode.

        Args:
            folder: of the model.
            device: where its weights go.
            dtype: of its weights; ``torch.int8``, on a CPU, takes 8-bit layers where a whole picture passes (the vision
                encoder's, and keys and values of cross-attention), and float32 elsewhere.

        Raises:
            ModelError: a file is missing or damaged, or names and shapes do not fit ``model.yaml``; lists them. Or int8
                is asked for elsewhere than on a CPU.
        """
        if dtype == torch.int8:
            if torch.device(device).type != "cpu":
                raise ModelError(
                    "8-bit layers are for CPUs", where=f"{folder}, on {device}", mend="Take dtype: bfloat16 on a GPU."
                )
            model = cls.load(folder, device=device)
            quantise(model, _of_whole_pictures)
            return model
        config, tokenizer = MEDConfig.load(folder), MEDTokenizer.load(folder)
        file = folder / "model.safetensors"
        try:
            weights = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"cannot be read: {error}", where=str(file), mend="Copy the model folder again, whole."
            ) from error
        with torch.device("meta"):
            model = cls(config, tokenizer)
        check_fit(model, weights, where=str(file))
        model.load_state_dict({name: t.to(device, dtype) for name, t in weights.items()}, assign=True)
        return model.eval().requires_grad_(False)

    @classmethod
    def new(cls, folder: Path) -> Self:
        """A whole model with random weights from ``folder/model.yaml`` and ``folder/vocab.txt``.

        It holds both parts, whatever the folder's weights hold: only the architecture is taken.
        """
        return cls(replace(MEDConfig.load(folder), holds="both"), MEDTokenizer.load(folder))


def _of_whole_pictures(layer: str) -> bool:
    """Whether the linear layer of this name works on all tokens of a picture: such layers take nearly all the time."""
    return layer.startswith("vision.blocks.") or ("cross_attention" in layer and layer.endswith((".key", ".value")))


def resized_positions(positions_1NV: Tensor, config: VisionConfig) -> Tensor:
    """Position embeddings for another image size: the grid bicubically, the class token's as it is.

    Args:
        positions_1NV: (1, 1 + side * side, V).
    """
    side, wanted = round((positions_1NV.shape[1] - 1) ** 0.5), config.image_size // config.patch_size
    if side == wanted:
        return positions_1NV
    grid = positions_1NV[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(wanted, wanted), mode="bicubic", align_corners=False)
    return torch.cat([positions_1NV[:, :1].float(), grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def check_fit(model: nn.Module, weights: dict[str, Tensor], *, where: str) -> None:
    """Names and shapes must agree exactly.

    Raises:
        ModelError: lists what is missing, unknown or of another shape.
    """
    wanted = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in weights.items()}
    problems = [f"missing {name}" for name in wanted if name not in found]
    problems += [f"unknown {name}" for name in found if name not in wanted]
    problems += [
        f"{name} is {found[name]}, should be {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    if problems:
        raise ModelError(
            "the weights do not fit model.yaml: " + "; ".join(problems),
            where=where,
            mend="Use the model.yaml that the weights were made with.",
        )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()

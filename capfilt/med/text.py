"""The text transformer: one stack, three modes (paper, Figure 2).

Shapes: B batch, L text tokens, N image tokens, D text width, V vision width, H heads, E width of a head.

``encode`` reads text alone with bidirectional self-attention; ``match`` adds cross-attention to the
image; ``decode`` takes causal self-attention and the same cross-attention. Which layers the two
directions share is one setting. Post-norm residuals and erf-GELU, as BERT has them.
Knows nothing of tokens' meaning, of images' origin or of losses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from capfilt.errors import ModelError
from capfilt.med.config import Holds, Sharing, TextConfig

LAYER_NORM_EPS = 1e-12
Direction = Literal["encode", "decode"]
KeysValues = tuple[Tensor, Tensor]
"""Keys and values (B, H, N, E)."""


DIRECTIONS: dict[Holds, tuple[Direction, ...]] = {
    "both": ("encode", "decode"),
    "filter": ("encode",),
    "captioner": ("decode",),
}
"""Which directions a model needs for what it holds."""


def branch(make: Callable[[], nn.Module], *, shared: bool, holds: Holds = "both") -> nn.ModuleDict:
    """One module for both directions, or one for each that is held. State dicts then hold each weight once."""
    directions = DIRECTIONS[holds]
    if shared and len(directions) > 1:
        return nn.ModuleDict({"both": make()})
    return nn.ModuleDict({direction: make() for direction in directions})


def pick(choice: nn.ModuleDict, direction: Direction) -> nn.Module:
    """The module that serves this direction.

    Raises:
        ModelError: the model does not hold it.
    """
    if "both" in choice:
        return choice["both"]
    if direction not in choice:
        lacks = "text encoder, so it cannot score" if direction == "encode" else "text decoder, so it cannot caption"
        raise ModelError(f"this model has no {lacks}", where="holds", mend="Name a model that can.")
    return choice[direction]


@dataclass
class LayerCache:
    """Keys and values of one layer while decoding.

    ``keys``, ``values``: (R, H, max_length, E), filled up to the step, R = B * K with K texts an image;
    ``image_keys``, ``image_values``: (B, H, N, E), computed once an image and read by all its texts.
    """

    keys: Tensor
    values: Tensor
    image_keys: Tensor
    image_values: Tensor

    def keep(self, rows_R: Tensor, images_B: Tensor) -> None:
        """Leaves only these rows and their images (int64 indices), in this order."""
        self.keys, self.values = self.keys[rows_R], self.values[rows_R]
        self.image_keys, self.image_values = self.image_keys[images_B], self.image_values[images_B]


class Attention(nn.Module):
    """Multi-head attention with its output projection and post-norm residual.

    Args:
        width: D. kv_width: width of what keys and values are made from. heads: H.
        dropout: of the attention weights and of the output.
    """

    def __init__(self, width: int, kv_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(kv_width, width)
        self.value = nn.Linear(kv_width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def keys_values(self, source_BND: Tensor) -> KeysValues:
        """Keys and values of a source."""
        return self._split(self.key(source_BND)), self._split(self.value(source_BND))

    def forward(
        self,
        x_BLD: Tensor,
        keys_BHNE: Tensor,
        values_BHNE: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Attend and add.

        Args:
            x_BLD: B texts; or of K times as many, those of one image side by side, where there are B rows of keys:
                all of them then ask the same keys at once, which are read once and not copied.
            keys_BHNE: as of :meth:`keys_values`. values_BHNE: likewise.
            mask: bool, broadcastable to (B, H, L, N), true where attention may look; not with K above 1.
            causal: each token sees those before it only; not with K above 1.
        """
        q_BLD: Tensor = self.query(x_BLD)
        if len(keys_BHNE) != len(x_BLD):
            q_BLD = q_BLD.reshape(len(keys_BHNE), -1, q_BLD.shape[-1])
        q_BHLE = self._split(q_BLD)
        p = self.attention_dropout if self.training else 0.0
        y_BHLE = F.scaled_dot_product_attention(
            q_BHLE, keys_BHNE, values_BHNE, attn_mask=mask, dropout_p=p, is_causal=causal
        )
        y_BLD = y_BHLE.transpose(1, 2).reshape(x_BLD.shape)
        out: Tensor = self.norm(x_BLD + self.dropout(self.out(y_BLD)))
        return out

    def _split(self, x_BLD: Tensor) -> Tensor:
        # The width of a head is said, for of no rows at all it cannot be told.
        return x_BLD.view(*x_BLD.shape[:-1], self.heads, x_BLD.shape[-1] // self.heads).transpose(1, 2)


@dataclass(frozen=True)
class ImageKeys:
    """Images as cross-attention reads them: its keys and values, one row an image, made layer by layer when asked for.

    ``of`` makes them for a cross-attention.
    """

    of: Callable[[Attention], KeysValues]

    @classmethod
    def from_tokens(cls, image_BNV: Tensor) -> ImageKeys:
        """Those of image tokens."""
        return cls(lambda cross: cross.keys_values(image_BNV))

    def kept(self) -> ImageKeys:
        """Made once and held on to, for all that ask: ITM, and LM too where the directions share a cross-attention."""
        return ImageKeys(functools.cache(self.of))

    def rows(self, rows_R: Tensor) -> ImageKeys:
        """Those of the chosen images: int64 (R,), for each text the row of its image."""

        def chosen(cross: Attention) -> KeysValues:
            keys, values = self.of(cross)
            # Plain indexing adds gradients up in the order in which threads come: two runs would differ by rounding.
            return keys.index_select(0, rows_R), values.index_select(0, rows_R)

        return ImageKeys(chosen)

    def beside(self, others: ImageKeys) -> ImageKeys:
        """The rows of both, one after the other."""

        def both(cross: Attention) -> KeysValues:
            (keys, values), (more_keys, more_values) = self.of(cross), others.of(cross)
            return torch.cat([keys, more_keys]), torch.cat([values, more_values])

        return ImageKeys(both)


class FeedForward(nn.Module):
    """Two linears around a GELU, with post-norm residual."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) to the same."""
        out: Tensor = self.norm(x_BLD + self.dropout(self.down(F.gelu(self.up(x_BLD)))))
        return out


class Layer(nn.Module):
    """One layer: self-attention of either direction, cross-attention, feed-forward."""

    def __init__(self, config: TextConfig, vision_width: int, shared: Sharing, holds: Holds = "both") -> None:
        super().__init__()
        width, heads, p = config.width, config.heads, config.dropout
        self.self_attention = branch(
            lambda: Attention(width, width, heads, p),
            shared=shared in ("all", "all_but_cross_attention"),
            holds=holds,
        )
        self.cross_attention = branch(
            lambda: Attention(width, vision_width, heads, p),
            shared=shared in ("all", "all_but_self_attention"),
            holds=holds,
        )
        self.feed_forward = branch(
            lambda: FeedForward(width, config.ffn_width, p), shared=shared != "none", holds=holds
        )

    def attention(self, direction: Direction) -> Attention:
        """The self-attention of a direction."""
        module = pick(self.self_attention, direction)
        assert isinstance(module, Attention)  # noqa: S101  narrows nn.Module for the type checker
        return module

    def cross(self, direction: Direction) -> Attention:
        """The cross-attention of a direction."""
        module = pick(self.cross_attention, direction)
        assert isinstance(module, Attention)  # noqa: S101  narrows nn.Module for the type checker
        return module

    def forward(self, x_BLD: Tensor, image: ImageKeys | None, *, direction: Direction, mask: Tensor | None) -> Tensor:
        """A whole text at once. Without an image there is no cross-attention."""
        attention = self.attention(direction)
        x_BLD = attention(x_BLD, *attention.keys_values(x_BLD), mask=mask, causal=mask is None)
        if image is not None:
            cross = self.cross(direction)
            x_BLD = cross(x_BLD, *image.of(cross))
        out: Tensor = pick(self.feed_forward, direction)(x_BLD)
        return out

    def step(self, x_BLD: Tensor, cache: LayerCache, start: int) -> Tensor:
        """The L newest tokens of a text being decoded; ``start`` tokens stand in the cache already."""
        attention, stop = self.attention("decode"), start + x_BLD.shape[1]
        k, v = attention.keys_values(x_BLD)
        cache.keys[:, :, start:stop] = k
        cache.values[:, :, start:stop] = v
        past_k, past_v = cache.keys[:, :, :stop], cache.values[:, :, :stop]
        # One new token sees everything before it; several (the prompt) are causal among themselves.
        x_BLD = attention(x_BLD, past_k, past_v, causal=start == 0 and stop > 1)
        x_BLD = self.cross("decode")(x_BLD, cache.image_keys, cache.image_values)
        out: Tensor = pick(self.feed_forward, "decode")(x_BLD)
        return out


class Embeddings(nn.Module):
    """Word plus position embeddings, normalised (BERT without segment embeddings)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.width, padding_idx=0)
        self.position = nn.Embedding(config.max_positions, config.width)
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids_BL: Tensor, start: int = 0) -> Tensor:
        """Ids to (B, L, D); the first one stands at position ``start``."""
        places_L = torch.arange(start, start + ids_BL.shape[1], device=ids_BL.device)
        out: Tensor = self.dropout(self.norm(self.word(ids_BL) + self.position(places_L)))
        return out


class LMHead(nn.Module):
    """BERT's prediction head; its last projection is the word embedding, tied."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.transform = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x_BLD: Tensor, words_WD: Tensor) -> Tensor:
        """(B, L, D) to logits over the W words."""
        hidden: Tensor = self.norm(F.gelu(self.transform(x_BLD)))
        return F.linear(hidden, words_WD, self.bias)


class TextStack(nn.Module):
    """Embeddings, layers and the LM head."""

    def __init__(self, config: TextConfig, vision_width: int, shared: Sharing, holds: Holds = "both") -> None:
        super().__init__()
        self.config = config
        self.embeddings = branch(lambda: Embeddings(config), shared=shared != "none", holds=holds)
        self.layers = nn.ModuleList([Layer(config, vision_width, shared, holds) for _ in range(config.depth)])
        self.lm_head = LMHead(config) if holds != "filter" else None
        self.recompute = False
        """Whether training computes layers again in the backward pass instead of keeping what they held."""

    def embedding(self, direction: Direction) -> Embeddings:
        """The embeddings of a direction."""
        module = pick(self.embeddings, direction)
        assert isinstance(module, Embeddings)  # noqa: S101  narrows nn.Module for the type checker
        return module

    def read(self, ids_BL: Tensor, mask_BL: Tensor, image: Tensor | ImageKeys | None = None) -> Tensor:
        """``encode`` (no image) or ``match`` (with one, by tokens or keys): bidirectional states (B, L, D)."""
        keys = ImageKeys.from_tokens(image) if isinstance(image, Tensor) else image
        x_BLD: Tensor = self.embedding("encode")(ids_BL)
        mask = mask_BL[:, None, None, :]
        for layer in self.layers:
            x_BLD = self._pass(layer, x_BLD, keys, direction="encode", mask=mask)
        return x_BLD

    def write(self, ids_BL: Tensor, image: Tensor | ImageKeys) -> Tensor:
        """``decode``: logits (B, L, W) of the next token at every position.

        Pads stand at the end, so causal attention never looks at one from a real position.
        """
        keys = ImageKeys.from_tokens(image) if isinstance(image, Tensor) else image
        embedding = self.embedding("decode")
        x_BLD = embedding(ids_BL)
        for layer in self.layers:
            x_BLD = self._pass(layer, x_BLD, keys, direction="decode", mask=None)
        out: Tensor = self._words(x_BLD, embedding)
        return out

    def _pass(self, layer: nn.Module, *args: Any, **how: Any) -> Tensor:
        out: Tensor
        if self.recompute and torch.is_grad_enabled():
            out = checkpoint(layer, *args, use_reentrant=False, **how)
        else:
            out = layer(*args, **how)
        return out

    def start_cache(self, image_BNV: Tensor, *, repeat: int, max_length: int) -> list[LayerCache]:
        """An empty cache for ``repeat`` texts an image; cross-attention's keys and values are made once an image."""
        rows = image_BNV.shape[0] * repeat
        caches = []
        for layer in self.layers:
            assert isinstance(layer, Layer)  # noqa: S101  narrows nn.Module for the type checker
            # Read at every step: each head's rows side by side.
            k, v = (t.contiguous() for t in layer.cross("decode").keys_values(image_BNV))
            room = (rows, k.shape[1], max_length, k.shape[3])
            caches.append(LayerCache(k.new_zeros(room), v.new_zeros(room), k, v))
        return caches

    def write_step(self, ids_BL: Tensor, caches: list[LayerCache], start: int) -> Tensor:
        """Logits (B, W) after the L newest tokens, the first of which stands at ``start``."""
        embedding = self.embedding("decode")
        x_BLD = embedding(ids_BL, start)
        for layer, cache in zip(self.layers, caches, strict=True):
            assert isinstance(layer, Layer)  # noqa: S101  narrows nn.Module for the type checker
            x_BLD = layer.step(x_BLD, cache, start)
        out: Tensor = self._words(x_BLD[:, -1], embedding)
        return out

    def _words(self, x_BLD: Tensor, embedding: Embeddings) -> Tensor:
        if self.lm_head is None:
            raise ModelError(
                "this model has no LM head, so it cannot caption", where="holds", mend="Name one that can."
            )
        out: Tensor = self.lm_head(x_BLD, embedding.word.weight)
        return out

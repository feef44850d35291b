import numpy as np
import pytest

from capfilt.corpora.vocabulary import SPECIAL, needed, read_encoder
from capfilt.errors import SourceError

PIECES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"a!é", "##a", "##s", "apple", "red", "pear"]


def test_what_the_texts_need_is_kept_in_the_encoders_order():
    kept = needed(PIECES, ["Red Apples!", "an apple"])
    assert kept == [*SPECIAL, "a", "!", "##a", "##s", "apple", "red"]


def test_the_order_of_the_texts_does_not_matter():
    texts = ["a red apple", "pear", "Red Apples!"]
    assert needed(PIECES, texts) == needed(PIECES, reversed(texts))


def test_a_vocabulary_without_special_pieces_is_refused():
    with pytest.raises(SourceError, match=r"\[MASK\]"):
        needed([piece for piece in PIECES if piece != "[MASK]"], ["a"])


def test_pieces_and_their_vectors_are_read(encoder_wheel):
    pieces, vectors = read_encoder(encoder_wheel(PIECES, 8))
    assert pieces == PIECES
    assert vectors.shape == (len(PIECES), 8)
    assert vectors.dtype == np.float32


def test_vectors_for_other_pieces_are_refused(encoder_wheel):
    with pytest.raises(SourceError, match="14 word pieces"):
        read_encoder(encoder_wheel(PIECES, 8, rows=3))

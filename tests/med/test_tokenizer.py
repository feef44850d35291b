"""Texts to ids as BERT does it, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BertTokenizerFast

from capfilt.errors import ModelError
from capfilt.med.tokenizer import MEDTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "##dish", "circle", "-", "cafe", "'", "s"]


def test_ids_are_those_of_berts_own_tokenizer(tmp_path: Path) -> None:
    ours = MEDTokenizer(WORDS)
    ours.save(tmp_path)
    theirs = BertTokenizerFast(vocab={w: i for i, w in enumerate(WORDS)}, do_lower_case=True)
    for text in ("a reddish circle", "Café's red-circle", "unknown a", "", "a a a a a a a a a a a a"):
        assert ours([text], max_tokens=10).ids[0].tolist() == theirs(text, max_length=10, truncation=True).input_ids


def test_dec_and_enc_take_the_next_two_ids_and_texts_come_back() -> None:
    tokenizer = MEDTokenizer(WORDS)
    assert (tokenizer.dec, tokenizer.enc, tokenizer.size) == (13, 14, 15)
    tokens = tokenizer(["a reddish circle", "a"], max_tokens=30)
    assert tokens.mask.sum(1).tolist() == [6, 3]
    assert tokenizer.text(tokens.ids[0].tolist()) == "a reddish circle"


@pytest.mark.parametrize(("words", "says"), [(WORDS[1:], r"lacks \[PAD\]"), ([*WORDS, "a"], "twice")])
def test_a_vocabulary_that_is_none_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        MEDTokenizer(words)

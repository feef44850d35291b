"""The word pieces of the embedded model, learnt from the training captions alone.

Knows strings; knows no pictures and no model.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from capfilt.captions import clean

SIZE = 6000
"""Most pieces, the special ones counted."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The first lines of the vocabulary, as BERT has them; padding is 0."""
MIN_FREQUENCY = 2


def learn(texts: Iterable[str], *, size: int = SIZE) -> list[str]:
    """WordPiece pieces, in the order of their ids, learnt from the cleaned texts."""
    cleaned = [clean(text) for text in texts]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 (no password)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The trainer numbers the letters inside words as its hash map gives them, and breaks ties by number; letters
    # that are named beforehand have their numbers, so the same texts give the same pieces.
    letters = sorted({letter for text in cleaned for letter in tokenizer.normalizer.normalize_str(text)} - {" "})
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*SPECIAL, *(f"##{letter}" for letter in letters)],
        limit_alphabet=len(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(cleaned, trainer)
    pieces = tokenizer.get_vocab()
    return sorted(pieces, key=lambda piece: pieces[piece])

"""BERT's WordPiece with BLIP's two extra tokens, [DEC] and [ENC].

Texts come in cleaned (``captions.clean``); this module knows ids and masks only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor

from capfilt.errors import ModelError
from capfilt.med.config import vocabulary
from capfilt.med.device import sent

NEEDED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True)
class Tokens:
    """A padded batch of texts. ``ids`` int64 (B, L); ``mask`` bool (B, L), true where a token stands."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Tokens:
        """The same batch on a device."""
        return Tokens(sent(self.ids, device), sent(self.mask, device))

    def chosen(self, rows: Sequence[int]) -> Tokens:
        """Some of the texts, padded to the longest of them."""
        at = torch.tensor(list(rows), device=self.ids.device)
        mask = self.mask[at]
        width = int(mask.sum(1).max())
        return Tokens(self.ids[at, :width], mask[:, :width])

    def beside(self, others: Tokens) -> Tokens:
        """These texts and behind them others, padded to the longest of all."""
        width = max(self.ids.shape[1], others.ids.shape[1])
        both = [
            (F.pad(t.ids, (0, width - t.ids.shape[1])), F.pad(t.mask, (0, width - t.ids.shape[1])))
            for t in (self, others)
        ]
        ids, masks = zip(*both, strict=True)
        return Tokens(torch.cat(ids), torch.cat(masks))

    def begin_with(self, token: int) -> Tokens:
        """The batch with position 0 replaced: [ENC] for ITM, [DEC] for LM (BLIP.md: pretraining)."""
        ids = self.ids.clone()
        ids[:, 0] = token
        return Tokens(ids, self.mask)


class MEDTokenizer:
    """Text to ids and back.

    Args:
        vocab: word pieces in the order of their ids, without [DEC] and [ENC], which take the next two
            ids (30522 and 30523 with BERT's vocabulary).

    Raises:
        ModelError: a special token is missing or a word piece stands twice.
    """

    def __init__(self, vocab: Sequence[str]) -> None:
        missing = [token for token in NEEDED if token not in vocab]
        if missing or len(set(vocab)) != len(vocab):
            what = f"lacks {', '.join(missing)}" if missing else "names a word piece twice"
            raise ModelError(f"the vocabulary {what}", where="vocab.txt", mend="Use a BERT vocabulary.")
        self.vocab = tuple(vocab)
        ids = {token: i for i, token in enumerate(vocab)}
        self.pad, self.unk, self.cls, self.sep = (ids[token] for token in NEEDED)
        self.dec, self.enc = len(vocab), len(vocab) + 1
        self._tokenizer = Tokenizer(WordPiece(ids, unk_token=NEEDED[1], max_input_chars_per_word=100))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()
        self._tokenizer.decoder = WordPieceDecoder(prefix="##", cleanup=True)
        self._special = {ids[t] for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in ids}
        self._special |= {self.dec, self.enc}

    @classmethod
    def load(cls, folder: Path) -> MEDTokenizer:
        """Read ``folder/vocab.txt``, one word piece a line; sizes of one family may share the file a folder above.

        Raises:
            ModelError: the file is missing or is no vocabulary.
        """
        try:
            lines = vocabulary(folder).read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise ModelError(
                "no vocab.txt there", where=str(folder), mend="Put the model's vocab.txt there."
            ) from error
        return cls([line.rstrip("\r") for line in lines if line.strip()])

    def save(self, folder: Path) -> None:
        """Write ``folder/vocab.txt``."""
        (folder / "vocab.txt").write_text("\n".join(self.vocab) + "\n", encoding="utf-8")

    @property
    def size(self) -> int:
        """Ids in all, [DEC] and [ENC] counted."""
        return len(self.vocab) + 2

    @property
    def special(self) -> frozenset[int]:
        """Ids that are no part of a word: [PAD] [UNK] [CLS] [SEP] [MASK] [DEC] [ENC]."""
        return frozenset(self._special)

    def pieces(self, text: str) -> list[int]:
        """Ids of the text alone, no special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def __call__(self, texts: Sequence[str], *, max_tokens: int) -> Tokens:
        """[CLS] pieces [SEP], cut to ``max_tokens`` and padded to the longest of the batch.

        Args:
            texts: B cleaned texts.
            max_tokens: at least 2; [CLS] and [SEP] are counted.
        """
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        rows = [[self.cls, *e.ids[: max_tokens - 2], self.sep] for e in encoded]
        longest = max((len(row) for row in rows), default=0)
        ids = torch.full((len(rows), longest), self.pad, dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        return Tokens(ids, torch.arange(longest)[None, :] < lengths[:, None])

    def text(self, ids: Sequence[int]) -> str:
        """Ids back to text, special tokens left out."""
        return str(self._tokenizer.decode([i for i in ids if i not in self._special]))

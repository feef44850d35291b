"""How right and how varied a captioner's texts are, by measures that need no other program.

BLEU, CIDEr and their kin are in ``quality``. Knows models and references; trains nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from capfilt.captions import clean
from capfilt.evaluate.references import Referenced, decode
from capfilt.roles import Captioner

STOP = frozenset(
    "a an the of with and in on or to at by for from its it is as picture drawing icon symbol".split()  # noqa: SIM905
)


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What captions of pictures say beside what their people wrote."""

    pictures: int
    """Pictures captioned, one caption each."""
    hit: float
    """Share of captions with at least one content word of the picture's own captions."""
    hit_by_chance: float
    """The same after the captions are dealt out to other pictures."""
    distinct: float
    """Different captions per caption, in (0, 1]."""
    most_repeated: float
    """Share of the most frequent caption."""
    vocabulary: int
    """Different words in all captions."""


def words(text: str) -> set[str]:
    """Content words: cleaned, without the commonest function words."""
    return set(clean(text).split()) - STOP


def write(captioner: Captioner, items: Sequence[Referenced], *, batch_size: int = 64) -> list[str]:
    """One caption a picture, seeded by its place."""
    texts: list[str] = []
    for start in range(0, len(items), batch_size):
        part = items[start : start + batch_size]
        seeds = [[start + i] for i in range(len(part))]
        texts += [row[0] for row in captioner.write([decode(item) for item in part], seeds)]
    return texts


def wording(texts: Sequence[str], items: Sequence[Referenced], *, seed: int = 0) -> Wording:
    """Compare captions with the pictures' own."""
    own = [set[str]().union(*map(words, item.texts)) for item in items]
    dealt = list(texts)
    random.Random(seed).shuffle(dealt)
    frequent = Counter(texts)
    return Wording(
        pictures=len(texts),
        hit=_hits(texts, own),
        hit_by_chance=_hits(dealt, own),
        distinct=len(frequent) / len(texts),
        most_repeated=frequent.most_common(1)[0][1] / len(texts),
        vocabulary=len({word for text in texts for word in clean(text).split()}),
    )


def _hits(texts: Sequence[str], own: Sequence[set[str]]) -> float:
    return sum(bool(words(text) & there) for text, there in zip(texts, own, strict=True)) / len(texts)

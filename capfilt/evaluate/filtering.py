"""How well a filter tells true captions from false ones. Knows models and samples; trains nothing."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from capfilt.captions import clean
from capfilt.errors import DataError
from capfilt.roles import Filter, Score
from capfilt.shards.sample import Sample

RULE = 0.5
"""The paper keeps what its ITM head calls matched."""


@dataclass(frozen=True, kw_only=True)
class Separation:
    """True against shuffled captions of the same pictures."""

    pairs: int
    """Pictures, each with one true and one false caption."""
    auc_itm: float | None
    """Probability that a true pair's P(match) is above a false one's, in [0, 1]; 0.5 is chance. None where the
    filter knows no P(match)."""
    auc_itc: float
    """The same of the cosine."""
    kept_true: float | None
    """Share of true captions with P(match) >= 0.5: the recall of the paper's rule."""
    kept_false: float | None
    """Share of false captions that pass the rule."""


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Area under the ROC curve: P(positive > negative), ties counted half (Mann-Whitney).

    Raises:
        DataError: one side is empty.
    """
    if not len(positive) or not len(negative):
        raise DataError("an AUC needs scores on both sides", mend="Give a data set that holds both.")
    values = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n = len(positive)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative)))


def shuffled(texts: Sequence[str], seed: int) -> list[str]:
    """The texts in another order such that none stands where the same text, cleaned, stood.

    Raises:
        DataError: more than half of the texts are one and the same, so that there is no such order.
    """
    order = list(range(len(texts)))
    draw = random.Random(seed)
    draw.shuffle(order)
    cleaned = [clean(text) for text in texts]
    for i in range(len(order)):
        if cleaned[order[i]] != cleaned[i]:
            continue
        fits = [j for j in range(len(order)) if cleaned[order[j]] != cleaned[i] and cleaned[order[i]] != cleaned[j]]
        if not fits:
            raise DataError("one text is too frequent to shuffle", mend="Take a more varied data set.")
        j = draw.choice(fits)
        order[i], order[j] = order[j], order[i]
    return [texts[i] for i in order]


def separation(judge: Filter, samples: Sequence[Sample], *, seed: int = 0, batch_size: int = 64) -> Separation:
    """Score each picture's first caption, and one of another picture, and compare."""
    true = [sample.captions[0]["text"] for sample in samples]
    false = shuffled(true, seed)
    scores: list[list[Score]] = []
    for start in range(0, len(samples), batch_size):
        part = slice(start, start + batch_size)
        texts = [list(pair) for pair in zip(true[part], false[part], strict=True)]
        scores += judge.score(pictures(samples[part]), texts)
    good, bad = [row[0] for row in scores], [row[1] for row in scores]
    good_itm, bad_itm = ([s.itm for s in side if s.itm is not None] for side in (good, bad))
    matching = bool(good_itm)
    return Separation(
        pairs=len(samples),
        auc_itm=auc(good_itm, bad_itm) if matching else None,
        auc_itc=auc([s.itc for s in good], [s.itc for s in bad]),
        kept_true=float(np.mean(np.array(good_itm) >= RULE)) if matching else None,
        kept_false=float(np.mean(np.array(bad_itm) >= RULE)) if matching else None,
    )


def pictures(samples: Sequence[Sample]) -> list[Image.Image]:
    """The samples' pictures, decoded, RGB."""
    return list(_decoded(samples))


def _decoded(samples: Sequence[Sample]) -> Iterator[Image.Image]:
    for sample in samples:
        with Image.open(io.BytesIO(sample.image), formats=("JPEG", "PNG", "WEBP")) as image:
            yield image.convert("RGB")

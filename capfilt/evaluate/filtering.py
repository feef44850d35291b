"""How well a filter tells true captions from false ones. Knows models and samples; trains nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from capfilt.captions import clean
from capfilt.errors import DataError, ModelError
from capfilt.evaluate.references import Referenced, decode
from capfilt.roles import Filter, Score

RULE = 0.5
"""The paper keeps what its ITM head calls matched."""
BINS = 20
"""Of the histogram of scores."""


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
    texts: int
    """The data's own texts: all captions of its pictures, those too that another filter, or this one, rejected."""
    noise_ratio: float | None
    """Share of these that the rule judges noisy, the paper's figure for web and synthetic texts; in [0, 1]."""


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


@dataclass(frozen=True, kw_only=True)
class Operating:
    """What a threshold does to as many true as false captions."""

    threshold: float
    """Of P(match), or of the cosine where the filter knows no P(match)."""
    precision: float | None
    """Share of what is kept that is true, in [0, 1]; None where nothing is kept."""
    recall: float
    """Share of the true that is kept."""
    kept_false: float
    """Share of the false that is kept."""
    noise_ratio: float
    """Share of the data's own texts that is judged noisy: below the threshold."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many true and how many false captions have which score."""

    edges: list[float]
    """Borders of the bins, one more than these, over [0, 1] of P(match) or [-1, 1] of the cosine; a bin holds its lower
    border, the last one its upper too."""
    true: list[int]
    false: list[int]


@dataclass(frozen=True)
class Judged:
    """Scores of pictures' own captions, and of captions of other pictures."""

    true: list[Score]
    """Of each picture's first caption."""
    false: list[Score]
    further: list[Score] = field(default_factory=list)
    """Of the pictures' other texts, the rejected ones among them."""

    def separation(self) -> Separation:
        """How far apart they are."""
        true_itm, false_itm = ([s.itm for s in side if s.itm is not None] for side in (self.true, self.false))
        matching = bool(true_itm)
        return Separation(
            pairs=len(self.true),
            auc_itm=auc(true_itm, false_itm) if matching else None,
            auc_itc=auc([s.itc for s in self.true], [s.itc for s in self.false]),
            kept_true=float(np.mean(np.array(true_itm) >= RULE)) if matching else None,
            kept_false=float(np.mean(np.array(false_itm) >= RULE)) if matching else None,
            texts=len(self.true) + len(self.further),
            noise_ratio=self._noise_ratio(RULE) if matching else None,
        )

    def operating(self, thresholds: Sequence[float]) -> list[Operating]:
        """What each threshold keeps: a score at it or above."""
        true, false = _decisive(self.true), _decisive(self.false)
        rows = []
        for threshold in thresholds:
            right, wrong = int((true >= threshold).sum()), int((false >= threshold).sum())
            rows.append(
                Operating(
                    threshold=threshold,
                    precision=right / (right + wrong) if right + wrong else None,
                    recall=right / len(true),
                    kept_false=wrong / len(false),
                    noise_ratio=self._noise_ratio(threshold),
                )
            )
        return rows

    def histogram(self) -> Histogram:
        """Of true and of false captions, by what decides."""
        span = (-1.0 if self.true[0].itm is None else 0.0, 1.0)
        (true, edges), (false, _) = (
            np.histogram(_decisive(side).clip(*span), BINS, span) for side in (self.true, self.false)
        )
        return Histogram(edges=edges.tolist(), true=true.tolist(), false=false.tolist())

    def _noise_ratio(self, threshold: float) -> float:
        return float(np.mean(_decisive([*self.true, *self.further]) < threshold))


def _decisive(scores: Sequence[Score]) -> npt.NDArray[np.float64]:
    """P(match), or the cosine of a filter that knows no such probability."""
    return np.array([s.itc if s.itm is None else s.itm for s in scores], np.float64)


def judged(judge: Filter, items: Sequence[Referenced], *, seed: int = 0, batch_size: int = 64) -> Judged:
    """Score each picture's captions, kept and rejected, and one of another picture's first ones.

    Args:
        judge: the filter.
        items: pictures with their captions.
        seed: of the false captions.
        batch_size: pictures at once; fewer where they have many captions.

    Raises:
        DataError: there is nothing to judge, or one text is too frequent to shuffle. ModelError: a score is no number.
    """
    false = shuffled([item.texts[0] for item in items], seed)
    # Without the rejected, a filter would find no noise in what it has itself cleaned.
    pairs = [(item, [text, *item.texts, *item.rejected]) for item, text in zip(items, false, strict=True)]
    scores: list[list[Score]] = []
    for part in batches(pairs, batch_size):
        scores += judge.score([decode(item) for item, _ in part], [texts for _, texts in part])
    if not all(math.isfinite(value) for row in scores for s in row for value in (s.itc, s.itm or 0.0)):
        raise ModelError("the filter's scores are not numbers", where="filter", mend="Its weights are damaged.")
    return Judged([row[1] for row in scores], [row[0] for row in scores], [s for row in scores for s in row[2:]])


def batches(pairs: Sequence[tuple[Referenced, list[str]]], size: int) -> Iterator[list[tuple[Referenced, list[str]]]]:
    """Pictures with their texts in parts: at most ``size`` pictures and twice as many texts, or one picture."""
    part: list[tuple[Referenced, list[str]]] = []
    texts = 0
    for pair in pairs:
        if part and (len(part) == size or texts + len(pair[1]) > 2 * size):
            yield part
            part, texts = [], 0
        part.append(pair)
        texts += len(pair[1])
    if part:
        yield part


def separation(judge: Filter, items: Sequence[Referenced], *, seed: int = 0, batch_size: int = 64) -> Separation:
    """Score each picture's captions, and one of another picture's, and compare."""
    return judged(judge, items, seed=seed, batch_size=batch_size).separation()

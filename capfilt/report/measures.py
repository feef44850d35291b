"""What can be said of the captions of a corpus, gathered batch by batch in constant memory.

Reads tables of ``records.LEDGER_SCHEMA``; knows no files and no HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from capfilt.records import Origin, scored_of
from capfilt.report.sketches import Distinct, Frequent

SCORE_BINS = 1000
"""Score histograms have this many equal bins over [0, 1]; every threshold of three digits is a border."""
LENGTH_BINS = 64
"""Length histograms count captions of 0, 1, ... words; the last bin holds all longer ones."""

Counts = npt.NDArray[np.int64]

_NO_WORD = r"[^\pL\pN\pM']+"


@dataclass(frozen=True, kw_only=True)
class OriginFacts:
    """What is known of all captions of one origin on the pictures that the filter could see."""

    origin: str
    """A value of ``records.Origin``."""
    texts: int
    """Captions, scored or not, empty or not."""
    scored: int
    """Captions with an ITM score."""
    kept: int
    """Captions whose verdict is kept, scored or not."""
    removed: int
    """Scored captions whose verdict is not kept."""
    scores: Counts
    """Captions by ITM score, ``SCORE_BINS`` bins over [0, 1]."""
    keepable: Counts
    """The same without those that were not kept though their score sufficed: without words, or one too many."""
    lengths: Counts
    """Captions by length in words, ``LENGTH_BINS`` bins; the last holds all longer ones."""
    words: int
    """Different words; an estimate within about 1% unless ``words_exact``."""
    words_exact: bool
    distinct: int
    """Different texts, lower-cased; an estimate within about 1% unless ``distinct_exact``."""
    distinct_exact: bool
    repeated: tuple[tuple[str, int], ...]
    """The most frequent texts that came more than once, with how often; lower bounds unless ``repeated_exact``."""
    repeated_exact: bool

    @property
    def worded(self) -> int:
        """Captions that are not empty; only these have a length and words."""
        return int(self.lengths.sum())

    @property
    def noise_ratio(self) -> float | None:
        """The share of scored captions that the filter removed, in [0, 1]; None if none was scored."""
        return self.removed / self.scored if self.scored else None

    @property
    def repeated_share(self) -> float | None:
        """The share of captions that only repeat another picture's, in [0, 1]; None without captions."""
        return max(0.0, 1 - self.distinct / self.worded) if self.worded else None

    @property
    def median_length(self) -> int | None:
        """The median length in words; None without captions."""
        return int(np.searchsorted(self.lengths.cumsum(), (self.worded + 1) // 2)) if self.worded else None


class CaptionMeasures:
    """Gathers :class:`OriginFacts` for every origin, and each picture's best score.

    Args:
        threshold: the least ITM score that sufficed in the run; None if none was asked for.
    """

    def __init__(self, threshold: float | None = None) -> None:
        self.threshold = threshold
        self._origins: dict[str, _OriginSum] = {}
        self.best: Counts = np.zeros(SCORE_BINS, np.int64)
        """Pictures by the best ITM score among their captions that may be kept, ``SCORE_BINS`` bins over [0, 1]; one
        with a human text, which is kept whatever its score, stands in the last."""

    def add(self, table: pa.Table) -> None:
        """Adds the captions of rows that reached the filter (the caller chooses the rows)."""
        captions = table.column("captions").combine_chunks()
        flat = pc.list_flatten(captions)
        origins = flat.field("origin")
        for origin in pc.unique(origins).to_pylist():
            mine = flat.filter(pc.equal(origins, origin))
            self._origins.setdefault(origin, _OriginSum()).add(mine, keepable_scores(mine, self.threshold))
        self.best += _score_counts(_best_scores(captions, flat, self.threshold))

    def facts(self, order: Sequence[str]) -> tuple[OriginFacts, ...]:
        """What was gathered, in the given order of origins; origins without captions are left out."""
        return tuple(self._origins[name].facts(name) for name in order if name in self._origins)


class _OriginSum:
    """The running sums of one origin."""

    def __init__(self) -> None:
        self.texts = self.scored = self.kept = self.removed = 0
        self.scores: Counts = np.zeros(SCORE_BINS, np.int64)
        self.keepable: Counts = np.zeros(SCORE_BINS, np.int64)
        self.lengths: Counts = np.zeros(LENGTH_BINS, np.int64)
        self.words = Distinct()
        self.distinct = Distinct()
        self.frequent = Frequent()

    def add(self, captions: pa.StructArray, keepable: pa.FloatArray) -> None:
        scores = captions.field("itm").drop_null().to_numpy(zero_copy_only=False)
        kept, scored = captions.field("kept"), scored_of(captions)
        self.texts += len(captions)
        self.scored += _count(scored)
        self.kept += _count(kept)
        self.removed += _count(pc.and_not(scored, kept))
        self.scores += _score_counts(scores)
        self.keepable += _score_counts(keepable.drop_null().to_numpy(zero_copy_only=False))
        texts = pc.utf8_trim_whitespace(pc.utf8_lower(captions.field("text")))
        # A data set may have been told to forget the text of what it rejected.
        self._add_texts(texts.filter(pc.not_equal(texts, "")))

    def _add_texts(self, texts: pa.StringArray) -> None:
        counted: list[dict[str, Any]] = pc.value_counts(texts).to_pylist()
        counts = {entry["values"]: entry["counts"] for entry in counted}
        self.distinct.add(counts)
        self.frequent.add(counts)
        bare = pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, pattern=_NO_WORD, replacement=" "))
        words = pc.utf8_split_whitespace(bare)
        # Splitting "" gives one empty word.
        lengths = np.where(pc.equal(bare, ""), 0, pc.list_value_length(words))
        self.lengths += np.bincount(np.minimum(lengths, LENGTH_BINS - 1), minlength=LENGTH_BINS)
        self.words.add(word for word in pc.unique(pc.list_flatten(words)).to_pylist() if word)

    def facts(self, origin: str) -> OriginFacts:
        return OriginFacts(
            origin=origin,
            texts=self.texts,
            scored=self.scored,
            kept=self.kept,
            removed=self.removed,
            scores=self.scores,
            keepable=self.keepable,
            lengths=self.lengths,
            words=self.words.count(),
            words_exact=self.words.exact,
            distinct=self.distinct.count(),
            distinct_exact=self.distinct.exact,
            repeated=tuple(self.frequent.top(8, at_least=2)),
            repeated_exact=self.frequent.exact,
        )


def noise_over_thresholds(scores: Counts) -> npt.NDArray[np.float64]:
    """For each threshold 0, 1/SCORE_BINS, ..., 1: the share of scores below it, in [0, 1]. ``[SCORE_BINS + 1]``."""
    below = np.concatenate([[0], scores.cumsum()])
    return np.asarray(below / max(1, below[-1]), np.float64)


def _count(mask: pa.BooleanArray) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _score_counts(scores: npt.NDArray[np.float32]) -> Counts:
    # In float64 a float32 just under a border would fall below it (0.7 is stored as 0.69999999); the filter
    # compares float32 with float32, so the border's own float32 value belongs to the bin above.
    borders = np.linspace(0, 1, SCORE_BINS + 1).astype(np.float32)
    clean = scores[np.isfinite(scores)].astype(np.float32)
    bins = np.clip(np.searchsorted(borders, clean, side="right") - 1, 0, SCORE_BINS - 1)
    return np.bincount(bins, minlength=SCORE_BINS).astype(np.int64)


def keepable_scores(captions: pa.StructArray, threshold: float | None) -> pa.FloatArray:
    """The ITM score of each text, null for one that no threshold would keep: not kept though its score sufficed."""
    scores = captions.field("itm")
    if threshold is None:
        return scores
    enough = pc.greater_equal(scores, threshold).fill_null(False)
    return pc.if_else(pc.and_not(enough, captions.field("kept")), None, scores)


def _best_scores(captions: pa.ListArray, flat: pa.StructArray, threshold: float | None) -> npt.NDArray[np.float32]:
    human = pc.and_(pc.equal(flat.field("origin"), str(Origin.HUMAN)), flat.field("kept"))
    scores = pc.if_else(human, 1.0, keepable_scores(flat, threshold)).cast(pa.float32())
    best = np.full(len(captions), -1.0, np.float32)
    parents = pc.list_parent_indices(captions).to_numpy(zero_copy_only=False)
    np.maximum.at(best, parents, scores.fill_null(-1.0).to_numpy(zero_copy_only=False))
    return best[best >= 0]

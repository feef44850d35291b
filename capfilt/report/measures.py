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

from capfilt.captions import clean
from capfilt.records import Origin, scored_of
from capfilt.report.sketches import Distinct, Frequent
from capfilt.shards.rule import Rule

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
    """The same without those that the rule keeps at no threshold (of other origins, without words, one too many) and
    without human texts, whose score decides nothing."""
    steady: int
    """Human texts that the rule keeps at each threshold."""
    freed: Counts
    """Human texts that better ones crowd out (``best``), by the score up to which they do; ``SCORE_BINS`` bins."""
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

    def kept_at(self, threshold: float) -> int:
        """Texts that the rule would keep with another threshold, in [0, 1]; it is read to three digits."""
        at = round(threshold * SCORE_BINS)
        return self.steady + int(self.keepable[at:].sum() + self.freed[:at].sum())

    def below(self, threshold: float) -> float:
        """The share of ITM scores below a threshold, in [0, 1]; it is read to three digits."""
        return float(noise_over_thresholds(self.scores)[round(threshold * SCORE_BINS)])

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
        rule: by which the texts were judged; what another threshold would keep follows it in all else.
        forgetful: whether rejected texts have lost their words.
    """

    def __init__(self, rule: Rule | None = None, *, forgetful: bool = False) -> None:
        self.rule, self.forgetful = rule or Rule(), forgetful
        self._origins: dict[str, _OriginSum] = {}
        self.best: Counts = np.zeros(SCORE_BINS, np.int64)
        """Pictures by the best ITM score among their captions that may be kept, ``SCORE_BINS`` bins over [0, 1]; one
        with a human text, which is kept whatever its score, stands in the last."""

    def add(self, table: pa.Table) -> None:
        """Adds the captions of rows that reached the filter (the caller chooses the rows)."""
        captions = table.column("captions").combine_chunks()
        flat = pc.list_flatten(captions)
        origins = flat.field("origin")
        parents = pc.list_parent_indices(captions).to_numpy(zero_copy_only=False)
        fits = _fits(flat, self.rule, forgetful=self.forgetful)
        chances = _chances(flat, parents, fits, self.rule.best)
        for origin in pc.unique(origins).to_pylist():
            mine = pc.equal(origins, origin)
            at = mine.to_numpy(zero_copy_only=False)
            self._origins.setdefault(origin, _OriginSum()).add(flat.filter(mine), chances.of(at))
        self.best += _score_counts(_best_scores(flat, parents, fits, len(captions)))

    def facts(self, order: Sequence[str]) -> tuple[OriginFacts, ...]:
        """What was gathered, in the given order of origins; origins without captions are left out."""
        return tuple(self._origins[name].facts(name) for name in order if name in self._origins)


class _OriginSum:
    """The running sums of one origin."""

    def __init__(self) -> None:
        self.texts = self.scored = self.kept = self.removed = 0
        self.scores: Counts = np.zeros(SCORE_BINS, np.int64)
        self.keepable: Counts = np.zeros(SCORE_BINS, np.int64)
        self.steady = 0
        self.freed: Counts = np.zeros(SCORE_BINS, np.int64)
        self.lengths: Counts = np.zeros(LENGTH_BINS, np.int64)
        self.words = Distinct()
        self.distinct = Distinct()
        self.frequent = Frequent()

    def add(self, captions: pa.StructArray, chances: _Chances) -> None:
        scores = captions.field("itm").drop_null().to_numpy(zero_copy_only=False)
        kept, scored = captions.field("kept"), scored_of(captions)
        self.texts += len(captions)
        self.scored += _count(scored)
        self.kept += _count(kept)
        self.removed += _count(pc.and_not(scored, kept))
        self.scores += _score_counts(scores)
        self.keepable += _score_counts(chances.keepable)
        self.steady += int(chances.steady.sum())
        self.freed += _score_counts(chances.freed)
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
            steady=self.steady,
            freed=self.freed,
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


def _score_counts(scores: npt.NDArray[np.floating[Any]]) -> Counts:
    # As the filter and the rule compare: a stored float32 with a threshold in float64. That of 0.7 is stored as
    # 0.69999999, which is less. Quotients, since 700 * 0.001 is not 0.7.
    borders = np.arange(SCORE_BINS + 1) / SCORE_BINS
    finite = scores[np.isfinite(scores)].astype(np.float64)
    bins = np.clip(np.searchsorted(borders, finite, side="right") - 1, 0, SCORE_BINS - 1)
    return np.bincount(bins, minlength=SCORE_BINS).astype(np.int64)


@dataclass(frozen=True)
class _Chances:
    """At which thresholds each text of a batch is kept; arrays are as long as the texts."""

    keepable: npt.NDArray[np.float64]
    """Up to this one; NaN where at none, and for human texts."""
    steady: npt.NDArray[np.bool_]
    """At each; human texts only."""
    freed: npt.NDArray[np.float64]
    """Above this one, by which a better text falls; human texts only, NaN elsewhere."""

    def of(self, at: npt.NDArray[np.bool_]) -> _Chances:
        """Those of some texts."""
        return _Chances(self.keepable[at], self.steady[at], self.freed[at])


def _itm(captions: pa.StructArray) -> npt.NDArray[np.float64]:
    """NaN where there is none."""
    return np.asarray(captions.field("itm").cast(pa.float64()).to_numpy(zero_copy_only=False))


def _human(captions: pa.StructArray) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.equal(captions.field("origin"), str(Origin.HUMAN)).to_numpy(zero_copy_only=False))


def _fits(captions: pa.StructArray, rule: Rule, *, forgetful: bool) -> npt.NDArray[np.bool_]:
    """Which texts the rule could keep at some threshold, however many others of their picture do."""
    fits = pc.is_in(captions.field("origin"), value_set=pa.array(rule.origins, pa.string()))
    fits = np.array(fits.to_numpy(zero_copy_only=False))
    if not forgetful:
        fits &= _worded(captions.field("text"))
    if rule.best is None:
        # Without a bound, what is not kept though it passes is no text, also where its words are gone.
        passes = _human(captions)
        if rule.threshold is not None and rule.judge_by == "itm":
            passes |= _itm(captions) >= rule.threshold
        fits &= ~passes | captions.field("kept").to_numpy(zero_copy_only=False)
    return np.asarray(fits & (_human(captions) | np.isfinite(_itm(captions))))


def _worded(texts: pa.StringArray) -> npt.NDArray[np.bool_]:
    worded = np.array(pc.match_substring_regex(texts, r"[\pL\pN]").to_numpy(zero_copy_only=False))
    # Few are left, and what is nothing to a model is for one function to say.
    for at in np.flatnonzero(~worded):
        worded[at] = bool(clean(texts[int(at)].as_py()))
    return worded


def _chances(
    captions: pa.StructArray, parents: npt.NDArray[np.int64], fits: npt.NDArray[np.bool_], best: int | None
) -> _Chances:
    scores, human = _itm(captions), _human(captions)
    keepable, freed = np.where(fits & ~human, scores, np.nan), np.full(len(scores), np.nan)
    steady = fits & human
    if best is None:
        return _Chances(keepable, steady, freed)
    # By picture and rank as the rule ranks: the highest first, of equal ones the first, those without a score last.
    at = np.flatnonzero(fits)
    ranks = np.where(np.isnan(scores[at]), -np.inf, scores[at])
    at = at[np.lexsort((at, -ranks, parents[at]))]
    owners = parents[at]
    first = np.searchsorted(owners, owners, side="left")
    surplus = np.arange(len(at)) - first >= best
    # A text that a threshold leaves has all better ones beside it, so its rank is the same at each.
    keepable[at[surplus]] = np.nan
    for place in np.flatnonzero(surplus & human[at]):
        # A human text stays when those before it fall: as soon as fewer are left than there is room.
        before = at[first[place] : place]
        room = best - int(human[before].sum())
        steady[at[place]] = False
        if room > 0:
            freed[at[place]] = scores[before[~human[before]][room - 1]]
    return _Chances(keepable, steady, freed)


def _best_scores(
    captions: pa.StructArray, parents: npt.NDArray[np.int64], fits: npt.NDArray[np.bool_], pictures: int
) -> npt.NDArray[np.float64]:
    best = np.full(pictures, -1.0)
    np.maximum.at(best, parents[fits], np.where(_human(captions), 1.0, _itm(captions))[fits])
    return best[best >= 0]

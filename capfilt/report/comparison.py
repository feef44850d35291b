"""What each of a range of thresholds would keep, by origin and in pictures: from stored scores, as ``refilter`` would.
The rest of the rule stays: whose texts may stay, and how many of a picture.

Knows ``ReportData``; knows no HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from capfilt.report.gather import ReportData
from capfilt.report.measures import SCORE_BINS

THRESHOLDS = (*(step / 10 for step in range(1, 10)), 0.95, 0.99)


@dataclass(frozen=True, kw_only=True)
class AtThreshold:
    """One line of the comparison."""

    threshold: float
    """On P(match)."""
    own: bool
    """Whether it is the data set's own."""
    pictures: int
    """Pictures that keep a text."""
    absent: int
    """Of them, those whose bytes are not in the shards, since the run dropped them."""
    texts: Mapping[str, int]
    """Texts kept, by origin."""
    noise: Mapping[str, float]
    """Share of the scored texts that is removed, by origin, in [0, 1]; no threshold removes human texts."""


def compare(data: ReportData) -> list[AtThreshold]:
    """The lines, by threshold; none where no P(match) decided."""
    if data.threshold is None:
        return []
    return [_at(data, threshold, data.threshold) for threshold in sorted({*THRESHOLDS, data.threshold})]


def _at(data: ReportData, threshold: float, own: float) -> AtThreshold:
    scored = [facts for facts in data.origins if facts.scored]
    # Its own threshold may have more digits than the histograms, and what came of it is known.
    texts = {facts.origin: facts.kept if threshold == own else facts.kept_at(threshold) for facts in scored}
    pictures = data.tally.kept if threshold == own else int(data.best[round(threshold * SCORE_BINS) :].sum())
    return AtThreshold(
        threshold=threshold,
        own=threshold == own,
        pictures=pictures,
        absent=max(0, pictures - data.tally.kept) if threshold < own else 0,
        texts=texts,
        noise={facts.origin: 1 - texts[facts.origin] / facts.scored for facts in scored},
    )

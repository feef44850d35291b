"""The geometry of the report's charts, in percent of their plot: the templates only draw it.

Knows numbers; knows no HTML and no captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from capfilt.records import Origin
from capfilt.report.measures import LENGTH_BINS, SCORE_BINS, Counts, OriginFacts, noise_over_thresholds
from capfilt.report.sizes import ASPECT_BINS, ASPECT_STEP, MOST_PX, SizeFacts

SIDES = (0, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 1536)
"""Borders of the bars of the shorter side, px."""
TOLD_SIDES = {64, 128, 224, 384, 512, 1024}
SCORE_BARS = 40
LONGEST_BAR = 30
"""Captions of so many words or more share the last bar of the length chart."""
STEPS = 100
"""The threshold slider and curve have this many steps over [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of a histogram: place, width and height in percent of the plot."""

    x: float
    width: float
    height: float
    below: bool
    """Whether it lies wholly below the marked threshold."""
    label: str
    """What it says, for a pointer or a screen reader."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A share over thresholds 0, 1/STEPS, ..., 1."""

    name: str
    """Origin, or ``images`` for pictures that keep at least one text."""
    values: tuple[float, ...]
    """Shares in [0, 1]. ``[STEPS + 1]``"""

    @property
    def points(self) -> str:
        """SVG polyline points in a 100 by 100 box."""
        return " ".join(f"{100 * i / STEPS:g},{100 - 100 * v:.2f}" for i, v in enumerate(self.values))

    def at(self, threshold: float) -> float:
        """The share at the nearest step."""
        return self.values[round(threshold * STEPS)]


def score_bars(scores: Counts, threshold: float) -> list[Bar]:
    """A histogram of ITM scores as bars, the highest filling the plot."""
    counts = scores.reshape(SCORE_BARS, SCORE_BINS // SCORE_BARS).sum(axis=1)
    borders = np.linspace(0, 1, SCORE_BARS + 1)
    labels = [f"{low:.3g} to {high:.3g}: {n:,}" for low, high, n in zip(borders, borders[1:], counts, strict=False)]
    return _bars(counts, labels, [bool(high <= threshold + 1e-9) for high in borders[1:]])


def length_bars(lengths: Counts) -> list[Bar]:
    """A histogram of caption lengths in words as bars, the highest filling the plot."""
    assert LONGEST_BAR < LENGTH_BINS  # noqa: S101 - of two constants
    counts = np.append(lengths[:LONGEST_BAR], lengths[LONGEST_BAR:].sum())
    labels = [f"{words} words: {n:,}" for words, n in enumerate(counts)]
    labels[1] = f"1 word: {counts[1]:,}"
    labels[-1] = f"{LONGEST_BAR} words or more: {counts[-1]:,}"
    return _bars(counts, labels, [False] * len(counts))


def size_bars(seen: SizeFacts, kept: SizeFacts) -> list[Bar]:
    """Histograms of the shorter side, one before the other: of all pictures, pale, and of the kept ones."""
    borders = [*SIDES, MOST_PX + 1]
    both = [[int(facts.shorter[low:high].sum()) for low, high in pairwise(borders)] for facts in (seen, kept)]
    names = [f"{low} to {high - 1} px" for low, high in pairwise(borders)]
    names[-1] = f"{SIDES[-1]} px or more"
    return _overlaid(both, names)


def aspect_bars(seen: SizeFacts, kept: SizeFacts) -> list[Bar]:
    """Histograms of log2(width / height) likewise, tall pictures to the left."""
    middle = ASPECT_BINS // 2
    names = [f"{_ratio((at - middle) * ASPECT_STEP)}" for at in range(ASPECT_BINS)]
    return _overlaid([facts.aspects.tolist() for facts in (seen, kept)], names)


def size_ticks() -> list[tuple[float, str]]:
    """Places in percent, and the shorter side there, px."""
    step = 100 / len(SIDES)
    return [(at * step, f"{side}") for at, side in enumerate(SIDES) if side in TOLD_SIDES]


def aspect_ticks() -> list[tuple[float, str]]:
    """Places in percent, and the ratio there."""
    step, middle = 100 / ASPECT_BINS, ASPECT_BINS // 2
    told = {-2: "1:4", -1: "1:2", 0: "1:1", 1: "2:1", 2: "4:1"}
    return [((middle + power / ASPECT_STEP + 0.5) * step, text) for power, text in told.items()]


def _ratio(power: float) -> str:
    if abs(power) < ASPECT_STEP / 2:
        return "about square"
    long = 2 ** abs(power)
    return f"about {long:.2g} times as {'wide as tall' if power > 0 else 'tall as wide'}"


def _overlaid(both: Sequence[Sequence[int]], names: Sequence[str]) -> list[Bar]:
    seen, kept = (np.asarray(counts, np.int64) for counts in both)
    labels = [f"{name}: {all_:,}, of them {some:,} kept" for name, all_, some in zip(names, seen, kept, strict=True)]
    top = int(seen.max(initial=0))
    return [
        *_bars(seen, labels, [True] * len(seen), top=top),
        *_bars(kept, labels, [False] * len(kept), top=top),
    ]


def curves(origins: Sequence[OriginFacts], best: Counts) -> list[Curve]:
    """The noise ratio of each scored origin, and the share of pictures kept, over thresholds."""
    every = SCORE_BINS // STEPS
    # Human texts are kept whatever their score.
    judged = [facts for facts in origins if facts.scored and facts.origin != Origin.HUMAN]
    found = [
        Curve(name=facts.origin, values=tuple(1 - facts.kept_at(at / STEPS) / facts.scored for at in range(STEPS + 1)))
        for facts in judged
    ]
    if best.sum():
        kept = 1 - noise_over_thresholds(best)[::every]
        found.append(Curve(name="images", values=tuple(map(float, kept))))
    return found


def _bars(counts: Counts, labels: Sequence[str], below: Sequence[bool], *, top: int = 0) -> list[Bar]:
    top = max(1, top or int(counts.max()))
    step = 100 / len(counts)
    return [
        # A few captions among millions must still be seen.
        Bar(x=i * step, width=0.86 * step, height=max(100 * int(n) / top, 1.2) if n else 0, below=under, label=label)
        for i, (n, label, under) in enumerate(zip(counts, labels, below, strict=True))
    ]

"""What a person should notice first, in sentences drawn from the numbers.

Knows ``ReportData``; knows no HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from capfilt.records import Drop, Origin
from capfilt.report.gather import ReportData
from capfilt.report.meanings import DROPS, FETCH, PAPER_NOISE_SHARED
from capfilt.report.measures import OriginFacts

ENOUGH = 100
"""Shares of fewer rows or texts than this say too little to remark on."""


class Level(StrEnum):
    """How much a finding matters."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to notice."""

    level: Level
    text: str


def findings(data: ReportData) -> list[Finding]:
    """What to notice, most important first."""
    found = [*_books(data), *_losses(data), *_filter(data), *_captions(data)]
    return sorted(found, key=lambda finding: list(Level).index(finding.level), reverse=True)


def _books(data: ReportData) -> Iterator[Finding]:
    tally = data.tally
    if not data.finished:
        yield _bad(
            "This run is not finished: the page shows the parts that are. "
            "Run the same bootstrap again and it continues where it stopped."
        )
    if tally != data.promised:
        yield _bad(
            f"The ledger holds {tally.rows:,} rows ({tally.kept:,} kept), but the commit markers say "
            f"{data.promised.rows:,} ({data.promised.kept:,} kept). Something was damaged or changed; "
            "`capfilt verify` names the part."
        )
    elif tally.balanced:
        dropped = sum(tally.dropped.values())
        yield Finding(
            level=Level.GOOD,
            text=f"The books balance: {tally.rows:,} in = {tally.kept:,} kept + {dropped:,} dropped.",
        )


def _losses(data: ReportData) -> Iterator[Finding]:
    tally = data.tally
    if tally.rows and not tally.kept:
        yield _bad("Nothing was kept. The reasons below say where the rows went.")
    lost = sum(n for reason, n in tally.dropped.items() if DROPS.get(reason, ("",))[0] == FETCH)
    if tally.rows >= ENOUGH and lost > 0.4 * tally.rows:
        yield _note(
            f"{lost / tally.rows:.0%} of the rows were lost in fetching. Old web corpora lose a third or more to dead "
            "links; far more than that points at your network, a proxy or the limits of the fetch settings."
        )
    unfit = tally.dropped.get(Drop.NO_CAPTION_KEPT, 0)
    judged = tally.kept + unfit
    if not data.rule.bounded and judged >= ENOUGH and unfit > 0.6 * judged:
        yield _note(
            f"The filter left {unfit / judged:.0%} of the pictures it saw without any text. Look at the texts it "
            "removed below before you trust it: it may be a filter for another kind of picture."
        )


def _filter(data: ReportData) -> Iterator[Finding]:
    if data.cosine_threshold is not None:
        yield _note(
            f"The filter judged by the cosine of picture and text: texts below {data.cosine_threshold:g} were removed. "
            "The plots of P(match) are left out; the cosines stand in the ledger as itc."
        )
    elif data.threshold is None and data.tally.kept:
        yield _note("No filter ran, so nothing was scored and every text was kept. Noise is unknown.")
    made = _of(data, Origin.SYNTHETIC)
    # Where a bound removed texts as well, the share says nothing of filter and captioner.
    if data.rule.bounded or made is None or made.noise_ratio is None or made.scored < ENOUGH:
        return
    if made.noise_ratio <= PAPER_NOISE_SHARED:
        yield _note(
            f"The filter removed only {made.noise_ratio:.0%} of the synthetic captions. The paper saw "
            f"{PAPER_NOISE_SHARED:.0%} when captioner and filter shared their weights, which lets the captioner's "
            "mistakes through."
        )
    web = _of(data, Origin.WEB)
    if web is not None and web.noise_ratio is not None and made.noise_ratio > web.noise_ratio:
        yield _note(
            "Synthetic captions are noisier than the web text here: the captioner does not know these pictures."
        )


def _captions(data: ReportData) -> Iterator[Finding]:
    made = _of(data, Origin.SYNTHETIC)
    if made is None and data.tally.kept:
        yield _note("No captioner ran, so there are no synthetic captions.")
    if made is not None and made.texts >= ENOUGH and (made.repeated_share or 0) > 0.5:
        yield _note(
            f"{made.repeated_share:.0%} of the synthetic captions repeat another picture's. A captioner that falls "
            "back on a few phrases teaches little; try nucleus sampling or a captioner finetuned nearer to your data."
        )


def _of(data: ReportData, origin: str) -> OriginFacts | None:
    return next((facts for facts in data.origins if facts.origin == origin), None)


def _note(text: str) -> Finding:
    return Finding(level=Level.NOTE, text=text)


def _bad(text: str) -> Finding:
    return Finding(level=Level.BAD, text=text)

"""The report as one HTML page: arranges what was gathered and hands it to the template.

Knows what a reader wants to see first; counts nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from capfilt.records import Origin
from capfilt.report import charts
from capfilt.report.comparison import compare
from capfilt.report.findings import findings
from capfilt.report.gallery import PARTS_TOGETHER, Card, Verdict, shorten
from capfilt.report.gather import Example, ReportData, gather
from capfilt.report.meanings import (
    DROPS,
    ORIGINS,
    PAPER_NOISE_BEAM,
    PAPER_NOISE_NUCLEUS,
    PLURALS,
)
from capfilt.report.rendering import page
from capfilt.shards.marker import PartMarker
from capfilt.storage import Store

NAME = "report.html"

_GALLERIES = {
    Verdict.CHANGED: (
        "Changed most",
        "The filter removed the text that came with the picture and kept a synthetic one: what CapFilt is for "
        "(the paper's Figure 4). Those whose scores differ most, the clearest first.",
    ),
    Verdict.AGREED: ("Kept", "The original text was kept, or no original was there to be removed. A random choice."),
    Verdict.DOUBTED: (
        "Synthetic removed",
        "The original text was kept and the synthetic caption removed: the captioner's mistakes. A random choice.",
    ),
    Verdict.NOTHING: (
        "Nothing kept",
        "The filter found that no text fits. The picture is not in the data set, so only its texts are here. "
        "A random choice.",
    ),
}
_MIX = (
    "Random",
    "Any picture that the filter saw, whatever its verdict: what is common here is common in the corpus.",
)


@dataclass(frozen=True, kw_only=True)
class BookLine:
    """One line of the books; ``start`` and ``width`` place its bar, in percent of all rows."""

    name: str
    meaning: str
    rows: int
    share: float
    start: float
    width: float
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One gallery."""

    key: str
    name: str
    meaning: str
    seen: int
    cards: tuple[Card, ...]


def render(data: ReportData) -> str:
    """The page: one self-contained HTML document, under 10 MB, that loads nothing."""
    curves = charts.curves(data.origins, data.best)
    return page(
        "report.html",
        script="report.js",
        data=data,
        findings=findings(data),
        books=list(_books(data)),
        origins=ORIGINS,
        plurals=PLURALS,
        noise={facts.origin: facts.noise_ratio for facts in data.origins},
        made=next((facts for facts in data.origins if facts.origin == Origin.SYNTHETIC), None),
        reference=_reference(data.decoding),
        charts=charts,
        reasons={reason: name for reason, (_, name, _) in DROPS.items()},
        shorten=shorten,
        parts_together=PARTS_TOGETHER,
        curves=curves,
        comparison=compare(data),
        galleries=[section for section in _sections(data) if section.seen],
        recipe=_yaml(dict(data.recipe)),
        models=_yaml(dict(data.models)),
    )


def write_report(
    store: Store, *, gallery: int = 48, seed: int = 0, markers: Mapping[int, PartMarker] | None = None
) -> str:
    """Writes ``report.html`` into the destination and returns its full path.

    Args:
        store: the destination of a finished or unfinished run.
        gallery: pictures shown in each gallery, within [0, 80]; more are cut to that.
        seed: chooses which ones.
        markers: all that are there, as :func:`capfilt.shards.marker.committed` has just read them; None reads them.

    Raises:
        DestinationError: no part is finished there, or it cannot be written.
        DataError: its ledger is damaged.
    """
    return write_page(store, gather(store, gallery=gallery, seed=seed, markers=markers))


def write_page(store: Store, data: ReportData) -> str:
    """Writes ``report.html`` of what was gathered there, and returns its full path.

    Raises:
        DestinationError: it cannot be written.
    """
    store.write(NAME, render(data).encode())
    return store.path(NAME)


def _books(data: ReportData) -> Iterator[BookLine]:
    """The dropped rows in the order of the run; the bars stand so that all of them and the kept rows fill the whole."""
    tally = data.tally
    whole = max(1, tally.rows)
    left = tally.rows
    # An unknown reason, of a newer version's ledger, is shown under its own name at the end.
    for reason in [*DROPS, *sorted(set(tally.dropped) - set(DROPS))]:
        rows = tally.dropped.get(reason, 0)
        if not rows:
            continue
        left -= rows
        _, name, meaning = DROPS.get(reason, ("", reason, ""))
        yield BookLine(
            name=name,
            meaning=meaning,
            rows=rows,
            share=rows / whole,
            start=100 * left / whole,
            width=100 * rows / whole,
            examples=data.examples.get(reason, ()),
        )


def _sections(data: ReportData) -> Iterator[Section]:
    for verdict, (name, meaning) in _GALLERIES.items():
        yield Section(key=verdict, name=name, meaning=meaning, seen=data.seen[verdict], cards=data.gallery[verdict])
    yield Section(key="mix", name=_MIX[0], meaning=_MIX[1], seen=sum(data.seen.values()), cards=data.mix)


def _reference(decoding: str) -> tuple[float, str]:
    """The paper's noise ratio of synthetic captions, and how they were written there."""
    if decoding in ("beam", "greedy"):
        return PAPER_NOISE_BEAM, "beam search"
    return PAPER_NOISE_NUCLEUS, "nucleus sampling"


def _yaml(value: dict[str, object]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True) if value else ""

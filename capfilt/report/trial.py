"""A few judged rows as a page: pictures, captions and scores, and a threshold to move before a run is made.

Knows tables with pictures and how long they took; knows no source and no model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from capfilt.captions import clean
from capfilt.records import Caption, Drop, Origin
from capfilt.report.comparison import THRESHOLDS
from capfilt.report.gallery import MAX_CAPTIONS, shorten, thumbnail
from capfilt.report.gather import Example
from capfilt.report.meanings import DROPS, ORIGINS, PLURALS
from capfilt.report.rendering import page
from capfilt.shards.rule import SCORES, Rule

SIDE = 240
"""Longer side of a picture on the page, px; with as many pictures as a preview may have it stays under 10 MB."""
COSINES = tuple(step / 20 for step in range(0, 11))
"""Thresholds that are compared where the cosine decides."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How long the rows took on this machine."""

    wall_s: float
    """Seconds in all, with loading the models."""
    fetch_s: float
    """Seconds a row to fetch and decode, with as many at once as the recipe allows."""
    image_s: float | None
    """Seconds a picture in the models; None if none reached them."""
    reached: float
    """Share of the rows whose picture reached the models, in [0, 1]."""

    @property
    def images_s(self) -> float | None:
        """Pictures a second through the models."""
        return 1 / self.image_s if self.image_s else None

    @property
    def limits(self) -> str:
        """What holds the run up: ``fetch`` or ``models``."""
        return "models" if (self.image_s or 0.0) * self.reached >= self.fetch_s else "fetch"

    def hours(self, rows: int) -> float:
        """Hours that so many rows take on one such machine, fetching beside the models."""
        return rows * max(self.fetch_s, (self.image_s or 0.0) * self.reached) / 3600


@dataclass(frozen=True, kw_only=True)
class Line:
    """What one threshold would keep of the rows."""

    threshold: float
    own: bool
    """Whether it is the recipe's."""
    pictures: int
    texts: Mapping[str, int]
    """By origin."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A sample that was looked at."""

    source: str
    rows: int | None
    """Of the whole source; None if unknown."""
    exact: bool
    """Whether that was counted."""
    drawn_from: str
    """What the sample could have been drawn from."""
    seed: int
    table: pa.Table
    """``records.SCHEMA``, judged, with pictures."""
    rule: Rule
    models: Mapping[str, str | None]
    speed: Speed
    seen: int
    """Rows that reached the models."""
    texts: Mapping[str, int]
    """Their texts, by origin."""
    dropped: Mapping[str, int]
    """Rows that did not, by reason."""
    lines: tuple[Line, ...]
    """By threshold; empty where no filter ran."""

    @property
    def error(self) -> float:
        """By how much a share of one half in the sample may be off, in [0, 1]: 95 % of samples are within it."""
        return 1.96 * math.sqrt(0.25 / max(1, self.seen))

    @property
    def sampled(self) -> int:
        """Rows of the sample."""
        return int(self.table.num_rows)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: figures, and each row's texts; no pictures."""
        told = {
            name: getattr(self, name) for name in ("source", "rows", "exact", "drawn_from", "seed", "sampled", "seen")
        }
        told |= {"models": dict(self.models), "texts": dict(self.texts), "dropped": dict(self.dropped)}
        told["speed"] = asdict(self.speed) | {"images_s": self.speed.images_s, "limits": self.speed.limits}
        told["hours"] = None if self.rows is None else self.speed.hours(self.rows)
        told["thresholds"] = [asdict(line) for line in self.lines]
        told["sample"] = self.table.select(["id", "url", "captions", "drop", "detail"]).to_pylist()
        return told


@dataclass(frozen=True, kw_only=True)
class _Text:
    caption: Caption
    score: float | None
    always: bool
    """Kept at any threshold."""
    never: bool
    """Without words, so kept at none."""


@dataclass(frozen=True, kw_only=True)
class _Card:
    url: str
    size: str
    thumbnail: bytes
    texts: tuple[_Text, ...]


def looked_at(table: pa.Table, *, rule: Rule, **known: Any) -> Looked:
    """Counts what each threshold would keep of the rows.

    Args:
        table: ``records.SCHEMA``, as the models left it.
        rule: the recipe's.
        known: the other fields of :class:`Looked`.
    """
    drops = table.column("drop").to_pylist()
    judged: list[list[Caption]] = [
        captions for captions, drop in zip(table.column("captions").to_pylist(), drops, strict=True) if drop is None
    ]
    return Looked(
        table=table,
        rule=rule,
        seen=len(judged),
        texts=dict(Counter(caption["origin"] for row in judged for caption in row)),
        dropped=dict(Counter(drop for drop in drops if drop).most_common()),
        lines=tuple(_lines(judged, rule)),
        **known,
    )


def render(looked: Looked) -> str:
    """The page: one self-contained HTML document, under 10 MB, that loads nothing."""
    return page(
        "trial.html",
        script="trial.js",
        looked=looked,
        low=0 if looked.rule.judge_by == "itm" else -1,
        score=SCORES[looked.rule.judge_by],
        cards=list(_cards(looked)),
        dropped=list(_dropped(looked)),
        origins=ORIGINS,
        plurals=PLURALS,
    )


def _lines(judged: Sequence[Sequence[Caption]], rule: Rule) -> Iterator[Line]:
    if rule.threshold is None:
        return
    # No threshold keeps a text without words.
    worded = [[caption for caption in row if clean(caption["text"])] for row in judged]
    for threshold in sorted({*(THRESHOLDS if rule.judge_by == "itm" else COSINES), rule.threshold}):
        tried = replace(rule, threshold=threshold)
        kept = [[caption for caption in row if tried.passes(caption)] for row in worded]
        texts = Counter(caption["origin"] for row in kept for caption in row)
        yield Line(
            threshold=threshold,
            own=threshold == rule.threshold,
            pictures=sum(map(bool, kept)),
            texts={caption["origin"]: texts[caption["origin"]] for row in judged for caption in row},
        )


def _cards(looked: Looked) -> Iterator[_Card]:
    for row in looked.table.to_pylist():
        if row["drop"] is not None:
            continue
        yield _Card(
            url=shorten(row["url"] or row["id"]),
            size=f"{row['width']} × {row['height']}" if row["width"] else "",
            thumbnail=thumbnail(row["image"], SIDE) if row["image"] else b"",
            texts=tuple(_text(caption, looked.rule) for caption in row["captions"][:MAX_CAPTIONS]),
        )


def _text(caption: Caption, rule: Rule) -> _Text:
    wordless = not clean(caption["text"])
    return _Text(
        caption=Caption(**{**caption, "text": shorten(caption["text"])}),
        score=caption[rule.judge_by],
        always=not wordless and (rule.threshold is None or caption["origin"] == Origin.HUMAN),
        never=wordless,
    )


def _dropped(looked: Looked) -> Iterator[tuple[str, str, int, Example]]:
    """(name, meaning, rows, an example) of each reason."""
    rows = looked.table.select(["url", "drop", "detail"]).to_pylist()
    for reason, count in looked.dropped.items():
        first = next(row for row in rows if row["drop"] == reason)
        _, name, meaning = DROPS.get(Drop(reason), ("", reason, ""))
        yield name, meaning, count, Example(url=shorten(first["url"] or ""), detail=shorten(first["detail"] or ""))

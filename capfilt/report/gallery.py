"""Which pictures and texts the report shows: a seeded random few of each verdict.

Chooses from ledger tables by the hash of each row's id, so that a page is the same whoever makes it; a
reader of a large corpus opens only a handful of shards. Knows no HTML; reads pictures through ``shards.read``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from capfilt.errors import DataError
from capfilt.images import decode
from capfilt.records import Caption, Drop, Origin
from capfilt.report.sketches import Pick, hash64

THUMBNAIL_SIDE = 160
"""Longer side of a picture on the page, px."""
THUMBNAIL_BYTES = 12_000
"""A picture that is larger at good quality is written at a lower one."""
MOST_MIXED = 48
"""Most pictures of the random choice of all; those of verdicts may be more."""
MAX_CAPTIONS = 6
"""Most texts shown of one picture."""
MAX_TEXT = 300
"""Longest text shown, in characters; a caption is a stranger's text and may be a megabyte."""
PARTS_TOGETHER = 8
"""Picks come from so many parts, chosen at random, before others are touched, so that few shards are read."""
ROWS_TOGETHER = 1024
"""Within a part picks come from so many rows before later ones are touched, so that shards need not be read to
their end."""


class Verdict(StrEnum):
    """What the filter made of a row, by its texts."""

    CHANGED = "changed"
    AGREED = "agreed"
    DOUBTED = "doubted"
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One row of the corpus, to be shown."""

    id: str
    part: int
    row: int
    url: str
    width: int | None
    height: int | None
    captions: tuple[Caption, ...]
    verdict: Verdict
    thumbnail: bytes = b""
    """JPEG of at most ``THUMBNAIL_SIDE`` px; empty when the data set holds no picture of it."""


class Gallery:
    """Offers every row, keeps a few of each verdict."""

    def __init__(self, size: int, seed: int, parts: Sequence[int]) -> None:
        self._seed = seed
        self._picks: dict[Verdict, Pick[Card]] = {verdict: Pick(size) for verdict in Verdict}
        self._mix: Pick[Card] = Pick(min(size, MOST_MIXED))
        shuffled = sorted(parts, key=lambda part: (hash64(seed, part), part))
        self._group = {part: place // PARTS_TOGETHER for place, part in enumerate(shuffled)}

    def add(self, table: pa.Table) -> None:
        """Offers the rows that reached the filter (the caller chooses the rows)."""
        verdicts, changes = verdicts_of(table), changes_of(table)
        columns = [table.column(name).to_pylist() for name in ("id", "part", "row")]
        for index, (verdict, id_, part, row) in enumerate(zip(verdicts, *columns, strict=True)):
            pick = self._picks[verdict]
            pick.seen += 1
            near = (self._group.get(part, 0), row // ROWS_TOGETHER)
            least = -changes[index] if verdict is Verdict.CHANGED else 0
            for into, first, seed in ((pick, least, f"{self._seed}"), (self._mix, 0, f"{self._seed} mix")):
                key = (*near, first, hash64(seed, id_), part, row)
                if into.wants(key):
                    into.put(key, _card(table, index, verdict))

    def seen(self, verdict: Verdict) -> int:
        """How many rows of this verdict there are in all."""
        return self._picks[verdict].seen

    def mix(self) -> list[Card]:
        """A random choice of all rows, in random but repeatable order."""
        return self._mix.chosen()

    def chosen(self, verdict: Verdict) -> list[Card]:
        """The chosen rows of this verdict: the changed ones by how much, others in random but repeatable order."""
        return self._picks[verdict].chosen()


def verdicts_of(table: pa.Table) -> list[Verdict]:
    """The verdict on each row, from its texts' origins and ``kept`` flags."""
    captions = table.column("captions").combine_chunks()
    flat = pc.list_flatten(captions)
    parents = pc.list_parent_indices(captions).to_numpy(zero_copy_only=False)
    made = pc.equal(flat.field("origin"), str(Origin.SYNTHETIC)).to_numpy(zero_copy_only=False)
    kept = flat.field("kept").to_numpy(zero_copy_only=False)

    def any_of(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return np.bincount(parents[mask], minlength=len(captions)) > 0

    choice = np.select(
        [
            pc.equal(table.column("drop"), str(Drop.NO_CAPTION_KEPT)).fill_null(False).to_numpy(),
            any_of(made & kept) & any_of(~made & ~kept) & ~any_of(~made & kept),
            any_of(~made & kept) & any_of(made & ~kept) & ~any_of(made & kept),
        ],
        [Verdict.NOTHING.value, Verdict.CHANGED.value, Verdict.DOUBTED.value],
        Verdict.AGREED.value,
    )
    return [Verdict(name) for name in choice.tolist()]


def changes_of(table: pa.Table) -> list[int]:
    """How much better the best synthetic text of each row scores than its best original one, in millionths."""
    captions = table.column("captions").combine_chunks()
    flat = pc.list_flatten(captions)
    parents = pc.list_parent_indices(captions).to_numpy(zero_copy_only=False)
    made = pc.equal(flat.field("origin"), str(Origin.SYNTHETIC)).to_numpy(zero_copy_only=False)
    scores = np.nan_to_num(flat.field("itm").fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64))
    best = np.zeros((2, len(captions)))
    for which, mask in enumerate((~made, made)):
        np.maximum.at(best[which], parents[mask], scores[mask])
    changes: list[int] = np.rint((best[1] - best[0]) * 1e6).astype(np.int64).tolist()
    return changes


def change(card: Card) -> float:
    """How much better the best synthetic text scores than the best original one, in [-1, 1]."""
    best = {True: 0.0, False: 0.0}
    for caption in card.captions:
        made = caption["origin"] == Origin.SYNTHETIC
        best[made] = max(best[made], caption["itm"] or 0.0)
    return best[True] - best[False]


def with_pictures(cards: Sequence[Card], thumbnails: Mapping[str, bytes]) -> tuple[Card, ...]:
    """The cards, each with its thumbnail where there is one for its id."""
    return tuple(replace(card, thumbnail=thumbnails.get(card.id, b"")) for card in cards)


def thumbnail(image: bytes, side: int = THUMBNAIL_SIDE) -> bytes:
    """A small JPEG of a normalised image, at most ``side`` px; empty if it cannot be decoded."""
    try:
        small = decode(image)
    except DataError:
        return b""
    small.thumbnail((side, side))
    data = b""
    for quality in (78, 50, 25, 10):
        out = BytesIO()
        small.save(out, "JPEG", quality=quality, optimize=True)
        data = out.getvalue()
        if len(data) <= THUMBNAIL_BYTES:
            break
    return data


def shorten(text: str, most: int = MAX_TEXT) -> str:
    """The text with control characters made visible and its end cut off after ``most`` characters."""
    visible = "".join(map(_visible, text[: most + 1]))
    return visible if len(visible) <= most else visible[: most - 1] + "…"


def _visible(char: str) -> str:
    if char.isspace():
        return " "
    # Joiners belong to words and emoji; other format characters could turn the page's text around.
    return char if char.isprintable() or char in "\u200c\u200d" else "\ufffd"


def _card(table: pa.Table, index: int, verdict: Verdict) -> Card:
    row = table.slice(index, 1).to_pylist()[0]
    captions: list[Caption] = row["captions"]
    return Card(
        id=row["id"],
        part=row["part"],
        row=row["row"],
        url=shorten(row["url"] or ""),
        width=row["width"],
        height=row["height"],
        captions=tuple(Caption(**{**caption, "text": shorten(caption["text"])}) for caption in captions[:MAX_CAPTIONS]),
        verdict=verdict,
    )

"""The record: one row per image from the first stage to the last, as Arrow columns.

A row is never lost. What is dropped travels on without its bytes, with a reason from :class:`Drop`, so
that ``rows in = kept + dropped`` can be checked for every part and for the whole run.

Knows Arrow and hashing; knows no files, no engine and no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from capfilt.errors import DataError


class Drop(StrEnum):
    """Why a row is not in the shards. Closed: a new reason is a change of the ledger's format."""

    NO_URL = "no_url"
    REFUSED_ADDRESS = "refused_address"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    HTTP_STATUS = "http_status"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    OPTED_OUT = "opted_out"
    TOO_LARGE = "too_large"
    NOT_AN_IMAGE = "not_an_image"
    BROKEN_IMAGE = "broken_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    BAD_ASPECT = "bad_aspect"
    PLACEHOLDER = "placeholder"
    UNREADABLE_ROW = "unreadable_row"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    NO_CAPTION_KEPT = "no_caption_kept"


class Origin(StrEnum):
    """Who wrote a caption (the paper's T_w, T_s and T_h)."""

    WEB = "web"
    SYNTHETIC = "synthetic"
    HUMAN = "human"


class Caption(TypedDict):
    """One caption of an image.

    ``itm`` is P(match) in [0, 1] from the filter's ITM head, ``itc`` the cosine of the two unimodal
    embeddings in [-1, 1]; both are None until a filter has scored the text.
    """

    text: str
    origin: str
    itm: float | None
    itc: float | None
    kept: bool


CAPTION = pa.struct(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("itm", pa.float32()),
        pa.field("itc", pa.float32()),
        pa.field("kept", pa.bool_(), nullable=False),
    ]
)

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("source_key", pa.string()),
        pa.field("image", pa.binary()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("sha256", pa.string()),
        pa.field("phash", pa.string()),
        pa.field("captions", pa.list_(CAPTION), nullable=False),
        pa.field("drop", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
"""The record's schema, from the first stage to the last.

``source_key`` is what the source itself calls the row (img2dataset's key, DataComp's uid, COCO's image id), by which
it is joined to what else is known of it. ``phash`` is the picture's perceptual hash, 64 bits as 16 hex digits: pictures
that look alike differ in few bits.
"""

LEDGER_SCHEMA = pa.schema([f for f in SCHEMA if f.name != "image"])
"""The record without its bytes: what ``pairs/*.parquet`` holds."""


META = ("id", "url", "source_key", "width", "height", "sha256", "phash")
"""Columns that shards tell of each picture, beside its captions."""


def row_id(where: str, caption: str) -> str:
    """The row's identity: blake2b-128 of (url or member path, original caption), 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for piece in (where, caption):
        data = piece.encode("utf-8", "surrogatepass")
        # The length before each piece keeps ("ab", "c") apart from ("a", "bc").
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def web_caption(text: str, origin: str = Origin.WEB) -> Caption:
    """A caption as it came with its picture: not scored, not yet kept."""
    return Caption(text=text, origin=str(origin), itm=None, itc=None, kept=False)


def table_of(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of :data:`SCHEMA`; absent nullable columns become null.

    Raises:
        DataError: a value does not fit its column.
    """
    try:
        return pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"rows do not fit the record's schema: {error}") from error


def conform(table: pa.Table, *, where: str) -> pa.Table:
    """The table itself if it has exactly :data:`SCHEMA`; else an error that shows both.

    Raises:
        DataError: a column is missing, unknown, out of order or of another type.
    """
    if table.schema.equals(SCHEMA, check_metadata=False):
        return table
    try:
        # Engines drop nullability on the way; types and order may not differ.
        return table.cast(SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, KeyError) as error:
        raise DataError(
            f"not the record's schema.\nexpected:\n{SCHEMA}\nfound:\n{table.schema}", where=where
        ) from error


def replace(table: pa.Table, columns: Mapping[str, Sequence[Any] | pa.Array]) -> pa.Table:
    """The table with the named columns replaced, each typed as :data:`SCHEMA` says."""
    for name, values in columns.items():
        kind = SCHEMA.field(name)
        array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, type=kind.type)
        table = table.set_column(SCHEMA.get_field_index(name), kind, array)
    return table


def scored_of(captions: pa.StructArray) -> pa.BooleanArray:
    """Whether the filter gave a text a score: P(match), a cosine or both. As long as ``captions``."""
    return pc.or_(pc.is_valid(captions.field("itm")), pc.is_valid(captions.field("itc")))


def judged_of(table: pa.Table) -> pa.ChunkedArray:
    """Which rows the filter's word decided on: kept, or dropped for want of a text. As long as ``table``, no nulls."""
    drop = table.column("drop")
    return pc.or_(pc.is_null(drop), pc.equal(drop, str(Drop.NO_CAPTION_KEPT)).fill_null(False))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """The books of a part or of a run.

    ``texts`` counts the scored captions by origin, ``texts_kept`` those of them that are kept: their ratio is the
    paper's noise ratio. Both speak of the pictures on which the filter's word was the last: what stays in the ledger of
    one that was dropped for another reason, as a duplicate, is in no shard, and no noise.
    """

    rows: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, int] = field(default_factory=dict)
    texts_kept: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """The books of one table of :data:`SCHEMA` or :data:`LEDGER_SCHEMA`."""
        # Of one column: filtering the table would copy every picture.
        return cls._of(table, table.column("captions").filter(judged_of(table)))

    @classmethod
    def with_duplicates(cls, table: pa.Table) -> Self:
        """The books as markers told them that were written when texts of duplicates still counted."""
        return cls._of(table, table.column("captions"))

    @classmethod
    def _of(cls, table: pa.Table, captions: pa.ChunkedArray) -> Self:
        flat = pc.list_flatten(captions).combine_chunks()
        scored = flat.filter(scored_of(flat))
        kept = scored.filter(scored.field("kept"))
        dropped = _counts(table.column("drop").combine_chunks())
        return cls(
            rows=table.num_rows,
            kept=table.num_rows - sum(dropped.values()),
            dropped=dropped,
            texts=_counts(scored.field("origin")),
            texts_kept=_counts(kept.field("origin")),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(**{name: data[name] for name in ("rows", "kept", "dropped", "texts", "texts_kept")})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "texts": dict(self.texts),
            "texts_kept": dict(self.texts_kept),
        }

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            rows=self.rows + other.rows,
            kept=self.kept + other.kept,
            dropped=_sum(self.dropped, other.dropped),
            texts=_sum(self.texts, other.texts),
            texts_kept=_sum(self.texts_kept, other.texts_kept),
        )

    def __sub__(self, other: Tally) -> Tally:
        less = Tally(
            rows=-other.rows,
            kept=-other.kept,
            dropped=_negative(other.dropped),
            texts=_negative(other.texts),
            texts_kept=_negative(other.texts_kept),
        )
        return self + less

    @property
    def balanced(self) -> bool:
        """Whether rows in = kept + dropped."""
        return self.rows == self.kept + sum(self.dropped.values())

    def noise_ratio(self, origin: str) -> float | None:
        """The share of scored texts of this origin that the filter removed, in [0, 1] (paper, Table 2)."""
        scored = self.texts.get(origin, 0)
        return 1 - self.texts_kept.get(origin, 0) / scored if scored else None


def _counts(values: pa.Array) -> dict[str, int]:
    pairs = pc.value_counts(values).to_pylist()
    return {p["values"]: p["counts"] for p in sorted(pairs, key=str) if p["values"] is not None}


def _negative(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: -count for key, count in counts.items()}


def _sum(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    sums = {key: left.get(key, 0) + right.get(key, 0) for key in sorted({*left, *right})}
    return {key: count for key, count in sums.items() if count}

"""The stage that ends a part: decides which rows are kept, commits the part, and hands on rows without pictures.

Knows tables and ``shards``; knows no engine, no model and no source.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from capfilt.errors import DataError
from capfilt.images import decode, extension
from capfilt.records import SCHEMA, Caption, Drop, replace
from capfilt.shards.commit import SinkConfig, commit_part
from capfilt.shards.marker import marker_of
from capfilt.sources.parts import Part
from capfilt.stages.base import Needs, Work
from capfilt.stages.retry import with_held
from capfilt.storage import Store

_QUALITY = 92


@dataclass(frozen=True, kw_only=True)
class WriteShards:
    """Writes shards, ledger and marker of each part; what comes out are the same rows without their pictures.

    A row of which no caption was kept becomes a drop. Equal rows of a part are all written.
    """

    dest: str
    """The destination: a local folder or any URL fsspec knows."""
    sink: SinkConfig = field(default_factory=SinkConfig)
    """Formats."""
    parts: Sequence[Part]
    """The plan: a part's marker repeats the digest of its content."""
    again: bool = False
    """Whether the parts are committed already, and rows that :class:`capfilt.stages.retry.HoldRows` held stay as
    they are there."""
    judge_by: Literal["itm", "itc"] = "itm"
    """The score that decided, which a drop's sentence tells."""

    @property
    def name(self) -> str:
        """Short name, as logs and plans show it."""
        return "sink"

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns it reads: all."""
        return tuple(SCHEMA.names)

    @property
    def writes(self) -> tuple[str, ...]:
        """Columns it changes."""
        return ("image", "sha256", "drop", "detail")

    @property
    def needs(self) -> Needs:
        """A quarter of a CPU, no memory reserved: most of its time it waits for the disk or the store."""
        return Needs(cpus=0.25)

    def open(self) -> Work:
        """The work: a whole part in, its rows without pictures out, the part committed."""
        return partial(
            _sink, store=Store(self.dest), sink=self.sink, parts=self.parts, again=self.again, judge_by=self.judge_by
        )


def _sink(
    table: pa.Table, *, store: Store, sink: SinkConfig, parts: Sequence[Part], again: bool, judge_by: str
) -> pa.Table:
    part = _planned(table, parts)
    over = marker_of(store, part.index) if again else None
    whole = table if over is None else with_held(store, table, over)
    judged = _judged(whole, jpeg=sink.images == "jpeg", judge_by=judge_by)
    commit_part(store, judged, part, sink, over=over)
    return replace(judged, {"image": pa.nulls(judged.num_rows, pa.binary())})


def _planned(table: pa.Table, parts: Sequence[Part]) -> Part:
    indices: list[int] = pc.unique(table.column("part")).to_pylist()
    if len(indices) != 1 or not 0 <= indices[0] < len(parts):
        raise DataError(f"the sink was given rows of parts {indices}, not of one planned part", where="stage sink")
    return parts[indices[0]]


def _judged(table: pa.Table, *, jpeg: bool, judge_by: str) -> pa.Table:
    """The table with rows that kept no caption dropped, and pictures only where a row is kept."""
    captions = table.column("captions").to_pylist()
    drops, details = table.column("drop").to_pylist(), table.column("detail").to_pylist()
    images, digests = [], []
    for row, texts in enumerate(captions):
        if drops[row] is None and not any(caption["kept"] for caption in texts):
            drops[row], details[row] = str(Drop.NO_CAPTION_KEPT), _why(texts, judge_by)
        image, digest = None, table.column("sha256")[row].as_py()
        if drops[row] is None:
            image = table.column("image")[row].as_py()
            image, digest = _as_jpeg(image, digest) if jpeg and image else (image, digest)
        images.append(image)
        digests.append(digest)
    changed: dict[str, Sequence[Any]] = {"image": images, "sha256": digests, "drop": drops, "detail": details}
    return replace(table, changed)


def _as_jpeg(image: bytes, digest: str | None) -> tuple[bytes, str | None]:
    if extension(image) == "jpg":
        return image, digest
    out = io.BytesIO()
    # What comes as PNG or WebP is often drawn: halved chroma would fringe its edges.
    decode(image).save(out, "JPEG", quality=_QUALITY, subsampling="4:4:4")
    return out.getvalue(), hashlib.sha256(out.getvalue()).hexdigest()


def _why(texts: Sequence[Caption], judge_by: str) -> str:
    if not texts:
        return "The picture has no caption."
    scores = [caption[judge_by] for caption in texts if caption[judge_by] is not None]  # type: ignore[literal-required]
    best = f"; the best {'match' if judge_by == 'itm' else 'cosine'} was {max(scores):.2f}" if scores else ""
    return (
        f"None of its {len(texts)} captions was kept{best}." if len(texts) > 1 else f"Its caption was not kept{best}."
    )

"""What a source is understood to be, before anything is done with it: rows, columns, a sample, and likely problems.

Reads metadata and the first rows of a few files, in constant memory; what cannot be counted cheaply is estimated, and
said to be. Knows the sources; fetches nothing and decodes nothing.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any

from capfilt.inputs import expand, size_of
from capfilt.records import Drop
from capfilt.sources import problems
from capfilt.sources.base import Source, SourceConfig, of_each
from capfilt.sources.folder import FolderSource
from capfilt.sources.opening import Told, open_source, told
from capfilt.sources.parts import Part
from capfilt.sources.problems import Problem, Seen
from capfilt.sources.sizes import Rows, files_of, first_rows, rows_of
from capfilt.sources.table import TableSource, column_names

_FILES = 3
"""Files that a sample is taken from: the first, the last and those between."""
_ROWS = 1000
_ROWS_WITH_BYTES = 60
"""Rows of a sample; fewer where each brings its picture."""
_HOSTS = 5
_TEXTS = 5


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One row of the sample."""

    url: str | None
    """Its address, or what stands for it."""
    key: str | None
    """What the source calls it."""
    texts: tuple[str, ...]
    """Its first captions."""
    bytes: int | None
    """Size of its picture; None if that is to be fetched."""
    drop: str | None
    """Why it would be dropped, as far as the source knows."""
    detail: str | None
    """The same as a sentence."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is known of a source without working on it."""

    path: str
    """As it was given."""
    kind: str
    """One of ``source.kind``."""
    told_by: str
    """By what the kind was told."""
    files: int
    """Files with rows in them."""
    bytes: int | None
    """Of all that is there; None for a folder of pictures, or where a file system does not say."""
    rows: int | None
    """None where counting would read everything and nothing allows an estimate."""
    exact: bool
    """Whether ``rows`` was counted and not estimated."""
    parts: int | None
    """Expected parts, and so shards, with the recipe's ``plan.part_rows``."""
    carries: bool
    """Whether pictures are in the source and need not be fetched."""
    columns: tuple[str, ...]
    """Of a table's first file."""
    used: dict[str, str]
    """From what a column is used for to its name."""
    looked_at: int
    """Rows of the sample that the following is said of."""
    without_url: float
    """Share without an address, in [0, 1]."""
    without_caption: float
    """Share without a text, in [0, 1]."""
    dropped: dict[str, int]
    """From reason to rows that the source itself would drop."""
    repeated_urls: int
    """Rows whose address stood before them in the sample."""
    repeated_captions: int
    """Texts that stood before them in the sample."""
    median_caption: float | None
    """Median length of a text in characters."""
    hosts: dict[str, int]
    """From host to rows that are to be fetched from it, the most frequent first."""
    sample: tuple[Shown, ...]
    """The first rows."""
    problems: tuple[Problem, ...]
    """What is likely wrong, and how to mend it."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def inspect(config: SourceConfig, *, part_rows: int, shown: int = 5) -> Inspection:
    """Looks at a source.

    Args:
        config: the source and how it is read.
        part_rows: rows a part, from which their number is expected.
        shown: rows of the sample that are shown.

    Raises:
        SourceError: nothing is there, or it is not what it says it is. DataError: annotations of no known kind.
    """
    how = told(config.path) if config.kind == "auto" else Told(config.kind, "source.kind")
    source = open_source(config)
    files, columns, used = files_of(source), *_columns(source)
    rows = rows_of(source, files)
    table = list(_sample(source, files))
    seen = Seen(config=config, kind=how.kind, files=tuple(files), rows=tuple(table), columns=columns)
    return Inspection(
        path=config.path,
        kind=how.kind,
        told_by=how.why,
        files=len(source.names) if isinstance(source, FolderSource) else len(files),
        bytes=None if isinstance(source, FolderSource) else _bytes(expand(config.path)),
        rows=rows.count,
        exact=rows.exact,
        parts=_parts(rows, part_rows),
        carries=source.has_bytes,
        columns=columns,
        used=used,
        looked_at=len(table),
        without_url=_share(not row["url"] for row in table),
        without_caption=_share(not row["texts"] and row["drop"] != Drop.UNREADABLE_ROW for row in table),
        dropped=dict(Counter(row["drop"] for row in table if row["drop"]).most_common()),
        repeated_urls=_repeated(row["url"] for row in table if row["url"]),
        repeated_captions=_repeated(chain.from_iterable(row["texts"] for row in table)),
        median_caption=_median([len(text) for row in table for text in row["texts"]]),
        hosts=_hosts(table),
        sample=tuple(_shown(row) for row in table[:shown]),
        problems=tuple(problems.found(seen)),
    )


def _columns(source: Source) -> tuple[tuple[str, ...], dict[str, str]]:
    if isinstance(source, TableSource):
        return tuple(column_names(source.files[0])), source.columns(source.files[0]).used
    return (), {}


def _sample(source: Source, files: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Of the first rows of a few files, what is looked at; their pictures are forgotten at once."""
    wanted = _ROWS_WITH_BYTES if source.has_bytes else _ROWS
    count = min(_FILES, len(files))
    chosen = [files[at * (len(files) - 1) // max(1, count - 1)] for at in range(count)]
    for file in chosen:
        stop = first_rows(source, file, -(-wanted // count))
        if stop:
            for batch in source.read(Part(index=0, file=file, start=0, stop=stop, digest="")).to_batches(1):
                yield from map(_looked, batch.to_pylist())


def _looked(row: dict[str, Any]) -> dict[str, Any]:
    texts = [caption["text"] for caption in row["captions"]]
    size = None if row["image"] is None else len(row["image"])
    return {**{name: row[name] for name in ("url", "source_key", "drop", "detail")}, "texts": texts, "bytes": size}


def _shown(row: dict[str, Any]) -> Shown:
    return Shown(
        url=row["url"],
        key=row["source_key"],
        texts=tuple(row["texts"][:_TEXTS]),
        bytes=row["bytes"],
        drop=row["drop"],
        detail=row["detail"],
    )


def _bytes(files: Sequence[str]) -> int | None:
    sizes = of_each(size_of, files)
    return None if None in sizes else sum(size or 0 for size in sizes)


def _parts(rows: Rows, part_rows: int) -> int | None:
    if rows.each is not None:
        return sum(-(-count // part_rows) for count in rows.each)
    return None if rows.count is None else -(-rows.count // part_rows)


def _hosts(table: Sequence[dict[str, Any]]) -> dict[str, int]:
    hosts = (problems.host_of(row["url"]) for row in table if row["bytes"] is None and row["drop"] is None)
    return dict(islice(Counter(filter(None, hosts)).most_common(), _HOSTS))


def _share(values: Iterator[bool]) -> float:
    told = list(values)
    return sum(told) / len(told) if told else 0.0


def _repeated(values: Iterator[str]) -> int:
    return sum(count - 1 for count in Counter(values).values())


def _median(lengths: Sequence[int]) -> float | None:
    return statistics.median(lengths) if lengths else None

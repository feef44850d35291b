"""How many rows a source has, cheaply: from metadata, by counting what is small, else estimated from a sample.

Knows the sources; holds no rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from capfilt.inputs import size_of
from capfilt.sources import documents, lines, parquet, webdataset
from capfilt.sources.annotated import AnnotatedSource
from capfilt.sources.base import Source, of_each
from capfilt.sources.folder import FolderSource
from capfilt.sources.table import table_kind

_COUNTED_BYTES = 64 << 20
"""Text and tars up to this are counted, and beyond it estimated."""
_FOOTERS = 256
"""Parquet files whose footers are read; of more, so many of them tell for all."""
_RECORDS = 2000


@dataclass(frozen=True)
class Rows:
    """A number of rows."""

    count: int | None
    """None if it is not known."""
    exact: bool
    """Whether it was counted."""
    each: tuple[int, ...] | None = None
    """Of each file, if all were counted."""


def files_of(source: Source) -> list[str]:
    """What a part of the source may name as its file."""
    return [source.root] if isinstance(source, FolderSource) else list(getattr(source, "files", ()))


def rows_of(source: Source, files: Sequence[str]) -> Rows:
    """The rows of a source, or about how many.

    Args:
        source: the source.
        files: all its files.

    Raises:
        SourceError: a file is not what it says it is.
    """
    if isinstance(source, FolderSource):
        return _exactly([len(source.names)])
    if isinstance(source, AnnotatedSource):
        return _exactly([source.rows(file) for file in files])
    if all(file.endswith(".parquet") for file in files):
        chosen = files[:: -(-len(files) // _FOOTERS)]
        counts = [footer.rows for footer in of_each(parquet.footer, chosen)]
        return _exactly(counts) if len(chosen) == len(files) else Rows(sum(counts) * len(files) // len(chosen), False)
    sizes = [size or 0 for size in of_each(size_of, files)]
    if sum(sizes) <= _COUNTED_BYTES and not any(map(_packed, files)):
        return _exactly(of_each(_count, files))
    return Rows(_estimate(files[0], sizes[0], sum(sizes)), exact=False)


def first_rows(source: Source, file: str, most: int) -> int:
    """How many rows a file has, up to a number.

    Raises:
        SourceError: it is not what it says it is.
    """
    if isinstance(source, FolderSource):
        return min(most, len(source.names))
    if isinstance(source, AnnotatedSource):
        return min(most, source.rows(file))
    kind = table_kind(file)
    if kind == "parquet":
        return min(most, parquet.footer(file).rows)
    if kind is None:
        return webdataset.first_samples(file, most)
    found = documents.records(file) if kind == "json" else lines.records(file, kind)
    return sum(1 for _ in islice(found, most))


def _exactly(counts: Sequence[int]) -> Rows:
    return Rows(sum(counts), True, tuple(counts))


def _count(file: str) -> int:
    kind = table_kind(file)
    if kind is None:
        return webdataset.count(file, lambda _, __: None)
    if kind == "parquet":
        return parquet.footer(file).rows
    counted = documents.count(file) if kind == "json" else lines.count(file, kind)
    return counted.rows


def _estimate(file: str, size: int, total: int) -> int | None:
    """Rows of all files, if they are as large as those at the beginning of the first."""
    kind = table_kind(file)
    if kind is None:
        return webdataset.count(file, lambda _, __: None) * total // max(1, size)
    if kind == "parquet" or _packed(file) or (kind == "json" and documents.layout(file).shape == "lists"):
        return None
    found = documents.records(file) if kind == "json" else lines.records(file, kind)
    # The raw text of a line has its end, that of an element not.
    between = 2 if kind == "json" else 0
    lengths = [len(record.raw.encode()) + between for record in islice(found, _RECORDS)]
    return total * len(lengths) // sum(lengths) if lengths else 0


def _packed(file: str) -> bool:
    return PurePosixPath(file).suffix.lower() in {".gz", ".tgz", ".zst"}

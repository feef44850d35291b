"""Annotated pictures as a source: one row a picture with all its texts, its bytes where files are, else its address.

Knows where pictures lie; the files' layouts are those of ``annotations``. Decodes no picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from capfilt.errors import SourceError
from capfilt.inputs import expand, is_local, open_read
from capfilt.records import Drop, table_of
from capfilt.sources import documents
from capfilt.sources.annotations import annotated, content, inside
from capfilt.sources.base import (
    Counted,
    SourceConfig,
    changed,
    described,
    planned,
    row_of,
    unreadable,
)
from capfilt.sources.columns import text_of
from capfilt.sources.parts import Part, Parts
from capfilt.storage import Store

_WEB = ("http://", "https://")
_IMAGE_BYTES = 64 << 20
_CHUNK_ROWS = 10_000
_ROW = pa.schema([("key", pa.string()), ("name", pa.string()), ("texts", pa.list_(pa.string())), ("url", pa.string())])


@dataclass(frozen=True)
class AnnotatedSource:
    """Rows of annotation files. Pictures that are files (or lie in a store) are read; those of the web are fetched."""

    config: SourceConfig

    @property
    def has_bytes(self) -> bool:
        """Whether the first picture is read from a file."""
        first = next(annotated(self.files[0], splits=self.config.splits), None)
        return first is not None and not self.place(self.files[0], first.name, first.url).startswith(_WEB)

    @property
    def origin(self) -> str:
        """Whose captions they are."""
        return self.config.origin

    def parts(self, part_rows: int) -> Parts:
        """The plan, as :class:`capfilt.sources.base.Source` has it.

        Raises:
            SourceError: no annotations are there, or they name no picture. DataError: a file is of no known kind.
        """
        if not sum(item.rows for item in self._counted):
            raise SourceError(
                "the annotations name no picture", where=self.config.path, mend="Check the file, and source.splits."
            )
        return planned(self._counted, self._digests, part_rows)

    def read(self, part: Part) -> pa.Table:
        """The part's rows; a picture that is not where it should be is a drop.

        Raises:
            SourceError: the file is gone or names fewer pictures than planned.
        """
        rows = _rows(part.file, self.config.splits, content(part.file)).slice(part.start, part.stop - part.start)
        if rows.num_rows != part.stop - part.start:
            raise changed(part)
        return table_of(self._row(part, row, **told) for row, told in enumerate(rows.to_pylist(), part.start))

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        return described("annotations", self._counted, self._digests, path=self.config.path, origin=self.origin)

    @cached_property
    def files(self) -> list[str]:
        """The annotation files, sorted.

        Raises:
            SourceError: none is there.
        """
        found = [file for file in expand(self.config.path) if file.lower().endswith(".json")]
        if len(found) > 1:
            found = [file for file in found if documents.layout(file).shape == "annotations"]
        if not found:
            raise SourceError(
                "no annotations are there", where=self.config.path, mend="Annotations end in .json; name the file."
            )
        return found

    def place(self, file: str, name: str, url: str) -> str:
        """Where a picture is: below ``images`` if that is set, else its own address, else beside the file."""
        if name.startswith(_WEB):
            return name
        if self.config.images:
            return f"{self.root(file)}/{name}"
        return url or f"{self.root(file)}/{name}"

    def root(self, file: str) -> str:
        """Where the pictures of a file lie, without a slash at its end."""
        if self.config.images.startswith(_WEB):
            return self.config.images.rstrip("/")
        # Absolute: workers stand elsewhere.
        return Store(self.config.images).url if self.config.images else file.rpartition("/")[0]

    def rows(self, file: str) -> int:
        """How many pictures one of its files names.

        Raises:
            DataError: it is of no known kind.
        """
        return int(_rows(file, self.config.splits, content(file)).num_rows)

    @cached_property
    def _counted(self) -> list[Counted]:
        return [Counted(file, self.rows(file)) for file in self.files]

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {file: content(file) for file in self.files}

    def _row(self, part: Part, row: int, key: str, name: str, texts: list[str], url: str) -> dict[str, Any]:
        said = [text for text in map(text_of, texts) if text and text.strip()]
        told = row_of(part, row, url=text_of(name), texts=said, origin=self.origin, key=key)
        if told.get("drop"):
            return told
        place = self.place(part.file, name, url)
        # The id is of the name as the annotations have it: the same picture may come from elsewhere.
        if place.startswith(_WEB):
            return told | {"url": place}
        try:
            data = _data(self.root(part.file), inside(name))
        except (ValueError, SourceError, OSError) as error:
            detail = f"The picture: {error.what if isinstance(error, SourceError) else error}."
            return unreadable(part, row, where=name, text=said[0] if said else "", detail=detail[:300], key=key)
        if len(data) > _IMAGE_BYTES:
            return told | {"drop": str(Drop.TOO_LARGE), "detail": f"The file has more than {_IMAGE_BYTES:,} bytes."}
        return told | {"image": data}


@lru_cache(maxsize=2)
def _rows(file: str, splits: tuple[str, ...], digest: str) -> pa.Table:
    """All rows of a file, read once in a process for each content: a part's texts may lie anywhere in it."""
    del digest  # only tells one file from what another was at its place
    found = annotated(file, splits=splits)
    return pa.concat_tables([_ROW.empty_table(), *_chunks(vars(item) for item in found)])


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        yield pa.Table.from_pylist(chunk, schema=_ROW)


def _data(root: str, name: str) -> bytes:
    place = f"{root}/{name}"
    if is_local(root):
        path = Path(place)
        if path.exists() and not path.is_file():
            raise SourceError("it is no file", where=place)
        if not path.resolve().is_relative_to(Path(root).resolve()):
            raise SourceError("a link leads out of the folder", where=place)
    with open_read(place) as file:
        return file.read(_IMAGE_BYTES + 1)

"""img2dataset's output folder: tables of all rows, failed ones too, each beside the tar (or folder) of its pictures.

Rows come from the tables, so that what failed is a drop with its reason and not forgotten; pictures are found by the
rows' keys. A tar whose table is missing or unfinished, as a killed run leaves it, gives the samples it has. Knows
img2dataset's formats ``webdataset``, ``files`` and ``parquet``; decodes no picture.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from capfilt.errors import SourceError
from capfilt.inputs import expand, identity, is_folder, open_read
from capfilt.records import Drop, table_of
from capfilt.sources import parquet, webdataset
from capfilt.sources.base import Counted, SourceConfig, changed, described, of_each, planned, row_of, unreadable
from capfilt.sources.columns import key_of, text_of, texts_of
from capfilt.sources.parts import Part, Parts
from capfilt.sources.webdataset import IMAGE_EXTENSIONS, WebDatasetSource

_MARKS = frozenset({"key", "status", "error_message"})
"""Columns by which its tables are known."""
_IMAGE_BYTES = 64 << 20
_LEADS_OUT = re.compile(r"[/\\\0]|::")
_REASONS = (
    ("redirect", Drop.TOO_MANY_REDIRECTS),
    (r"HTTP Error \d", Drop.HTTP_STATUS),
    ("timed out|timeout", Drop.TIMED_OUT),
    ("X-Robots-Tag", Drop.OPTED_OUT),
    ("unknown url type|no host given", Drop.NO_URL),
    ("decoding error", Drop.NOT_AN_IMAGE),
    ("too small", Drop.TOO_SMALL),
    ("aspect ratio", Drop.BAD_ASPECT),
)
"""From what an error message says to the nearest reason."""
_OTHERS = {"failed_to_resize": Drop.BROKEN_IMAGE}


def has_output(files: Sequence[str]) -> bool:
    """Whether files are img2dataset's output: a table of rows with their status, and pictures beside or in it."""
    tables = [file for file in files if file.endswith(".parquet")]
    beside = {file.removesuffix(".tar") for file in files if file.endswith(".tar")}
    beside |= {file.rpartition("/")[0] for file in files if file.endswith(IMAGE_EXTENSIONS)}
    paired = [file for file in tables if _stem(file) in beside]
    for file in (paired or tables)[:1]:
        try:
            footer = parquet.footer(file)
        except SourceError:
            return False
        return set(footer.names) >= _MARKS and bool(paired or footer.pictures)
    return False


@dataclass(frozen=True)
class Img2datasetSource:
    """Rows of img2dataset's tables; each that succeeded carries its picture as it was stored."""

    config: SourceConfig

    @property
    def has_bytes(self) -> bool:
        """Always."""
        return True

    @property
    def origin(self) -> str:
        """Whose captions they are."""
        return self.config.origin

    def parts(self, part_rows: int) -> Parts:
        """The plan, as :class:`capfilt.sources.base.Source` has it; rows are counted by the tables' metadata.

        Raises:
            SourceError: it is not img2dataset's folder, or has no rows.
        """
        if not sum(item.rows for item in self._counted):
            raise SourceError("there are no rows", where=self.config.path, mend="Run img2dataset again.")
        return planned(self._counted, self._digests, part_rows)

    def read(self, part: Part) -> pa.Table:
        """The part's rows in the order of their table; failed ones, and ones whose picture is gone, are drops.

        Raises:
            SourceError: the file is gone or has fewer rows than planned.
        """
        if part.file.endswith(".tar"):
            return WebDatasetSource(self.config).read(part)
        footer = parquet.footer(part.file)
        names = [*_MARKS, "url", *(["caption"] if "caption" in footer.names else []), *footer.pictures[:1]]
        read = parquet.cells(part.file, names, part.start, part.stop, pictures=bool(footer.pictures))
        rows = [cells if isinstance(cells, str) else dict(zip(names, cells, strict=True)) for cells in read]
        if len(rows) != part.stop - part.start:
            raise changed(part)
        keys = {key_of(row["key"]) or "" for row in rows if not isinstance(row, str) and _succeeded(row)}
        stored = _Stored(part.file, keys, rows, footer.pictures)
        return table_of(self._row(part, at, row, stored) for at, row in enumerate(rows, part.start))

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values; ``tars_alone`` counts tars without a finished table."""
        alone = sum(item.file.endswith(".tar") for item in self._counted)
        return described(
            "img2dataset",
            self._counted,
            self._digests,
            path=self.config.path,
            origin=self.origin,
            tars_alone=alone,
        )

    @cached_property
    def files(self) -> list[str]:
        """The tables, and the tars without one, in order.

        Raises:
            SourceError: no table of img2dataset is there.
        """
        found = expand(self.config.path)
        tables = [file for file in found if file.endswith(".parquet")]
        finished = [file for file, whole in zip(tables, of_each(_whole, tables), strict=True) if whole]
        if not finished:
            raise SourceError(
                "no finished table of img2dataset is there",
                where=self.config.path,
                mend="Name img2dataset's output folder, with its .parquet files; plain tars are kind webdataset.",
            )
        stems = {_stem(file) for file in finished}
        alone = [file for file in found if file.endswith(".tar") and _stem(file) not in stems]
        return sorted([*finished, *alone])

    @cached_property
    def _counted(self) -> list[Counted]:
        return of_each(_count, self.files)

    @cached_property
    def _digests(self) -> dict[str, str]:
        return dict(zip(self.files, of_each(_digest, self.files), strict=True))

    def _row(self, part: Part, row: int, told: dict[str, Any] | str, stored: _Stored) -> dict[str, Any]:
        if isinstance(told, str):
            return unreadable(part, row, where=f"{part.digest}:{row}", text="", detail=told)
        key, url, texts = key_of(told["key"]), text_of(told["url"]), texts_of(told.get("caption")) or []
        image = stored.pictures.get(key or "")
        made = row_of(part, row, url=url or None, texts=texts, origin=self.origin, key=key, image=image)
        if image or made.get("drop"):
            return made
        if not _succeeded(told):
            return made | _failure(text_of(told["status"]) or "", text_of(told["error_message"]) or "")
        detail = f"img2dataset stored this picture, but it is not there: {stored.problem or 'no file has its key'}."
        return made | {"drop": str(Drop.UNREADABLE_ROW), "detail": detail}


class _Stored:
    """The pictures of a part, by key, and what is wrong where some are missing."""

    def __init__(
        self, table: str, keys: Collection[str], rows: Sequence[dict[str, Any] | str], columns: Sequence[str]
    ) -> None:
        self.pictures: Mapping[str, bytes] = {}
        self.problem = ""
        stem, said = _stem(table), Counter[str]()
        if columns:
            found = {key_of(row["key"]) or "": row[columns[0]] for row in rows if not isinstance(row, str)}
            self.pictures = {key: data for key, data in found.items() if data}
        elif is_folder(stem):
            self.pictures = {key: data for key in keys if (data := _file(stem, key))}
        elif keys:
            try:
                self.pictures = webdataset.pictures(f"{stem}.tar", keys, lambda _, reason: said.update([reason]))
            except SourceError as error:
                said.update([f"{PurePosixPath(stem).name}.tar: {error.what}"])
            self.problem = "; ".join(said)


def _file(folder: str, key: str) -> bytes | None:
    if _LEADS_OUT.search(key):  # keys are numbers, but a table may be a stranger's
        return None
    for extension in IMAGE_EXTENSIONS:
        try:
            with open_read(f"{folder}/{key}.{extension}") as file:
                return file.read(_IMAGE_BYTES)
        except SourceError:
            continue
    return None


def _succeeded(row: Mapping[str, Any]) -> bool:
    return text_of(row["status"]) == "success"


def _failure(status: str, message: str) -> dict[str, Any]:
    reason = next((drop for pattern, drop in _REASONS if re.search(pattern, message, re.IGNORECASE)), None)
    told = f"{status or 'no status'}: {message}" if message else status or "no status"
    detail = f"img2dataset says {told.rstrip('.')[:300]}."
    return {"drop": str(reason or _OTHERS.get(status, Drop.UNREACHABLE)), "detail": detail}


def _whole(table: str) -> bool:
    """Whether a table has its end, and so img2dataset finished it."""
    try:
        return set(parquet.footer(table).names) >= _MARKS
    except SourceError:
        return False


def _count(file: str) -> Counted:
    if file.endswith(".tar"):
        return Counted(file, webdataset.count(file, lambda _, __: None))
    return Counted(file, parquet.footer(file).rows)


def _digest(file: str) -> str:
    digest, tar = identity(file), f"{_stem(file)}.tar"
    try:
        return hashlib.sha256(f"{digest}\n{identity(tar)}".encode()).hexdigest()
    except (SourceError, FileNotFoundError):
        return digest


def _stem(file: str) -> str:
    return file.rpartition(".")[0]

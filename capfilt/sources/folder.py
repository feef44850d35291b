"""A folder of pictures, each with a text file of the same name beside it or none.

Pictures are rows in the order of their paths. Links that lead out of the folder are passed over. Knows names and
files; decodes no picture.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from capfilt.errors import SourceError
from capfilt.inputs import expand, is_folder, is_local, open_read, size_of
from capfilt.records import Drop, table_of
from capfilt.sources.base import SourceConfig, row_of, unreadable
from capfilt.sources.columns import text_of
from capfilt.sources.parts import Part, Parts, Stretch, cut
from capfilt.sources.webdataset import IMAGE_EXTENSIONS
from capfilt.storage import Store

_IMAGE_BYTES = 64 << 20
_TEXT_BYTES = 1 << 20
_EDGE_BYTES = 4 << 10


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return PurePosixPath(name).suffix.lower().removeprefix(".") in IMAGE_EXTENSIONS


@dataclass(frozen=True)
class FolderSource:
    """Rows of a folder; each carries its picture as it came, and its path in the folder as ``url``."""

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
        """The plan, as :class:`capfilt.sources.base.Source` has it; digests are of names, sizes and files' ends.

        Raises:
            SourceError: it is no folder, or no pictures are in it.
        """
        parts = cut([(self.root, len(self.names), "")], part_rows)
        # Of each part its own: a picture that was changed spoils the part that it is in, and no other.
        return Parts(
            Stretch(
                file=part.file,
                first=part.start,
                rows=part.stop - part.start,
                parts=1,
                digest=self._digest(self.names[part.start : part.stop]),
            )
            for part in parts
        )

    def read(self, part: Part) -> pa.Table:
        """The part's rows with their raw pictures; one that is gone or cannot be read is a drop."""
        names = enumerate(self.names[part.start : part.stop], part.start)
        return table_of(self._row(part, row, name) for row, name in names)

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values; ``refused_links`` counts links that lead out of it."""
        return {
            "kind": "folder",
            "path": self.config.path,
            "origin": self.origin,
            "rows": len(self.names),
            "texts": len(self._texts),
            "refused_links": self._found[2],
        }

    @cached_property
    def _found(self) -> tuple[list[str], frozenset[str], int]:
        """(names of pictures, names of texts, refused links), relative to the folder."""
        if not is_folder(self.config.path):
            raise SourceError(
                "it is no folder", where=self.config.path, mend="Name the folder that holds the pictures."
            )
        names, refused = _listed(self.root)
        pictures = sorted(name for name in names if is_picture(name))
        if not pictures:
            raise SourceError(
                "no pictures are in the folder",
                where=self.config.path,
                mend=f"Pictures end in .{', .'.join(IMAGE_EXTENSIONS)}.",
            )
        beside = {str(PurePosixPath(name).with_suffix(".txt")) for name in pictures}
        return pictures, frozenset(beside.intersection(names)), refused

    @cached_property
    def root(self) -> str:
        """The folder, absolute."""
        # Absolute: workers stand elsewhere.
        return Store(self.config.path).url

    @property
    def names(self) -> list[str]:
        """The pictures, by their paths in the folder, sorted.

        Raises:
            SourceError: it is no folder, or no pictures are in it.
        """
        return self._found[0]

    @property
    def _texts(self) -> frozenset[str]:
        return self._found[1]

    def _row(self, part: Part, row: int, name: str) -> dict[str, Any]:
        try:
            texts = [text] if (text := self._text(name)) else []
            size = size_of(self._at(name)) or 0
            if size > _IMAGE_BYTES:
                detail = f"The file has {size:,} bytes; at most {_IMAGE_BYTES:,} are read."
                told = row_of(part, row, url=text_of(name), texts=texts, origin=self.origin)
                return told | {"drop": str(Drop.TOO_LARGE), "detail": detail}
            with open_read(self._at(name)) as file:
                image = file.read(_IMAGE_BYTES)
        except (SourceError, OSError) as error:
            what = error.what if isinstance(error, SourceError) else str(error)
            return unreadable(part, row, where=name, text="", detail=f"The picture or its text: {what}.")
        return row_of(part, row, url=text_of(name), texts=texts, origin=self.origin, image=image)

    def _text(self, name: str) -> str:
        beside = str(PurePosixPath(name).with_suffix(".txt"))
        if beside not in self._texts:
            return ""
        with open_read(self._at(beside)) as file:
            return file.read(_TEXT_BYTES).decode("utf-8-sig", "replace").strip()

    def _digest(self, names: list[str]) -> str:
        digest = hashlib.sha256()
        for name in names:
            beside = str(PurePosixPath(name).with_suffix(".txt"))
            for each in (name, beside) if beside in self._texts else (name,):
                digest.update(f"{each}\0{size_of(self._at(each))}\0".encode("utf-8", "surrogateescape"))
                if is_local(self.root):
                    digest.update(_ends(Path(self._at(each))))
        return digest.hexdigest()

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"


def _listed(root: str) -> tuple[list[str], int]:
    """(names relative to the folder, links refused)."""
    if not is_local(root):
        return [file.removeprefix(root).lstrip("/") for file in expand(root)], 0
    found = list(_walk(Path(root)))
    return [name for name, inside in found if inside], sum(not inside for _, inside in found)


def _walk(root: Path) -> Iterator[tuple[str, bool]]:
    """(name, whether it may be read) of every visible file and every link to a folder."""
    real = root.resolve()
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in links)
        for name in links:
            yield (here / name).relative_to(root).as_posix(), False
        for name in files:
            file = here / name
            if name.startswith(".") or not file.is_file():
                continue
            inside = not file.is_symlink() or file.resolve().is_relative_to(real)
            yield file.relative_to(root).as_posix(), inside


def _ends(file: Path) -> bytes:
    with file.open("rb") as stream:
        head = stream.read(_EDGE_BYTES)
        stream.seek(max(0, file.stat().st_size - _EDGE_BYTES))
        return head + stream.read(_EDGE_BYTES)

"""From a recipe's source to the class that reads it, told by the names of the files and the beginning of JSON."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from capfilt.errors import SourceError
from capfilt.inputs import expand
from capfilt.sources import documents
from capfilt.sources.annotated import AnnotatedSource
from capfilt.sources.base import Source, SourceConfig
from capfilt.sources.folder import FolderSource, is_picture
from capfilt.sources.img2dataset import Img2datasetSource, has_output
from capfilt.sources.joined import JoinedSource
from capfilt.sources.table import TableSource, table_kind
from capfilt.sources.webdataset import TAR_ENDINGS, WebDatasetSource

_KINDS: dict[str, type[TableSource | WebDatasetSource | Img2datasetSource | FolderSource | AnnotatedSource]] = {
    "table": TableSource,
    "webdataset": WebDatasetSource,
    "img2dataset": Img2datasetSource,
    "folder": FolderSource,
    "annotations": AnnotatedSource,
}

_LOOKED_AT = 8
"""JSON documents that are looked into: Visual Genome has its addresses in one and its texts in another."""


def open_source(config: SourceConfig) -> Source:
    """The source that a config names, or the sources as one if others join it; rows are not read yet.

    Raises:
        SourceError: nothing is there, or nothing by whose name a kind could be told.
    """
    if config.also:
        return JoinedSource(tuple(open_source(one) for one in (replace(config, also=()), *config.also)))
    return _KINDS[told(config.path).kind if config.kind == "auto" else config.kind](config)


class Told(NamedTuple):
    """A kind and by what it was told."""

    kind: str
    why: str


def told(path: str) -> Told:
    """``img2dataset`` by its tables, else ``webdataset`` if tars are there, else ``table`` or ``folder``, whichever has
    more files.

    JSON documents count only where nothing else is, since one may lie beside anything.

    Raises:
        SourceError: nothing is there, or nothing of a known name.
    """
    files = expand(path)
    if has_output(files):
        return Told("img2dataset", "tables with a status for each row, and their pictures")
    # Our own folders have tables beside their tars.
    if tars := sum(file.lower().endswith(TAR_ENDINGS) for file in files):
        return Told("webdataset", _counted(tars, "tar"))
    kinds = [table_kind(file) for file in files]
    tables, pictures = sum(kind not in (None, "json") for kind in kinds), sum(map(is_picture, files))
    if tables or pictures:
        there = [_counted(number, what) for number, what in ((tables, "table"), (pictures, "picture")) if number]
        return Told("table" if tables >= pictures else "folder", f"{' and '.join(there)}, by name")
    if any(kinds):
        shapes = (documents.layout(file).shape for file, kind in zip(files, kinds, strict=True) if kind)
        found = list(islice(shapes, _LOOKED_AT))
        if "annotations" in found:
            return Told("annotations", "JSON of annotated pictures")
        return Told("table", f"JSON of {'lists side by side' if found[0] == 'lists' else 'rows with addresses'}")
    raise SourceError(
        "no table, no tars and no pictures by their names",
        where=path,
        mend="Give .parquet, .csv, .tsv, .jsonl or .json files, .tar shards or a folder of pictures, "
        "or set source.kind.",
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

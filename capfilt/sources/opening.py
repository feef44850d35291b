"""From a recipe's source to the class that reads it, told by the names of the files."""

from __future__ import annotations

from dataclasses import replace

from capfilt.errors import SourceError
from capfilt.inputs import expand
from capfilt.sources.base import Source, SourceConfig
from capfilt.sources.folder import FolderSource, is_picture
from capfilt.sources.joined import JoinedSource
from capfilt.sources.table import TableSource, table_kind
from capfilt.sources.webdataset import TAR_ENDINGS, WebDatasetSource

_KINDS: dict[str, type[TableSource | WebDatasetSource | FolderSource]] = {
    "table": TableSource,
    "webdataset": WebDatasetSource,
    "folder": FolderSource,
}


def open_source(config: SourceConfig) -> Source:
    """The source that a config names, or the sources as one if others join it; rows are not read yet.

    Raises:
        SourceError: nothing is there, or nothing by whose name a kind could be told.
    """
    if config.also:
        return JoinedSource(tuple(open_source(one) for one in (replace(config, also=()), *config.also)))
    return _KINDS[told_kind(config.path) if config.kind == "auto" else config.kind](config)


def told_kind(path: str) -> str:
    """``webdataset`` if tars are there, else ``table`` or ``folder``, whichever has more files.

    Raises:
        SourceError: nothing is there, or nothing of a known name.
    """
    files = expand(path)
    # img2dataset's folders, and our own, have tables beside their tars.
    if any(file.lower().endswith(TAR_ENDINGS) for file in files):
        return "webdataset"
    tables, pictures = sum(map(bool, map(table_kind, files))), sum(map(is_picture, files))
    if tables or pictures:
        return "table" if tables >= pictures else "folder"
    raise SourceError(
        "no table, no tars and no pictures by their names",
        where=path,
        mend="Give .parquet, .csv, .tsv or .jsonl files, .tar shards or a folder of pictures, or set source.kind.",
    )

"""What is likely wrong with a source, judged by a sample of its rows, and how to mend it.

Each check is a function from what was seen to problems. Knows rows and names; a language is not guessed.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from capfilt.errors import SourceError
from capfilt.inputs import expand
from capfilt.records import Drop
from capfilt.sources.annotations import has_splits
from capfilt.sources.base import SourceConfig
from capfilt.sources.img2dataset import has_output
from capfilt.sources.table import table_kind

_FILE_NAME = re.compile(
    r"\S+\.(jpe?g|png|gif|webp|bmp|tiff?)|(img|image|dsc|dscn|dscf|p|photo|picture|screenshot)[-_ ]?\d+", re.IGNORECASE
)
_MANY = 0.2
_MOST = 0.5
_ENOUGH = 20
"""Rows below which no share says anything."""


@dataclass(frozen=True)
class Problem:
    """Something likely wrong."""

    what: str
    """A sentence."""
    mend: str
    """What to do about it, as a sentence."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of a source."""

    config: SourceConfig
    """How it is read."""
    kind: str
    """What it is."""
    files: tuple[str, ...]
    """All its files."""
    rows: tuple[dict[str, Any], ...]
    """A sample: url, texts, bytes (of the picture, or None), drop, detail."""
    columns: tuple[str, ...]
    """Of a table."""


def found(seen: Seen) -> Iterator[Problem]:
    """All likely problems, the gravest first."""
    for check in _CHECKS:
        yield from check(seen)


def host_of(url: str | None) -> str:
    """The host of a web address; empty for anything else."""
    try:
        parts = urlsplit(url or "")
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    except ValueError:
        return ""


def _missing_pictures(seen: Seen) -> Iterator[Problem]:
    gone = [row for row in seen.rows if row["drop"] == Drop.UNREADABLE_ROW]
    if seen.kind == "annotations" and gone:
        yield Problem(
            f"{len(gone):,} of {len(seen.rows):,} pictures are not where they are looked for. {gone[0]['detail']}",
            "Set source.images to the folder, or the beginning of the URLs, that the names start from.",
        )
    elif gone:
        yield Problem(
            f"{len(gone):,} of {len(seen.rows):,} rows cannot be read. The first: {gone[0]['detail']}",
            "They become drops (unreadable_row); mend the source if there are too many.",
        )


def _addresses(seen: Seen) -> Iterator[Problem]:
    if seen.kind != "table":
        return
    fetched = [row for row in seen.rows if row["bytes"] is None and row["drop"] is None]
    bare = [row["url"] for row in fetched if row["url"] and ":" not in row["url"].partition("/")[0]]
    if len(bare) > _MANY * len(fetched):
        yield Problem(
            f"{len(bare):,} of {len(seen.rows):,} addresses have no scheme, as {bare[0][:80]!r}.",
            "Set source.url_base to what comes before them, as https://host/folder/.",
        )
    private = [host for host in {host_of(row["url"]) for row in fetched} if _private(host)]
    if private:
        yield Problem(
            f"Pictures are on a private address ({sorted(private)[0]}), which is refused.",
            "If the machine is yours, set fetch.allow_addresses to its range.",
        )


def _crowded_host(seen: Seen) -> Iterator[Problem]:
    hosts = Counter(filter(None, (host_of(row["url"]) for row in seen.rows if row["bytes"] is None)))
    for host, count in hosts.most_common(1):
        if len(seen.rows) >= _ENOUGH and count > _MOST * len(seen.rows):
            yield Problem(
                f"{count / len(seen.rows):.0%} of the rows are of one host, {host}, which sets the pace.",
                "Ask whether its owner minds, and keep fetch.per_host low: it is what one worker asks at once.",
            )


def _texts(seen: Seen) -> Iterator[Problem]:
    texts = [text for row in seen.rows for text in row["texts"]]
    without = sum(not row["texts"] for row in seen.rows)
    if len(seen.rows) >= _ENOUGH and without > _MOST * len(seen.rows):
        yield Problem(
            f"{without / len(seen.rows):.0%} of the rows have no caption: only a captioner's will be there.",
            "Set source.caption_column if the texts are in another column." if seen.columns else "Add a .txt to each.",
        )
    names = [text for text in texts if _FILE_NAME.fullmatch(text.strip())]
    if len(texts) >= _ENOUGH and len(names) > _MANY * len(texts):
        yield Problem(
            f"{len(names) / len(texts):.0%} of the captions look like file names, as {names[0].strip()[:60]!r}.",
            "A filter may let some pass: set source.caption_column if another column has the texts, or leave them out "
            "afterwards (capfilt refilter --origins synthetic).",
        )


def _repeats(seen: Seen) -> Iterator[Problem]:
    urls = Counter(row["url"] for row in seen.rows if row["url"])
    again = sum(count - 1 for count in urls.values())
    if len(seen.rows) >= _ENOUGH and again > _MANY * len(seen.rows):
        yield Problem(
            f"{again / len(seen.rows):.0%} of the addresses stood before in the sample.",
            "Leave repeated rows out of the table if each picture is wanted once.",
        )


def _failed(seen: Seen) -> Iterator[Problem]:
    failed = [row for row in seen.rows if row["drop"] and row["drop"] != Drop.UNREADABLE_ROW]
    if seen.kind == "img2dataset" and len(failed) > _MANY * len(seen.rows):
        yield Problem(
            f"img2dataset failed on {len(failed) / len(seen.rows):.0%} of the rows; they stay drops.",
            "To fetch all rows again, read its .parquet files as a table: --set source.kind=table.",
        )
    alone = [file for file in seen.files if file.endswith(".tar")]
    if seen.kind == "img2dataset" and alone:
        yield Problem(
            f"{len(alone):,} tars have no finished table beside them, as {PurePosixPath(alone[0]).name}: a run was "
            "stopped. Of these, only what is stored is read.",
            "Let img2dataset finish (it does such shards again), or leave them out.",
        )


def _better_kind(seen: Seen) -> Iterator[Problem]:
    if seen.kind == "webdataset" and has_output(_beside(seen.files[0])):
        yield Problem(
            "The tars are img2dataset's, and their tables lie beside them: rows that failed are not counted.",
            "Name the folder, or set source.kind to img2dataset.",
        )
    if seen.kind == "table" and {"status", "error_message"} <= set(seen.columns):
        yield Problem(
            "The table is img2dataset's, without its pictures: all are fetched again.",
            "Name the folder that has its tars too, if they are wanted.",
        )
    if seen.kind == "folder" and (listed := [name for name in _beside(f"{seen.files[0]}/x") if table_kind(name)]):
        yield Problem(
            f"{PurePosixPath(listed[0]).name} lies in the folder of pictures and is not read.",
            "If it holds their captions, name that file as the source.",
        )


def _annotators(seen: Seen) -> Iterator[Problem]:
    if seen.kind != "annotations":
        return
    if seen.config.origin == "web":
        yield Problem(
            "The captions are taken for scraped ones, and a filter may reject them.",
            "If people wrote them for the pictures, set source.origin to human.",
        )
    if not seen.config.splits and any(map(has_splits, seen.files)):
        yield Problem(
            "The file has splits, and all of them are taken, those to test on too.",
            "Set source.splits, as [train, restval].",
        )


_CHECKS: tuple[Callable[[Seen], Iterator[Problem]], ...] = (
    _missing_pictures,
    _addresses,
    _better_kind,
    _failed,
    _texts,
    _crowded_host,
    _repeats,
    _annotators,
)


def _beside(file: str) -> list[str]:
    """Files of the folder that a file is in."""
    try:
        return expand(f"{file.rpartition('/')[0]}/*")
    except SourceError:
        return []


def _private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost"

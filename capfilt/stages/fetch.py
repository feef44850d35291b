"""The stage that brings pictures in: from their URLs, or from bytes a source already carries.

Knows tables and ``fetch``; knows no engine and no model.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from capfilt.fetch.client import Fetched
from capfilt.fetch.config import FetchConfig
from capfilt.fetch.peer import require_installed
from capfilt.fetch.process import fetch_all
from capfilt.images import Picture, Refused, normalise
from capfilt.records import Drop, replace
from capfilt.stages.base import Needs, Work

_WEB = ("http://", "https://")
_NO_URL = Refused(Drop.NO_URL, "The row has neither a URL nor a picture.")


@dataclass(frozen=True, kw_only=True)
class FetchImages:
    """Gives every row one upright, bounded picture, or the reason why it has none.

    Rows that carry bytes (tars, folders) have them normalised, for a stranger's tar is as hostile as the web; the
    others are fetched, equal URLs of a part once. One picture that many URLs of a part give is no picture of any of
    them ("image not available") and is dropped. Rows keep their order and number.
    """

    fetch: FetchConfig = field(default_factory=FetchConfig)
    """Bounds, manners and open addresses."""

    @property
    def name(self) -> str:
        """Short name, as logs and plans show it."""
        return "fetch"

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns it reads."""
        return ("url", "image", "drop")

    @property
    def writes(self) -> tuple[str, ...]:
        """Columns it changes."""
        return ("image", "width", "height", "sha256", "phash", "drop", "detail")

    @property
    def needs(self) -> Needs:
        """A quarter of a CPU, no memory reserved.

        A worker waits for the network most of the time, and its threads decode while others' wait. Being a
        fraction, it also differs from what the model's workers take, so that an engine does not fuse the two.
        """
        return Needs(cpus=0.25)

    def open(self) -> Work:
        """The work: one part in, the same rows out.

        Raises:
            EngineError: the chosen engine is not installed.
        """
        if self.fetch.engine == "img2dataset":
            require_installed()
        return partial(_bring_in, config=self.fetch)


def _bring_in(table: pa.Table, *, config: FetchConfig) -> pa.Table:
    found = _carried(table, config) | _fetched(table, config)
    found |= _placeholders(table.column("url").to_pylist(), found, config.same_picture_max)
    return replace(table, _columns(table, found))


def _carried(table: pa.Table, config: FetchConfig) -> dict[int, Fetched]:
    """By row, what becomes of the bytes that rows carry."""
    images, drops = table.column("image"), table.column("drop")
    rows = [row for row in range(table.num_rows) if images[row].is_valid and not drops[row].is_valid]
    with ThreadPoolExecutor(config.threads, thread_name_prefix="pictures") as pool:
        # Bytes are copied out of the table one row at a time, within the thread.
        return dict(zip(rows, pool.map(lambda row: normalise(images[row].as_py(), config.images), rows), strict=True))


def _fetched(table: pa.Table, config: FetchConfig) -> dict[int, Fetched]:
    """By row, what becomes of the URLs of rows without bytes; each distinct URL is fetched once."""
    images, drops = table.column("image"), table.column("drop")
    urls = {
        row: (url or "").strip()
        for row, url in enumerate(table.column("url").to_pylist())
        if not images[row].is_valid and not drops[row].is_valid
    }
    distinct = list(dict.fromkeys(url for url in urls.values() if url))
    results = dict(zip(distinct, fetch_all(distinct, config), strict=True)) if distinct else {}
    return {row: results.get(url, _NO_URL) for row, url in urls.items()}


def _placeholders(urls: list[str | None], found: dict[int, Fetched], most: int) -> dict[int, Fetched]:
    """By row, the drop of every picture that more than ``most`` web addresses give; 0 looks for none.

    A member of a tar and a file of a folder have paths, not web addresses, and are never counted.
    """
    if not most:
        return {}
    homes: defaultdict[str, set[str]] = defaultdict(set)
    pictures = {
        row: item.sha256
        for row, item in found.items()
        if isinstance(item, Picture) and (urls[row] or "").strip().lower().startswith(_WEB)
    }
    for row, sha256 in pictures.items():
        homes[sha256].add((urls[row] or "").strip())
    return {
        row: Refused(Drop.PLACEHOLDER, f"{len(homes[sha256])} addresses of this part give this very picture.")
        for row, sha256 in pictures.items()
        if len(homes[sha256]) > most
    }


def _columns(table: pa.Table, found: dict[int, Fetched]) -> dict[str, list[Any]]:
    """The written columns. A row with no result was dropped before and stays so, without bytes."""
    drops, details = table.column("drop").to_pylist(), table.column("detail").to_pylist()
    pictures = [found.get(row) for row in range(table.num_rows)]
    kept = [item if isinstance(item, Picture) else None for item in pictures]
    refused = [item if isinstance(item, Refused) else None for item in pictures]
    return {
        "image": [item and item.data for item in kept],
        "width": [item and item.width for item in kept],
        "height": [item and item.height for item in kept],
        "sha256": [item and item.sha256 for item in kept],
        "phash": [item and item.phash for item in kept],
        "drop": [item.drop.value if item else old for item, old in zip(refused, drops, strict=True)],
        "detail": [item.detail if item else old for item, old in zip(refused, details, strict=True)],
    }

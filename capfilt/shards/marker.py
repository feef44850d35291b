"""The marker of a committed part: what it holds, with digests; its absence means the part is still to do.

Knows its own JSON and where it lies in a store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Self

from capfilt.errors import DestinationError
from capfilt.records import Tally
from capfilt.storage import Store

FORMAT_VERSION = 2
"""Version of the layout above, in markers and manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file of the data set, as markers and manifest vouch for it."""

    name: str
    """Relative to the store."""
    sha256: str
    size: int
    """Bytes."""
    rows: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "sha256": self.sha256, "size": self.size, "rows": self.rows}


@dataclass(frozen=True, kw_only=True, slots=True)
class PartMarker:
    """That a part is done, and with what result."""

    part: int
    digest: str
    """The plan's digest of the part's content."""
    tally: Tally
    ledger: StoredFile
    shards: tuple[StoredFile, ...] = field(default_factory=tuple)
    """Empty when no picture was kept."""

    @property
    def index(self) -> int:
        """``part``, by the name that the plan has for it: a marker may stand for its part when it is committed anew."""
        return self.part

    @property
    def turn(self) -> int:
        """How often the part was committed anew, as its files' names say: 0 for ``00042``, 1 for ``00042-1``."""
        _, _, turn = PurePosixPath(self.ledger.name).stem.partition("-")
        return int(turn or 0)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            KeyError, TypeError, ValueError: it is not a marker of this format.
        """
        if data["format"] != FORMAT_VERSION:
            raise ValueError(f"format {data['format']!r} is not {FORMAT_VERSION}")
        return cls(
            part=int(data["part"]),
            digest=str(data["digest"]),
            tally=Tally.from_json(data["tally"]),
            ledger=StoredFile(**data["ledger"]),
            shards=tuple(StoredFile(**shard) for shard in data["shards"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without times: the same part gives the same marker."""
        return {
            "format": FORMAT_VERSION,
            "part": self.part,
            "digest": self.digest,
            "tally": self.tally.to_json(),
            "ledger": self.ledger.to_json(),
            "shards": [shard.to_json() for shard in self.shards],
        }


def marker_of(store: Store, part: int) -> PartMarker:
    """The marker of a part that is done.

    Raises:
        DestinationError: it has none, or a damaged one.
    """
    name = f"{part:05d}.json"
    try:
        return _marker(store, name, store.read(f"parts/{name}"))
    except FileNotFoundError as error:
        raise DestinationError(
            f"part {part} is not committed there", where=store.url, mend="Run the bootstrap again to go on."
        ) from error


def committed(store: Store) -> dict[int, PartMarker]:
    """The markers of the parts that are done, by part, in order.

    Raises:
        DestinationError: a marker is damaged or of another format; the error names it.
    """
    markers = [_marker(store, name, data) for name, data in store.read_all("parts") if name.endswith(".json")]
    return {marker.part: marker for marker in sorted(markers, key=lambda marker: marker.part)}


def _marker(store: Store, name: str, data: bytes) -> PartMarker:
    try:
        marker = PartMarker.from_json(json.loads(data))
        if name != f"{marker.part:05d}.json":
            raise ValueError(f"it says that it is part {marker.part}")
    except (KeyError, TypeError, ValueError) as error:
        raise DestinationError(
            f"a damaged commit marker: {error}",
            where=store.path(f"parts/{name}"),
            mend="Remove this file and run again: its part is done anew.",
        ) from error
    return marker

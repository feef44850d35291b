"""Several sources as one: their parts one after another, each read by the source it is of.

Knows sources; knows no format.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from capfilt.sources.base import Source
from capfilt.sources.parts import Part, Parts


@dataclass(frozen=True)
class JoinedSource:
    """The rows of two or more sources, each with its own kind, columns and origin.

    The same picture in two of them is there twice: what is equal is told by `capfilt dedup`, not here.
    """

    sources: tuple[Source, ...]

    @property
    def has_bytes(self) -> bool:
        """Whether all of them carry pictures."""
        return all(source.has_bytes for source in self.sources)

    @property
    def origin(self) -> str:
        """Whose captions they are, as ``human, web``."""
        return ", ".join(sorted({source.origin for source in self.sources}))

    def parts(self, part_rows: int) -> Parts:
        """The plan, as :class:`capfilt.sources.base.Source` has it; the order of the sources is that of the parts.

        Raises:
            SourceError: one of them is missing, empty or not what it says it is.
        """
        return Parts(
            replace(stretch, source=number)
            for number, source in enumerate(self.sources)
            for stretch in source.parts(part_rows).stretches
        )

    def read(self, part: Part) -> pa.Table:
        """The part's rows, read by the source it is of.

        Raises:
            SourceError: the file is gone or no longer what it was.
        """
        return self.sources[part.source].read(part)

    def describe(self) -> dict[str, Any]:
        """What they are, as JSON values; ``sources`` has each one's own."""
        each = [source.describe() for source in self.sources]
        return {"kind": "joined", "origin": self.origin, "rows": sum(one["rows"] for one in each), "sources": each}

"""The rows of a committed part as they were before they were committed: its ledger, and its pictures from its shards.

Knows a store and the formats; knows nothing of why they are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from capfilt.errors import DataError
from capfilt.inputs import open_read
from capfilt.records import LEDGER_SCHEMA
from capfilt.shards.marker import PartMarker
from capfilt.shards.parquet import read_ledger
from capfilt.shards.read import OWN_TEXT_BYTES, samples
from capfilt.shards.sample import key_of
from capfilt.storage import Store


def rows_of(store: Store, marker: PartMarker) -> Iterator[dict[str, Any]]:
    """Every row of a part in the ledger's order, as :data:`capfilt.records.SCHEMA` has it: kept ones with ``image``.

    Holds the pictures of the whole part in memory.

    Raises:
        DataError: ledger or shards are damaged, or a kept row's picture is in no shard.
    """
    with open_read(store.path(marker.ledger.name)) as file:
        ledger = read_ledger(file, LEDGER_SCHEMA.names)
    # Where a run wrote both formats, either has all pictures.
    urls = [store.path(item.name) for item in marker.shards[:1]]
    pictures = {sample.key: sample.image for sample in samples(urls, max_text_bytes=OWN_TEXT_BYTES)}
    for row in ledger.to_pylist():
        key = key_of(row["part"], row["row"])
        if row["drop"] is None and key not in pictures:
            raise DataError(
                f"the kept row {row['row']} has no picture in the part's shards",
                where=f"part {marker.part}",
                mend="Run `capfilt verify --repair` there, and then the bootstrap again.",
            )
        yield row | {"image": None if row["drop"] else pictures[key]}

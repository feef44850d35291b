"""The ledger of a part, and shards as Parquet that ``datasets.load_dataset`` shows as pictures.

Knows columns and row groups; knows no store and no part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from capfilt.errors import DataError
from capfilt.images import extension
from capfilt.records import CAPTION, LEDGER_SCHEMA, META
from capfilt.shards.sample import Sample, best_caption

_GROUP_ROWS = 128
"""Rows of a row group of a shard: some 10 MB of pictures, what a reader holds at once."""


def _feature(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": {"float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


def _shard_schema() -> pa.Schema:
    # All nullable: `datasets` takes a feature only for a column that equals its own idea of it.
    caption = pa.struct([pa.field(field.name, field.type) for field in CAPTION])
    fields = [
        pa.field("key", pa.string()),
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("caption", pa.string()),
        *(pa.field(name, LEDGER_SCHEMA.field(name).type) for name in META),
        pa.field("captions", pa.list_(caption)),
    ]
    features = {field.name: _feature(field.type) for field in fields} | {"image": {"_type": "Image"}}
    told = json.dumps({"info": {"features": features}}, sort_keys=True)
    return pa.schema(fields, metadata={"huggingface": told})


SHARD_SCHEMA = _shard_schema()
"""Columns of a Parquet shard; ``caption`` is the best kept one, ``captions`` are all."""


def write_ledger(file: BinaryIO, table: pa.Table) -> None:
    """Writes a part's rows (:data:`capfilt.records.LEDGER_SCHEMA`; more columns are left out), zstd.

    Raises:
        DataError: a column of the ledger is missing or of another type.
    """
    try:
        ledger = table.select(LEDGER_SCHEMA.names).cast(LEDGER_SCHEMA)
    except (KeyError, pa.ArrowInvalid) as error:
        raise DataError(f"not a ledger: {error}") from error
    pq.write_table(ledger, file, compression="zstd")


def read_ledger(file: BinaryIO, columns: list[str] | None = None) -> pa.Table:
    """The rows of a ledger, or the named columns of them.

    Raises:
        DataError: the file is not Parquet, or lacks a column of the ledger.
    """
    try:
        table = pq.ParquetFile(file).read(columns=columns)
        schema = pa.schema([LEDGER_SCHEMA.field(name) for name in columns or LEDGER_SCHEMA.names])
        return table.select(schema.names).cast(schema)
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"not a readable ledger: {error}") from error


def write_parquet(file: BinaryIO, samples: Iterable[Sample]) -> int:
    """Writes samples as a Parquet shard of :data:`SHARD_SCHEMA` and returns how many there were.

    Raises:
        DataError: an image is no JPEG, PNG or WebP.
    """
    count, rows = 0, (_row(sample) for sample in samples)
    # Pictures do not compress; the rest is small.
    with pq.ParquetWriter(file, SHARD_SCHEMA, compression="zstd", use_dictionary=False) as writer:
        while group := list(islice(rows, _GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=SHARD_SCHEMA))
            count += len(group)
    return count


def _row(sample: Sample) -> dict[str, Any]:
    best = best_caption(sample.captions)
    return {name: sample.meta.get(name) for name in META} | {
        "key": sample.key,
        "image": {"bytes": sample.image, "path": f"{sample.key}.{extension(sample.image)}"},
        "caption": best["text"] if best else "",
        "captions": sample.captions,
    }

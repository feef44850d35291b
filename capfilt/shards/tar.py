"""WebDataset shards that are the same bytes for the same samples, whoever writes them and when.

Members of a sample: ``KEY.jpg|png|webp``, ``KEY.txt`` (best kept caption) and ``KEY.json`` (what is known of the
picture, and every caption with its scores and verdict). Knows the format; knows no store and no part.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from capfilt.errors import DataError
from capfilt.images import extension
from capfilt.shards.sample import Sample, best_caption


def write_tar(file: BinaryIO, samples: Iterable[Sample]) -> int:
    """Writes samples as a tar (POSIX pax, no times, no owners) and returns how many there were.

    Raises:
        DataError: an image is no JPEG, PNG or WebP, or a key holds a dot or a slash.
    """
    count = 0
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for sample in samples:
            for ending, data in _members(sample):
                tar.addfile(_info(f"{sample.key}.{ending}", len(data)), io.BytesIO(data))
            count += 1
    return count


def _members(sample: Sample) -> Iterator[tuple[str, bytes]]:
    if not sample.key or any(char in sample.key for char in "./\\"):
        raise DataError(f"{sample.key!r} cannot be a sample's key: it holds a dot or a slash, or is empty")
    best = best_caption(sample.captions)
    yield extension(sample.image), sample.image
    yield "txt", (best["text"] if best else "").encode("utf-8", "replace")
    told = {**sample.meta, "captions": [dict(caption) for caption in sample.captions]}
    yield "json", json.dumps(told, ensure_ascii=False, sort_keys=True, allow_nan=False).encode("utf-8", "replace")


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info

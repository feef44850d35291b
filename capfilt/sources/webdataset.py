"""WebDataset tars as a source: pictures with a text beside them, whoever made the tars.

A sample is what has a picture or a text; its texts are scored anew, whatever verdict came with them. Planning reads
the tars' headers. Knows tars; decodes no picture.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import pyarrow as pa

from capfilt.archive import Group, Member, OnBad, groups, members
from capfilt.errors import DataError, SourceError
from capfilt.inputs import expand, open_read
from capfilt.records import Caption, Drop, Origin, table_of, web_caption
from capfilt.sources.base import Counted, SourceConfig, changed, described, identities, planned, row_of
from capfilt.sources.columns import text_of
from capfilt.sources.parts import Part, Parts

IMAGE_EXTENSIONS = ("jpg", "jpeg", "jfif", "jpe", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
"""Of pictures, in a tar or a folder; what they are is told by their content later."""
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst")

_IMAGE_BYTES = 64 << 20
_TEXT_BYTES = 1 << 20
_LIMITS = {**dict.fromkeys(IMAGE_EXTENSIONS, _IMAGE_BYTES), "txt": _TEXT_BYTES, "json": _TEXT_BYTES}


@dataclass(frozen=True)
class WebDatasetSource:
    """Rows of tars; each carries its picture as it came."""

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
        """The plan, as :class:`capfilt.sources.base.Source` has it.

        Raises:
            SourceError: no tar is there, none can be read, or they hold no samples.
        """
        if not sum(item.rows for item in self._counted):
            raise SourceError(
                "no pictures with texts are in it",
                where=self.config.path,
                mend=f"A sample is KEY.jpg (or another picture) and KEY.txt or KEY.json. {self._told_bad}".strip(),
            )
        return planned(self._counted, self._digests, part_rows)

    def read(self, part: Part) -> pa.Table:
        """The part's rows with their raw pictures, numbered as the samples stand in the tar.

        Raises:
            SourceError: the tar is gone or has fewer samples than planned.
        """
        reasons: dict[str, str] = {}
        read = _samples(part.file, _Window(part.start, part.stop), reasons.__setitem__)
        rows = [
            self._row(part, row, group, _reason(reasons, group.key))
            for row, group in enumerate(islice(read, part.start, part.stop), part.start)
        ]
        if len(rows) != part.stop - part.start:
            raise changed(part)
        return table_of(rows)

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values; ``bad`` counts passed-over members by reason."""
        return described(
            "webdataset", self._counted, self._digests, path=self.config.path, origin=self.origin, bad=dict(self._bad)
        )

    @cached_property
    def files(self) -> list[str]:
        """The tars, sorted.

        Raises:
            SourceError: none is there.
        """
        found = [file for file in expand(self.config.path) if file.lower().endswith(TAR_ENDINGS)]
        if not found:
            raise SourceError(
                "no tars are there", where=self.config.path, mend="WebDataset shards end in .tar or .tar.gz."
            )
        return found

    @cached_property
    def _surveyed(self) -> tuple[list[Counted], Counter[str]]:
        bad: Counter[str] = Counter()
        counted = [Counted(file, count(file, lambda _, reason: bad.update([reason]))) for file in self.files]
        return counted, bad

    @property
    def _counted(self) -> list[Counted]:
        return self._surveyed[0]

    @property
    def _bad(self) -> Counter[str]:
        return self._surveyed[1]

    @property
    def _told_bad(self) -> str:
        return " ".join(f"{count} passed over: {reason}." for reason, count in self._bad.most_common(3))

    @cached_property
    def _digests(self) -> dict[str, str]:
        return identities(self.files)

    def _row(self, part: Part, row: int, group: Group, reason: str) -> dict[str, Any]:
        image = next((group.members[kind] for kind in IMAGE_EXTENSIONS if kind in group.members), None)
        meta = _meta(group.members.get("json"))
        captions = _originals(meta) or _plain(group.members.get("txt"), meta, self.origin)
        url = text_of(meta.get("url")) or group.key
        texts = [caption["text"] for caption in captions]
        told = row_of(part, row, url=url, texts=texts, origin=self.origin, key=group.key, image=image)
        if told.get("drop"):
            return told
        told["captions"] = captions
        if image:
            return told
        because = f": {reason}" if reason else ""
        return told | {"image": None, "drop": Drop.UNREADABLE_ROW, "detail": f"The sample has no picture{because}."}


class _Window:
    """Says which members lie in a range of samples, by counting the samples that pass."""

    def __init__(self, start: int, stop: int) -> None:
        self._start, self._stop, self._row, self._key = start, stop, -1, ""

    def __call__(self, key: str) -> bool:
        if key != self._key:
            self._row, self._key = self._row + 1, key
        return self._start <= self._row < self._stop


def _samples(file: str, window: _Window, on_bad: OnBad) -> Iterator[Group]:
    """All samples of a tar up to its end or its first damage; those outside the window without bytes."""
    return groups(_undamaged(file, window, on_bad), on_bad)


def _undamaged(file: str, window: Callable[[str], bool], on_bad: OnBad) -> Iterator[Member]:
    with open_read(file, decompress=True) as stream:
        try:
            yield from members(stream, _LIMITS, on_bad, read=window)
        except DataError as error:
            on_bad("", error.what)
        except (OSError, EOFError, zlib.error) as error:
            on_bad("", f"the tar is damaged: {error}")


def count(file: str, on_bad: OnBad) -> int:
    """How many samples a tar has, up to its end or its first damage; reads its headers.

    Raises:
        SourceError: it is not there.
    """
    return sum(1 for _ in _samples(file, _Window(0, 0), on_bad))


def first_samples(file: str, most: int) -> int:
    """How many samples a tar has, up to a number; reads no further.

    Raises:
        SourceError: it is not there.
    """
    return sum(1 for _ in islice(_samples(file, _Window(0, 0), lambda _, __: None), most))


def pictures(file: str, keys: Collection[str], on_bad: OnBad) -> dict[str, bytes]:
    """The encoded pictures of the samples of these keys, as far as the tar has them.

    Raises:
        SourceError: it is not there.
    """
    return {
        member.key: member.data
        for member in _undamaged(file, keys.__contains__, on_bad)
        if member.extension in IMAGE_EXTENSIONS and member.data
    }


def _reason(reasons: dict[str, str], key: str) -> str:
    return next((reason for name, reason in reasons.items() if name.startswith(f"{key}.")), "")


def _meta(data: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _originals(meta: dict[str, Any]) -> list[Caption]:
    """The texts our own shards say people wrote: what we made ourselves is no caption of the picture's source."""
    listed = meta.get("captions")
    found = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    pairs = [(text_of(item.get("text")), item.get("origin")) for item in found]
    return [web_caption(text, origin) for text, origin in pairs if text and origin in (Origin.WEB, Origin.HUMAN)]


def _plain(data: bytes | None, meta: dict[str, Any], origin: str) -> list[Caption]:
    told = (data or b"").decode("utf-8", "replace") if data is not None else text_of(meta.get("caption")) or ""
    return [web_caption(told.strip(), origin)] if told.strip() else []

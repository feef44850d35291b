"""What a source is: something that can be cut into parts before anything is read, and then read part by part.

Knows the record and how a bad row becomes a drop; knows no file format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

import pyarrow as pa

from capfilt.errors import RecipeError, SourceError
from capfilt.inputs import identity, size_of
from capfilt.records import Drop, row_id, web_caption
from capfilt.sources.parts import Part, Parts, cut

SourceKind = Literal["auto", "table", "webdataset", "img2dataset", "folder", "annotations"]
SourceOrigin = Literal["web", "human"]
T = TypeVar("T")

_AT_ONCE = 32
_TEXT_BYTES = 64 << 10
"""Most UTF-8 that a row tells: no caption is longer, and with JSON's escapes it stays below what readers of shards take
(1 MiB)."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where rows come from and how they are read."""

    path: str
    """A file, a folder or a glob; a local path or any URL fsspec knows."""
    kind: SourceKind = "auto"
    """``table`` of URLs (or pictures) and texts, ``webdataset`` tars, ``img2dataset``'s output, a ``folder`` of
    pictures, ``annotations`` (COCO and the like); ``auto`` tells by the names, and of JSON by its beginning."""
    url_column: str = "url"
    """A table's column of picture addresses; the default also finds the usual other names (URL, image_url, ...)."""
    caption_column: str = "caption"
    """A table's column of texts; the default also finds the usual other names (TEXT, text, alt_text, title, ...);
    a cell with a list of texts gives several captions; empty for a table without texts."""
    image_column: str = "image"
    """A Parquet column of encoded pictures, as bytes or as Hugging Face has them (bytes and path); the default also
    finds the usual other names (jpg, img, ...); empty for none, so that pictures are fetched."""
    key_column: str = "key"
    """A table's column of the source's own keys, kept as ``source_key``; the default also finds the usual other names
    (uid, SAMPLE_ID, image_id, id) and may be missing; empty for none."""
    images: str = ""
    """Where the pictures of annotations lie: a folder, or what comes before their names in a URL; empty takes the
    addresses that the annotations have, or else the folder that the file is in."""
    splits: tuple[str, ...] = ()
    """Of Karpathy's annotations only pictures of these splits (train, restval, val, test); none takes all."""
    origin: SourceOrigin = "web"
    """Who wrote the texts: ``web`` (scraped) or ``human`` (annotated)."""
    url_base: str = ""
    """Put before addresses of a table that have no scheme, as ``https://host/folder/``; empty leaves them."""
    also: tuple[SourceConfig, ...] = ()
    """Sources that join this one, in order, each with its own kind, columns and origin."""

    def __post_init__(self) -> None:
        for name, kind in (("kind", SourceKind), ("origin", SourceOrigin)):
            if getattr(self, name) not in get_args(kind):
                raise RecipeError(
                    f"{getattr(self, name)!r} is unknown",
                    where=f"source.{name}",
                    mend=f"Use one of: {', '.join(get_args(kind))}.",
                )
        for name in ("path", "url_column"):
            if not getattr(self, name):
                raise RecipeError("it is empty", where=f"source.{name}", mend="Name it.")
        if any(source.also for source in self.also):
            raise RecipeError(
                "a joined source has others that join it", where="source.also", mend="Put all of them into one list."
            )


class Source(Protocol):
    """Where rows come from. It must pickle: plain fields, no open files."""

    @property
    def has_bytes(self) -> bool:
        """Whether rows carry images already (raw: as hostile as the web's)."""
        ...

    @property
    def origin(self) -> str:
        """Whose captions they are."""
        ...

    def parts(self, part_rows: int) -> Parts:
        """The plan: parts of at most ``part_rows`` rows, in order, from metadata or counting.

        Raises:
            SourceError: the input is missing, empty or not what it says it is.
        """
        ...

    def read(self, part: Part) -> pa.Table:
        """The part's rows as ``records.SCHEMA``; a bad row is a drop in its place, numbered like any other.

        Raises:
            SourceError: the file is gone or no longer what it was.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values: kind, files with digest and size, rows, columns."""
        ...


class Mark(NamedTuple):
    """A place in a file."""

    row: int
    """The row that begins there."""
    offset: int
    """Bytes from the beginning of the (decompressed) file."""


@dataclass(frozen=True)
class Counted:
    """A file of a source and how many rows it has."""

    file: str
    rows: int
    marks: tuple[Mark, ...] = ()
    """Where reading may begin, in order; empty where rows are found in another way."""


def planned(counted: Iterable[Counted], digests: Mapping[str, str], part_rows: int) -> Parts:
    """The parts of counted files."""
    return cut(((item.file, item.rows, digests[item.file]) for item in counted), part_rows)


def described(kind: str, counted: Sequence[Counted], digests: dict[str, str], **more: Any) -> dict[str, Any]:
    """A source's ``describe()``: its files by base name, so that where they lay is not part of the result."""
    files = [
        {
            "name": PurePosixPath(item.file).name,
            "rows": item.rows,
            "size": size_of(item.file),
            "digest": digests[item.file],
        }
        for item in counted
    ]
    return {"kind": kind, "rows": sum(item.rows for item in counted), "files": files, **more}


def identities(files: Sequence[str]) -> dict[str, str]:
    """From file to the digest of its content, each asked for once."""
    return dict(zip(files, of_each(identity, files), strict=True))


def of_each(work: Callable[[str], T], files: Sequence[str]) -> list[T]:
    """``work`` of each file, in order, many at a time: what takes time is a store's answer."""
    with ThreadPoolExecutor(min(_AT_ONCE, len(files)) or 1, thread_name_prefix="files") as pool:
        return list(pool.map(work, files))


def row_of(
    part: Part,
    row: int,
    *,
    url: str | None,
    texts: Sequence[str],
    origin: str,
    key: str | None = None,
    image: bytes | None = None,
) -> dict[str, Any]:
    """A row as the record has it, by its first text; without an address it is a drop, and so, without its texts, if
    these, its address and its key are too long together.

    Args:
        part: the part it belongs to.
        row: its number.
        url: its address, or what stands for it (a member's path).
        texts: its captions, none empty.
        origin: who wrote them.
        key: what the source calls it.
        image: the encoded picture, if the source has it.
    """
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in (url or "", key or "", *texts))
    if size > _TEXT_BYTES:
        detail = f"Its texts, address and key have {size:,} bytes; at most {_TEXT_BYTES:,} are taken."
        return unreadable(part, row, where=url or "", text=next(iter(texts), ""), detail=detail)
    told: dict[str, Any] = {
        "id": row_id(url or "", texts[0] if texts else ""),
        "part": part.index,
        "row": row,
        "url": url,
        "source_key": key,
        "image": image,
        "captions": [web_caption(text, origin) for text in texts],
    }
    if not url:
        told |= {"drop": str(Drop.NO_URL), "detail": "The row has no picture address."}
    return told


def unreadable(part: Part, row: int, *, where: str, text: str, detail: str, key: str | None = None) -> dict[str, Any]:
    """A row that could not be read, in its place.

    Args:
        part: the part it belongs to.
        row: its number.
        where: what stands for its address in its id (the raw line, the member's name).
        text: its caption, as far as known.
        detail: a sentence saying what is wrong with it.
        key: what the source calls it, as far as known.
    """
    return {
        "id": row_id(where, text),
        "part": part.index,
        "row": row,
        "url": None,
        "source_key": key,
        "captions": [],
        "drop": str(Drop.UNREADABLE_ROW),
        "detail": detail,
    }


def changed(part: Part) -> SourceError:
    """The error of a file that has fewer rows than when it was planned."""
    return SourceError(
        f"it has fewer than {part.stop} rows now, which is what the plan counted",
        where=part.file,
        mend="Leave the source as it is while it is worked on; start again in another folder.",
    )

"""A tar read as a stream, safe for a stranger's: regular files only, bounded, never unpacked to a disk.

The standard library's reader stops in silence at a damaged header, remembers every member it has seen, and reads
a name of any length a header claims; this one tells damage, remembers nothing and bounds everything. Groups
members into samples as WebDataset does. Knows the tar format (POSIX ustar and pax, GNU long names) and names;
knows no captions and no images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from capfilt.errors import DataError

OnBad = Callable[[str, str], None]
"""Told (member name, reason) of each member that was passed over."""

_BLOCK = 512
_CHUNK = 1 << 20
_ABOUT_NEXT = (b"x", b"g", b"L", b"K")
_ABOUT_LIMIT = 64 << 10
"""Most bytes that a long name or pax header may have; a path is at most a few thousand."""
_REGULAR = (b"0", b"\0", b"7")


@dataclass(frozen=True)
class Member:
    """A regular file of a tar; its name is cut into ``key`` and ``extension`` at the first dot of the base."""

    name: str
    key: str
    extension: str
    """Lower case, without the first dot; may hold dots itself (``seg.png``)."""
    data: bytes
    """Empty where the reader was asked for names only."""


@dataclass(frozen=True)
class Group:
    """Members that follow each other and share a key: one sample."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    """From extension to bytes."""


def members(
    file: BinaryIO, limits: Mapping[str, int], on_bad: OnBad, *, read: Callable[[str], bool] | None = None
) -> Iterator[Member]:
    """The regular files of a tar whose extension is wanted, in order.

    Args:
        file: the tar, uncompressed, at its beginning; read forward only.
        limits: from each wanted extension (lower case) to the most bytes such a member may have.
        on_bad: told of links, devices, absolute or climbing names, members over their limit, a missing end mark.
        read: whether the member of this key is read; others come with empty ``data``. None reads all.

    Raises:
        DataError: the tar is cut short or a header is damaged; the members before that have been given.
    """
    said: dict[str, str] = {}
    while (header := _header(file, on_bad)) is not None:
        if header.kind in _ABOUT_NEXT:
            said.update(_about_next(file, header))
            continue
        name, size, sparse = _resolve(header, said)
        said = {}
        named = _judge(name, size, b"S" if sparse else header.kind, limits, on_bad)
        if named is None or (read is not None and not read(named[0])):
            _skip(file, _padded(size))
            data = b""
        else:
            data = _exactly(file, size)
            _skip(file, _padded(size) - size)
        if named is not None:
            yield Member(name, *named, data)


def groups(stream: Iterator[Member], on_bad: OnBad) -> Iterator[Group]:
    """Members as samples: neighbours with one key belong together; a second one of an extension is bad."""
    group: Group | None = None
    for member in stream:
        if group is None or member.key != group.key:
            if group is not None:
                yield group
            group = Group(member.key)
        if member.extension in group.members:
            on_bad(member.name, "the extension is there twice in one sample")
            continue
        group.members[member.extension] = member.data
    if group is not None:
        yield group


def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension in lower case), cut at the first dot of the base name; None for hidden or bare names."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not stem or not dot or not extension:
        return None
    return f"{folder}{slash}{stem}", extension.lower()


@dataclass(frozen=True)
class _Header:
    name: str
    size: int
    kind: bytes


def _header(file: BinaryIO, on_bad: OnBad) -> _Header | None:
    block = file.read(_BLOCK)
    if not block:
        on_bad("", "the tar has no end mark: it may be cut short")
    if not block or block == bytes(_BLOCK):
        return None
    if len(block) < _BLOCK:
        raise DataError("the tar is cut short in a header")
    if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise DataError("a tar header is damaged (its checksum is wrong)")
    name = _text(block[0:100])
    # Only POSIX headers keep a prefix there; old GNU ones keep times.
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    return _Header(name, _number(block[124:136]), block[156:157])


def _about_next(file: BinaryIO, header: _Header) -> dict[str, str]:
    """What a GNU or pax header says of the member after it: ``path``, ``size``, ``sparse``."""
    if header.size > _ABOUT_LIMIT:
        raise DataError(f"a tar header claims {header.size} bytes for a name")
    data = _exactly(file, header.size)
    _skip(file, _padded(header.size) - header.size)
    if header.kind == b"L":
        return {"path": _text(data)}
    if header.kind != b"x":
        return {}
    records = dict(_pax(data))
    said: dict[str, str] = {key: records[key] for key in ("path", "size") if key in records}
    if any(key.startswith("GNU.sparse") for key in records):
        said["sparse"] = "yes"
    return said


def _pax(data: bytes) -> Iterator[tuple[str, str]]:
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or len(length) > 8 or not len(length) + 1 < int(length) <= len(data):
            raise DataError("a pax header of the tar is damaged")
        key, _, value = data[len(length) + 1 : int(length)].partition(b"=")
        yield key.decode("utf-8", "replace"), value.removesuffix(b"\n").decode("utf-8", "replace")
        data = data[int(length) :]


def _resolve(header: _Header, said: Mapping[str, str]) -> tuple[str, int, bool]:
    size = said.get("size", "")
    if size and not (size.isascii() and size.isdigit() and len(size) < 20):
        raise DataError("a pax header of the tar claims a size that is no number")
    name = said.get("path", header.name)
    return name.removeprefix("./"), int(size) if size else header.size, "sparse" in said


def _judge(name: str, size: int, kind: bytes, limits: Mapping[str, int], on_bad: OnBad) -> tuple[str, str] | None:
    """The member's (key, extension) if it is wanted."""
    if kind == b"5" or name.endswith("/"):
        return None
    if kind not in _REGULAR:
        on_bad(name, "not a regular file (a link, a device or a sparse file)")
        return None
    if name.startswith("/") or ".." in name.split("/") or "\\" in name:
        on_bad(name, "an absolute or climbing name")
        return None
    named = split_name(name)
    if named is None or named[1] not in limits:
        return None
    if size > limits[named[1]]:
        on_bad(name, f"{size} bytes are more than the {limits[named[1]]} allowed")
        return None
    return named


def _number(field_bytes: bytes) -> int:
    if field_bytes[0] & 0x80:
        value = int.from_bytes(bytes([field_bytes[0] & 0x7F]) + field_bytes[1:], "big")
        # The sign bit of GNU's base-256, and sizes no disk has.
        if field_bytes[0] & 0x40 or value >= 1 << 63:
            raise DataError("a number in a tar header is out of range")
        return value
    digits = field_bytes.split(b"\0", 1)[0].strip()
    if not all(digit in b"01234567" for digit in digits):
        raise DataError("a number in a tar header is damaged")
    return int(digits, 8) if digits else 0


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise DataError("the tar is cut short in a member")
    return data


def _skip(file: BinaryIO, size: int) -> None:
    if size > _CHUNK and file.seekable():
        # The last byte is read, since seeking beyond the end tells nothing.
        file.seek(size - 1, 1)
        size = 1
    while size > 0:
        size -= len(_exactly(file, min(size, _CHUNK)))

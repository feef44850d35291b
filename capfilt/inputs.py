"""Files that are read: any path or URL fsspec reaches, found, opened, measured and told apart by content.

Knows bytes and names; knows no rows, no formats and no credentials (fsspec's usual chain finds those).
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import pyarrow as pa
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile

from capfilt.errors import CapfiltError, DestinationError, SourceError, StoreError, meant

T = TypeVar("T")
_CHUNK = 1 << 20
_WHOLE_BYTES = 16 << 20
_PIECES = 64
_PIECE_BYTES = 16 << 10
_WORDS = ("ETag", "etag", "blob_id", "generation", "VersionId", "mtime", "created")
"""What stores call a content, the best first."""
_WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pauses in seconds between tries of a store that fails; before each its client has tried for a moment too."""
_PASSING = {408, 425, 429}
"""Of what HTTP says to be the asker's fault, what may be otherwise the next time."""
_S3 = {"max_pool_connections": 128}
_BESIDE = 1000
"""Names beside a misspelt one that are looked through."""


def open_read(url: str, *, decompress: bool = False) -> BinaryIO:
    """Opens a file for reading as a stream of bytes.

    Args:
        url: a local path or any URL fsspec knows.
        decompress: whether a name ending in ``.gz``, ``.tgz`` or ``.zst`` is read decompressed, forward only.

    Raises:
        SourceError: it is not there, is a folder, or may not be read.
        StoreError: a store fails, or refuses, also when asked again for a minute; reading raises it too.
    """
    fs, path = filesystem(url, SourceError)
    try:
        # fsspec's wrapper of a local file is slow line by line.
        local = isinstance(fs, LocalFileSystem)
        raw = Path(path).open("rb") if local else _remote(asked(url, lambda: fs.open(path, "rb")), url)  # noqa: SIM115
    except FileNotFoundError as error:
        raise SourceError("there is no such file", where=url, mend="Check the path.") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # no fault of this file, which must not be passed over for it
            raise StoreError(
                "too many files are open at a time",
                where=url,
                mend="Raise the limit (`ulimit -n 65536`), or take fewer workers, data.loaders or data.streams.",
            ) from error
        raise SourceError(
            f"cannot be read: {error.strerror or error}", where=url, mend="Check the path and its rights."
        ) from error
    suffix = PurePosixPath(path).suffix.lower()
    if decompress and suffix in {".gz", ".tgz"}:
        return _unpacked(gzip.GzipFile(fileobj=raw, mode="rb"), raw)
    if decompress and suffix == ".zst":
        return _unpacked(pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"), raw)
    return raw


def _remote(file: Any, url: str) -> BinaryIO:
    # The files of object stores read no lines of bounded length, which a stranger's need.
    raw = io.BufferedReader(_Steady(file, url), _CHUNK >> 4) if isinstance(file, AbstractBufferedFile) else file
    return cast("BinaryIO", raw)


def asked(url: str, ask: Callable[[], T]) -> T:
    """What a store answers, asked again for a minute while it fails.

    Raises:
        StoreError: it still fails, or it refuses.
        OSError: there is no such file, or it is a folder; those are answers.
    """
    for wait in (*_WAITS_S, None):
        try:
            return ask()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, CapfiltError, ValueError, TypeError):
            raise
        except Exception as error:  # a remote service: its client may raise anything
            refused = _refused(error)
            if wait is None or refused:
                raise StoreError(
                    f"the store fails: {type(error).__name__}: {error}",
                    where=url,
                    mend="What is committed stays. Check the store and your rights there, and run again to go on.",
                    passing=not refused,
                ) from error
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _refused(error: Exception) -> bool:
    """Rights do not come by waiting; a token that has run out is renewed by its client, if it can be."""
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return True
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in _PASSING


class _Steady(io.RawIOBase):
    """A store's file whose reads are tried again: a failure that passes must not look like damage."""

    def __init__(self, file: Any, url: str) -> None:
        super().__init__()
        self._file, self._url = file, url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        return int(asked(self._url, lambda: self._file.readinto(buffer)))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Unpacked(io.RawIOBase):
    """A decompressing stream that closes the file under it too."""

    def __init__(self, stream: Any, raw: BinaryIO) -> None:
        super().__init__()
        self._stream, self._raw = stream, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._raw.close()
        super().close()


def _unpacked(stream: Any, raw: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(_Unpacked(stream, raw), _CHUNK))


def _nearest(path: Path) -> str:
    """What a path with a misspelt piece may mean, by the names beside the first one that is not there."""
    standing = next((folder for folder in path.parents if folder.is_dir()), None)
    if standing is None:
        return ""
    wrong, *_ = path.relative_to(standing).parts
    try:
        names = [file.name for file in islice(standing.iterdir(), _BESIDE)]
    except OSError:
        return ""
    return meant(wrong, names, before="" if standing == Path() else f"{standing}/")


def expand(url: str) -> list[str]:
    """The files behind one file, a folder (and its folders) or a glob, as sorted paths or URLs.

    Hidden files and those starting with ``_`` (``_SUCCESS``) are left out of folders.

    Raises:
        SourceError: nothing is there.
    """
    fs, path = filesystem(url, SourceError)
    # A file whose name holds glob characters is that file.
    if _answer(fs, url, lambda: fs.isfile(path)):
        found = [path]
    elif _answer(fs, url, lambda: fs.isdir(path)):
        found = [name for name in fs.find(path) if not _private(name, path)]
    elif any(char in path for char in "*?["):
        found = _globbed(fs, path)
    else:
        near = _nearest(Path(path if "://" in url else url).expanduser()) if isinstance(fs, LocalFileSystem) else ""
        raise SourceError("there is no such file or folder", where=url, mend=f"{near}Check the path.")
    if not found:
        raise SourceError("no files are there", where=url, mend="Check the folder or the pattern.")
    if isinstance(fs, LocalFileSystem):
        return sorted(str(Path(name).absolute()) for name in found)
    return sorted(str(fs.unstrip_protocol(name)) for name in found)


def _globbed(fs: fsspec.AbstractFileSystem, pattern: str) -> list[str]:
    try:
        return [str(name) for name, info in fs.glob(pattern, detail=True).items() if is_file(fs, info)]
    except FileNotFoundError:  # some file systems say so of a folder in the pattern
        return []


def is_file(fs: fsspec.AbstractFileSystem, info: Mapping[str, Any]) -> bool:
    """Whether an entry of a listing is a file, or a link to one: caches and versioned data consist of links."""
    return info["type"] == "file" or bool(info.get("islink") and fs.isfile(info["name"]))


def found_in(url: str, folder: str) -> bool:
    """Whether ``folder`` is a folder in which :func:`expand` finds what is in the folder ``url``."""
    try:
        (fs, outer), (other, inner) = filesystem(folder, SourceError), filesystem(url, SourceError)
    except SourceError:
        return False
    if type(fs) is not type(other) or not fs.isdir(outer):
        return False
    if isinstance(fs, LocalFileSystem):
        outer, inner = str(Path(outer).resolve()), str(Path(inner).resolve())
    outer = outer.rstrip("/")
    return f"{inner}/".startswith(f"{outer}/") and not _private(inner, outer)


def is_folder(url: str) -> bool:
    """Whether the URL is a folder that exists.

    Raises:
        SourceError: no filesystem is known for the URL's scheme.
    """
    fs, path = filesystem(url, SourceError)
    return bool(_answer(fs, url, lambda: fs.isdir(path)))


def _answer(fs: fsspec.AbstractFileSystem, url: str, ask: Callable[[], T]) -> T:
    return ask() if isinstance(fs, LocalFileSystem) else asked(url, ask)


def size_of(url: str) -> int | None:
    """The file's size in bytes; None where the filesystem does not say.

    Raises:
        SourceError: it is not there.
    """
    fs, path = filesystem(url, SourceError)
    try:
        size = _answer(fs, url, lambda: fs.info(path)).get("size")
    except FileNotFoundError as error:
        raise SourceError("there is no such file", where=url, mend="Check the path.") from error
    return None if size is None else int(size)


def is_local(url: str) -> bool:
    """Whether the URL is a path on this machine."""
    return isinstance(filesystem(url, SourceError)[0], LocalFileSystem)


def sha256_file(url: str) -> str:
    """The sha256 of a file's bytes in hex, streamed.

    Raises:
        SourceError: as :func:`open_read`.
    """
    digest = hashlib.sha256()
    with open_read(url) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def identity(url: str) -> str:
    """A hex digest that changes when the file's content does, at a price that planning can pay.

    The sha256 of a local file up to 16 MiB; of a larger one, of its size, ends and 64 pieces between, which are 1 MiB
    together: a corpus is not read twice to be planned. Of a remote one, of its size and the store's own word for this
    content (its etag, else its version or its time), so that nothing is downloaded.

    Raises:
        SourceError: as :func:`open_read`.
    """
    fs, path = filesystem(url, SourceError)
    if isinstance(fs, LocalFileSystem):
        size = size_of(url) or 0
        return sha256_file(url) if size <= _WHOLE_BYTES else _sampled(url, size)
    info = asked(url, lambda: fs.info(path))
    # One word, the best: a listing and an answer about one file tell different things beside it, such as the version,
    # and a store moves an object to another storage class. ukey is of all that is told.
    told = next((str(info[key]).strip('"') for key in _WORDS if info.get(key)), None) or str(fs.ukey(path))
    return hashlib.sha256(f"{info.get('size')}\n{told}".encode()).hexdigest()


def _sampled(url: str, size: int) -> str:
    digest = hashlib.sha256(f"{size}\n".encode())
    with open_read(url) as file:
        for piece in range(_PIECES + 2):
            file.seek((size - _PIECE_BYTES) * piece // (_PIECES + 1))
            digest.update(file.read(_PIECE_BYTES))
    return digest.hexdigest()


def filesystem(url: str, kind: type[DestinationError] | type[SourceError]) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of a path or URL, and the path on it.

    Raises:
        DestinationError or SourceError, as ``kind`` says: no filesystem is known for its scheme, or it is empty.
    """
    if not url or "\0" in url:
        raise kind("an empty path", mend="Name a file or folder.")
    try:
        if "://" not in url:
            # Not by fsspec's reading of addresses: "a::b.jpg" is a file's name, and no chain of file systems.
            return fsspec.filesystem("file"), str(Path(url).expanduser().absolute())
        fs, path = url_to_fs(url, **_options(url))
    except (ValueError, ImportError) as error:
        raise kind(
            f"no filesystem for this address: {error}",
            where=url,
            mend="Use a local path, s3:// or another fsspec URL.",
        ) from error
    return fs, str(path)


def _options(url: str) -> dict[str, Any]:
    """S3's client asks for ten things at a time, and the rest would wait; what a user has set stays."""
    scheme, _, _ = url.partition("://")
    given = fsspec.config.conf.get(scheme, {})
    return {} if scheme not in ("s3", "s3a") or "config_kwargs" in given else {"config_kwargs": dict(_S3)}


def _private(name: str, root: str) -> bool:
    relative = name.removeprefix(root).strip("/")
    return any(piece.startswith((".", "_")) for piece in relative.split("/"))

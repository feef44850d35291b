"""Files: a folder anywhere fsspec reaches, written so that a name is either whole or absent.

Local writes go to a hidden temporary beside the target, are flushed to the disk and renamed; an object store
gets one put. So a reader never sees half a file, and two writers of the same bytes do not disturb each other.
Knows bytes, names and JSON; knows no rows, no formats and no credentials (fsspec's usual chain finds those).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from fsspec.implementations.local import LocalFileSystem

from capfilt.errors import CapfiltError, DestinationError
from capfilt.inputs import filesystem, is_file

_SPOOL_BYTES = 64 << 20
_TOGETHER = 1000
"""Small files that a remote store is asked for at once: they are in memory together."""
_READ_AHEAD = 16
"""The same of larger ones, such as ledgers."""


class Store:
    """A folder on any fsspec filesystem: a local path, ``file://``, ``s3://``, ``memory://``, ...

    Args:
        url: the folder; it need not exist. A relative local path is made absolute, since workers stand elsewhere.

    Raises:
        DestinationError: no filesystem is known for the URL's scheme.
    """

    def __init__(self, url: str) -> None:
        self._fs, root = filesystem(url, DestinationError)
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._root = str(Path(root).absolute()) if self.is_local else root.rstrip("/")
        self.url = self._root if self.is_local else str(self._fs.unstrip_protocol(self._root))

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return Store, (self.url,)

    def path(self, name: str) -> str:
        """Full path (local) or URL of a name inside the folder, with forward slashes.

        Raises:
            DestinationError: the name is empty, absolute or climbs out of the folder.
        """
        return f"{self.url}/{_inside(name)}"

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name is there."""
        self._forget()
        with self._asked():
            return bool(self._fs.exists(self._full(name)))

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the files directly in a folder (``""`` is the store itself); ``[]`` if it is absent.

        Hidden names, which include the temporaries of unfinished writes, are left out.
        """
        self._forget()
        try:
            with self._asked():
                entries = self._fs.ls(self._full(folder) if folder else self._root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = [PurePosixPath(entry["name"]).name for entry in entries if is_file(self._fs, entry)]
        return sorted(name for name in names if name and not name.startswith("."))

    def entries(self) -> list[str]:
        """Sorted names of everything directly in the store: files, folders and hidden ones."""
        self._forget()
        try:
            with self._asked():
                entries = self._fs.ls(self._root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for entry in entries if (name := PurePosixPath(entry["name"].rstrip("/")).name))

    def read(self, name: str) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: it is not there.
        """
        with self._asked():
            return bytes(self._fs.cat_file(self._full(name)))

    def read_all(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """(name, content) of every file directly in a folder, by name; an object store is asked for many at a time."""
        names = self.names(folder)
        if self.is_local:
            yield from ((name, Path(self._full(f"{folder}/{name}")).read_bytes()) for name in names)
            return
        for first in range(0, len(names), _TOGETHER):
            some = names[first : first + _TOGETHER]
            with self._asked():
                found = self._fs.cat([self._full(f"{folder}/{name}") for name in some])
            contents = {PurePosixPath(path).name: bytes(data) for path, data in found.items()}
            yield from ((name, contents[name]) for name in some)

    def read_each(self, names: Sequence[str]) -> Iterator[bytes]:
        """The contents of files, in order; an object store is asked for some at a time, as its answers take long.

        Raises:
            FileNotFoundError: one is not there; those before it were yielded.
        """
        if self.is_local:
            yield from map(self.read, names)
            return
        with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="store") as pool:
            for first in range(0, len(names), _READ_AHEAD):
                yield from pool.map(self.read, names[first : first + _READ_AHEAD])

    def write(self, name: str, data: bytes) -> str:
        """Writes a whole file atomically, replacing what was there; returns the sha256 of ``data`` in hex.

        Raises:
            DestinationError: the local disk refuses (rights, space, a file where a folder is needed).
        """
        if self.is_local:
            with self._local_file(name) as file, _told(Path(self._full(name))):
                file.write(data)
        else:
            with self._asked():
                self._fs.pipe_file(self._full(name), data)
        return hashlib.sha256(data).hexdigest()

    def create(self, name: str, data: bytes) -> bool:
        """Writes a whole file unless one of this name is there; returns whether it did. Of many at once one does.

        Stores that cannot promise that (S3 can) look first, and then write.

        Raises:
            DestinationError: as :meth:`write`.
        """
        if not self.is_local:
            if self.exists(name):
                return False
            try:
                with self._asked():
                    self._fs.pipe_file(self._full(name), data, mode="create")
            except (FileExistsError, DestinationError):
                # s3fs has no word of its own for a condition that did not hold.
                if self.exists(name):
                    return False
                raise
            return True
        target = Path(self._full(name))
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
        with _told(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                # The name appears with its content, and only if it is free.
                target.hardlink_to(temporary)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    @contextmanager
    def write_file(self, name: str) -> Iterator[BinaryIO]:
        """A stream that becomes the file when the block ends; nothing appears if the block raises.

        Raises:
            DestinationError: as :meth:`write`.
        """
        with self._local_file(name) if self.is_local else self._remote_file(name) as file:
            yield file

    def read_json(self, name: str) -> Any:
        """The JSON value in a file.

        Raises:
            FileNotFoundError: it is not there.
            DestinationError: it is not JSON.
        """
        try:
            return json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise DestinationError(
                f"not JSON: {error}",
                where=self.path(name),
                mend="Remove this file if it was damaged, and run again.",
            ) from error

    def write_json(self, name: str, obj: Any) -> str:
        """Writes JSON with sorted keys, one space of indent and a last newline; returns its sha256 in hex.

        Raises:
            DestinationError: as :meth:`write`.
            ValueError: a number is not finite.
        """
        text = json.dumps(obj, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        # A file's name may be no UTF-8, which Python keeps as lone surrogates.
        return self.write(name, f"{text}\n".encode("utf-8", "replace"))

    def remove(self, name: str) -> None:
        """Removes one file; nothing happens if it is absent."""
        with suppress(FileNotFoundError), self._asked():
            self._fs.rm_file(self._full(name))

    def remove_temporaries(self) -> int:
        """Removes what writes left that were killed, and says how many; only for who works here alone.

        Remote stores have none: what is not written whole does not appear there.
        """
        if not self.is_local:
            return 0
        found = [file for pattern in (".*.tmp", "*/.*.tmp") for file in Path(self._root).glob(pattern)]
        for file in found:
            file.unlink(missing_ok=True)
        return len(found)

    def check_writable(self) -> None:
        """Tries whether the folder can be written, and leaves no trace; the folder itself is not created.

        Raises:
            DestinationError: it cannot; the mend says what to do.
        """
        if self.is_local:
            _check_local(Path(self._root))
            return
        probe = self._full(f".capfilt-{secrets.token_hex(8)}")
        try:
            self._fs.pipe_file(probe, b"capfilt")
            self._fs.rm_file(probe)
        except Exception as error:  # a remote service: its client may raise anything
            raise DestinationError(
                f"cannot be written: {type(error).__name__}: {error}",
                where=self.url,
                mend="Check that the bucket exists and that your credentials may write and delete there.",
                passing=not isinstance(error, FileNotFoundError | PermissionError),
            ) from error

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """A remote service's failure as an error for the user; its client may raise anything."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, NotADirectoryError, CapfiltError):
            raise
        except Exception as error:
            if self.is_local:
                raise
            raise DestinationError(
                f"the store fails: {type(error).__name__}: {error}",
                where=self.url,
                mend="What is committed stays. Check the store and your rights there, and run again to go on.",
                passing=not isinstance(error, PermissionError),
            ) from error

    def _full(self, name: str) -> str:
        return f"{self._root}/{_inside(name)}"

    def _forget(self) -> None:
        # Object stores cache listings; other workers write behind this one's back.
        self._fs.invalidate_cache()

    @contextmanager
    def _local_file(self, name: str) -> Iterator[BinaryIO]:
        target = Path(self._full(name))
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
        with _told(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open("xb")
        try:
            # A full disk is told by whichever write comes first: the caller's, the last, or that of closing.
            with _told(target), file:
                yield cast("BinaryIO", file)
                file.flush()
                os.fsync(file.fileno())
            with _told(target):
                temporary.replace(target)
                _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _remote_file(self, name: str) -> Iterator[BinaryIO]:
        with tempfile.TemporaryDirectory(prefix="capfilt-") as folder:
            local = Path(folder, "file")
            with local.open("wb") as file:
                yield cast("BinaryIO", file)
            with self._asked():
                if local.stat().st_size <= _SPOOL_BYTES:
                    self._fs.pipe_file(self._full(name), local.read_bytes())
                else:
                    self._fs.put_file(str(local), self._full(name))


class HashingWriter(io.RawIOBase):
    """Passes bytes on to a file, front to back, and keeps their count and sha256."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._digest, self.size = file, hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        """Of the bytes so far, in hex."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Bytes so far."""
        return self.size

    def write(self, data: Any) -> int:
        """Passes all of ``data`` on."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._digest.update(view)
        self.size += len(view)
        return len(view)


def _inside(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise DestinationError(f"{name!r} is not a name inside the folder", mend="Names are relative, without '..'.")
    return "/".join(parts)


@contextmanager
def _told(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DestinationError(
            f"cannot be written: {error.strerror or error}",
            where=str(target),
            mend="Check the rights and the free space there, or choose another folder.",
        ) from error


def _check_local(root: Path) -> None:
    standing = root
    while not standing.exists() and standing != standing.parent:
        standing = standing.parent
    where = str(root)
    if not standing.is_dir():
        raise DestinationError(
            f"{standing} is a file, not a folder", where=where, mend="Choose another folder for the output."
        )
    try:
        with tempfile.NamedTemporaryFile(dir=standing, prefix=".capfilt-") as file:
            file.write(b"capfilt")
            file.flush()
    except OSError as error:
        raise DestinationError(
            f"cannot be written: {error.strerror or error}",
            where=where,
            mend=f"Give yourself rights (and space) in {standing}, or choose another folder.",
        ) from error


def _sync_folder(folder: Path) -> None:
    # The rename itself must survive a power cut, or a marker could outlive the files it vouches for.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

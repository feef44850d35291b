"""A store in memory that fails as often as it is told to."""

import threading

import fsspec
from fsspec.spec import AbstractBufferedFile

ROOM: dict[str, bytes] = {}


class Weather:
    """How the store is: how many answers fail from now on, of whose names, and with what."""

    def __init__(self) -> None:
        self.left, self.error, self.part, self.failed = 0, OSError(16, "SlowDown"), "", 0
        self._lock = threading.Lock()

    def storm(self, times: int, error: Exception | None = None, part: str = "") -> None:
        self.left, self.error, self.part, self.failed = times, error or OSError(16, "SlowDown"), part, 0

    def ask(self, path: str) -> None:
        with self._lock:
            if self.left and self.part in path:
                self.left, self.failed = self.left - 1, self.failed + 1
                raise self.error


WEATHER = Weather()


class _File(AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        WEATHER.ask(self.path)
        return ROOM[self.path][start:end]


class Flaky(fsspec.AbstractFileSystem):
    """``flaky://name``: what :data:`ROOM` holds."""

    protocol = "flaky"
    cachable = False

    def info(self, path: str, **_: object) -> dict[str, object]:
        path = self._strip_protocol(path).strip("/")
        if path in ROOM:
            return {"name": path, "size": len(ROOM[path]), "type": "file", "etag": str(hash(ROOM[path]))}
        if any(name.startswith(f"{path}/") for name in ROOM):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **_: object) -> list[object]:
        path = self._strip_protocol(path).strip("/")
        inside = {name for name in ROOM if name.startswith(f"{path}/")}
        names = {f"{path}/" + name[len(path) + 1 :].split("/")[0] for name in inside}
        if not names:
            raise FileNotFoundError(path)
        return [self.info(name) for name in sorted(names)] if detail else sorted(names)

    def _open(self, path: str, mode: str = "rb", **_: object) -> _File:
        path = path.strip("/")
        WEATHER.ask(path)
        self.info(path)
        return _File(self, path, mode, size=len(ROOM[path]))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: object) -> bytes:
        path = self._strip_protocol(path).strip("/")
        WEATHER.ask(path)
        self.info(path)
        return ROOM[path][start:end]

    def pipe_file(self, path: str, value: bytes, **_: object) -> None:
        ROOM[self._strip_protocol(path).strip("/")] = bytes(value)

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path).strip("/")
        if path not in ROOM:
            raise FileNotFoundError(path)
        del ROOM[path]


fsspec.register_implementation("flaky", Flaky, clobber=True)

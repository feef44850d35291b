"""A loopback server that speaks what the Hugging Face hub's file system asks: a repository's listing and its files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from tests import loopback
from tests.loopback import Quiet

COMMIT = "0" * 39 + "1"


class _Hub(Quiet, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    repo: str

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api, resolve = f"/api/datasets/{self.repo}", f"/datasets/{self.repo}/resolve/main/"
        if path in (api, f"{api}/revision/main"):
            self.answer({"id": self.repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]})
        elif (found := re.fullmatch(rf"{api}/tree/(?:main|{COMMIT})/?(.*)", path)) is not None:
            self.answer(self.tree(found[1], deep="recursive=true" in self.path.lower()))
        elif path.startswith(resolve) and path.removeprefix(resolve) in self.files:
            self.send_file(self.files[path.removeprefix(resolve)])
        else:
            self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = json.loads(body) if body.startswith("{") else parse_qs(body)
        there = {*self.files, *self.folders()}
        self.answer([self.entry(name) for name in form["paths"] if name in there])

    def folders(self) -> list[str]:
        return sorted({str(folder) for name in self.files for folder in PurePosixPath(name).parents} - {"."})

    def tree(self, folder: str, *, deep: bool) -> list[dict[str, object]]:
        below = [PurePosixPath(name) for name in [*self.folders(), *self.files]]
        root = PurePosixPath(folder)
        return [self.entry(str(path)) for path in below if (root in path.parents if deep else path.parent == root)]

    def entry(self, name: str) -> dict[str, object]:
        if name not in self.files:
            return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
        data = self.files[name]
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def send_file(self, data: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or len(data) - 1)) if asked else (0, len(data) - 1)
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
        self.send(data[first : last + 1], 206 if asked else 200, headers)

    def answer(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send(self, data: bytes, status: int, headers: dict[str, str] | Message) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def serving(repo: str, files: dict[str, bytes]) -> Iterator[str]:
    """The endpoint of a hub with one data set of these files (from path to content)."""
    handler = type("Handler", (_Hub,), {"files": files, "repo": repo})
    with loopback.serving(handler) as address:
        yield address

"""A small Hugging Face Hub on loopback: repositories, trees, LFS by batch, commits. It checks what it is given."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.loopback import Quiet, listening

TOKEN = "hf_" + "q" * 34


class Hub:
    def __init__(self):
        self.private = {}
        self.files = {}
        """From repository to path to (content, in LFS)."""
        self.objects = {}
        self.commits = []
        self.fail_commits_after = None
        self.lock = threading.Lock()


class Handler(Quiet, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status, value=None, headers=()):
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def handle_it(self):
        data = self.body()
        path = self.path.partition("?")[0]
        with self.hub.lock:
            if not path.startswith("/storage/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.answer(401, {"error": "Invalid credentials"}, [("X-Error-Message", "Invalid credentials")])
                return
            for method, pattern, what in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and method == self.command:
                    what(self, data, *found.groups())
                    return
            self.answer(404, {"error": f"no {self.command} {path}"})

    do_GET = do_POST = do_PUT = handle_it  # noqa: N815

    def create(self, data):
        asked = json.loads(data)
        assert asked["type"] == "dataset"
        name = f"{asked['organization'] or 'me'}/{asked['name']}"
        url = {"url": f"{self.server.url}/datasets/{name}", "name": name}
        if name in self.hub.files:
            self.answer(409, {"error": "You already created this dataset repo", **url})
            return
        self.hub.files[name] = {}
        self.hub.private[name] = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.answer(200, url)

    def info(self, data, name):
        if name not in self.hub.files:
            self.answer(404, {"error": "Repository not found"}, [("X-Error-Code", "RepoNotFound")])
            return
        told = {"id": name, "private": self.hub.private[name], "sha": "0" * 40, "siblings": [], "tags": []}
        self.answer(200, {**told, "downloads": 0, "likes": 0, "author": name.split("/")[0], "disabled": False})

    def tree(self, data, name):
        told = []
        for path, (content, in_lfs) in sorted(self.hub.files[name].items()):
            item = {"type": "file", "path": path, "size": len(content), "oid": blob(content)}
            if in_lfs:
                item["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
            told.append(item)
        self.answer(200, told)

    def preupload(self, data, name):
        files = json.loads(data)["files"]
        modes = [(f["path"], "lfs" if f["path"].endswith((".tar", ".parquet")) else "regular") for f in files]
        self.answer(200, {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes]})

    def batch(self, data, name):
        told = []
        for item in json.loads(data)["objects"]:
            if item["oid"] not in self.hub.objects:
                href = f"{self.server.url}/storage/{item['oid']}?X-Signature=verysecret"
                item["actions"] = {"upload": {"href": href, "header": {}}}
            told.append(item)
        self.answer(200, {"transfer": "basic", "objects": told})

    def store(self, data, oid):
        if sha256(data) != oid:
            self.answer(400, {"error": "digest"})
            return
        self.hub.objects[oid] = data
        self.answer(200)

    def commit(self, data, name):
        if self.hub.fail_commits_after is not None and len(self.hub.commits) >= self.hub.fail_commits_after:
            self.answer(403, {"error": "over quota"}, [("X-Error-Message", "over quota")])
            return
        paths, repo = [], self.hub.files[name]
        for line in map(json.loads, data.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                repo[value["path"]] = base64.b64decode(value["content"]), False
            elif line["key"] == "lfsFile":
                content = self.hub.objects[value["oid"]]
                assert len(content) == value["size"]
                repo[value["path"]] = content, True
            elif line["key"] == "deletedFile":
                del repo[value["path"]]
            else:
                assert line["key"] == "header"
                continue
            paths.append(value["path"])
        self.hub.commits.append(paths)
        oid = f"{len(self.hub.commits):040x}"
        self.answer(
            200, {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/datasets/{name}/commit/{oid}"}
        )

    def card(self, data):
        assert "license" in json.loads(data)["content"]
        self.answer(200, {"errors": [], "warnings": []})


NAME = r"([^/]+/[^/]+)"
ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.card),
    ("GET", f"/api/datasets/{NAME}", Handler.info),
    ("GET", f"/api/datasets/{NAME}/tree/main", Handler.tree),
    ("POST", f"/api/datasets/{NAME}/preupload/main", Handler.preupload),
    ("POST", f"/datasets/{NAME}\\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/storage/([0-9a-f]{64})", Handler.store),
    ("POST", f"/api/datasets/{NAME}/commit/main", Handler.commit),
]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving():
    """A hub, and its address."""
    with listening(Handler) as server:
        server.hub, server.url = Hub(), f"http://127.0.0.1:{server.server_port}"
        yield server.hub, server.url

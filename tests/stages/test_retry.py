"""A second try: what comes in late is judged with what was there, and what the source drops stays dropped."""

from __future__ import annotations

import io
import threading
from http.server import BaseHTTPRequestHandler

import pytest
from PIL import Image

from capfilt.fetch.config import FetchConfig
from capfilt.records import Drop, row_id, table_of
from capfilt.shards.commit import SinkConfig
from capfilt.shards.verify import verify
from capfilt.sources.parts import cut
from capfilt.stages.fetch import FetchImages
from capfilt.stages.retry import HoldRows
from capfilt.stages.sink import WriteShards
from capfilt.storage import Store
from tests.loopback import Quiet, serving


def png(colour):
    out = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def shop():
    """A server of one grey picture, and of a red one at /own; it is too busy for /late until it is told otherwise."""
    busy = threading.Event()
    busy.set()

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self):
            body = png("red" if self.path.startswith("/own") else "grey")
            self.send_response(503 if self.path.startswith("/late") and busy.is_set() else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as address:
        yield address, busy


def row(number, url, **more):
    text = {"text": f"text {number}", "origin": "web", "itm": 0.75, "itc": None, "kept": True}
    fields = {"id": row_id(url, text["text"]), "part": 0, "row": number, "url": url, "captions": [text]}
    return fields | more


def tried(dest, rows, *retry):
    """The drops of a part's rows: tried once, or again for these reasons."""
    fetch = FetchImages(fetch=FetchConfig(allow_addresses=("127.0.0.0/8",), retries=0, same_picture_max=5))
    write = WriteShards(
        dest=str(dest), sink=SinkConfig(), parts=cut([("table", len(rows), "d")], len(rows)), again=bool(retry)
    )
    table = table_of(rows)
    for stage in ([HoldRows(dest=str(dest), reasons=retry)] if retry else []) + [fetch, write]:
        table = stage.open()(table)
    return table.column("drop").to_pylist(), table.column("detail").to_pylist()


def test_pictures_that_come_late_are_counted_with_the_placeholders_that_were_told(tmp_path, shop):
    base, busy = shop
    paths = [f"/own/{n}" for n in range(2)] + [f"/early/{n}" for n in range(7)] + [f"/late/{n}" for n in range(3)]
    rows = [row(n, base + path) for n, path in enumerate(paths)]
    assert tried(tmp_path, rows)[0] == [None] * 2 + [Drop.PLACEHOLDER] * 7 + [Drop.HTTP_STATUS] * 3
    busy.clear()
    drops, details = tried(tmp_path, rows, Drop.HTTP_STATUS)
    assert drops == [None] * 2 + [Drop.PLACEHOLDER] * 10
    assert details[-1] == "10 addresses of this part give this very picture."
    # The parts' plan has no manifest here.
    assert [problem for problem in verify(Store(str(tmp_path))) if "manifest" not in problem] == []


def test_what_the_source_drops_again_keeps_the_sources_reason(tmp_path):
    drop = {"drop": str(Drop.TOO_LARGE), "detail": "The file has 70,000,000 bytes."}
    rows = [row(0, "huge.png", **drop), row(1, "small.png", image=png("red"))]
    for retry in ((), (Drop.TOO_LARGE,)):
        assert tried(tmp_path, rows, *retry) == ([Drop.TOO_LARGE, None], [drop["detail"], None])
    rows[0] = row(0, "huge.png", image=png("blue"))
    assert tried(tmp_path, rows, Drop.TOO_LARGE)[0] == [None, None], "it is smaller now"

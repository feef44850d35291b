"""The stage that brings pictures in keeps every row, its order and its books."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import pyarrow as pa
import pytest
from PIL import Image

from capfilt.fetch.config import FetchConfig
from capfilt.images import decode
from capfilt.records import SCHEMA, Drop, Tally, conform, row_id, table_of, web_caption
from capfilt.stages.base import Stage
from capfilt.stages.fetch import FetchImages
from tests.loopback import Quiet, serving


def jpeg(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG")
    return out.getvalue()


def row(number: int, url: str | None, **others) -> dict:
    caption = f"a picture {number}"
    fields = {"id": row_id(url or "", caption), "part": 3, "row": number, "url": url}
    return {**fields, "captions": [web_caption(caption)], **others}


@pytest.fixture
def shop():
    """A server of one red picture, which counts what is asked of it."""
    hits: Counter[str] = Counter()

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self):
            hits[self.path] += 1
            body = jpeg("red") if self.path.startswith("/red") else b"<html>gone</html>"
            self.send_response(404 if self.path == "/missing" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as address:
        yield address, hits


@pytest.fixture
def stage() -> FetchImages:
    return FetchImages(fetch=FetchConfig(allow_addresses=("127.0.0.0/8",), retries=0))


def test_every_row_comes_out_with_a_picture_or_a_reason(stage, shop):
    base, hits = shop
    rows = [
        row(10, f"{base}/red"),
        row(11, f"{base}/missing"),
        row(12, None),
        row(13, "  "),
        row(14, "tar/member.png", image=jpeg("blue")),
        row(15, "tar/broken.png", image=jpeg("blue")[:300]),
        row(16, f"{base}/page"),
        row(17, f"{base}/red"),
        row(18, f"{base}/red", drop="unreadable_row", detail="The row cannot be read."),
        row(19, "relative.jpg"),
        row(20, "http://10.0.0.1/a.jpg"),
        row(21, "http://10.0.0.1/a.jpg", image=jpeg("green"), drop="duplicate", detail="Seen before."),
        row(22, "tar/huge.png", image=jpeg("white", (3000, 2000))),
    ]
    before = table_of(rows)
    after = stage.open()(before)
    assert conform(after, where="test") is not None
    assert after.column("row").to_pylist() == list(range(10, 23))
    for name in ("id", "part", "row", "url", "captions"):
        assert after.column(name).equals(before.column(name))
    assert after.column("drop").to_pylist() == [
        None,
        Drop.HTTP_STATUS,
        Drop.NO_URL,
        Drop.NO_URL,
        None,
        Drop.BROKEN_IMAGE,
        Drop.NOT_AN_IMAGE,
        None,
        Drop.UNREADABLE_ROW,
        Drop.NO_URL,
        Drop.REFUSED_ADDRESS,
        Drop.DUPLICATE,
        None,
    ]
    for line in after.to_pylist():
        measured = [line[name] for name in ("image", "width", "height", "sha256", "phash")]
        assert all(value is None for value in measured) == (line["drop"] is not None)
        assert (line["detail"] is None) == (line["drop"] is None)
        if line["drop"] is None:
            assert decode(line["image"]).size == (line["width"], line["height"])
    assert after.column("width").to_pylist()[-1] == 1024
    assert after.column("detail").to_pylist()[8] == "The row cannot be read."
    assert "404" in after.column("detail").to_pylist()[1]
    assert hits["/red"] == 1, "equal URLs are fetched once"
    tally = Tally.of(after)
    assert (tally.balanced, tally.rows, tally.kept) == (True, 13, 4)


def test_it_says_what_it_touches(stage, shop):
    base, _ = shop
    assert isinstance(stage, Stage)
    assert set(stage.reads) | set(stage.writes) <= set(SCHEMA.names)
    before = table_of([row(0, f"{base}/red"), row(1, f"{base}/missing")])
    after = stage.open()(before)
    changed = {name for name in SCHEMA.names if not after.column(name).equals(before.column(name))}
    assert changed <= set(stage.writes)
    assert 0 < stage.needs.cpus < 1
    assert stage.needs.gpus == 0


def test_one_picture_for_many_addresses_is_a_placeholder(shop):
    """Six addresses of one picture go, five of another stay, and so do files that are equal and repeated rows."""
    base, _ = shop
    config = FetchConfig(allow_addresses=("127.0.0.0/8",), retries=0, same_picture_max=5)
    gone = [row(n, f"{base}/red/{n}") for n in range(6)]
    blue = [row(n, f"HTTP://elsewhere.example/{n}", image=jpeg("blue")) for n in range(6, 11)]
    files = [row(n, f"folder/{n}.jpg", image=jpeg("green")) for n in range(11, 30)]
    repeated = [row(n, "http://elsewhere.example/same", image=jpeg("white")) for n in range(30, 40)]
    table = table_of([*gone, *blue, *files, *repeated])
    after = FetchImages(fetch=config).open()(table).to_pylist()
    assert [line["drop"] for line in after] == [Drop.PLACEHOLDER] * 6 + [None] * 34
    assert {line["detail"] for line in after[:6]} == {"6 addresses of this part give this very picture."}
    assert all(line[name] is None for line in after[:6] for name in ("image", "sha256", "phash", "width"))
    off = FetchImages(fetch=replace(config, same_picture_max=0)).open()(table)
    assert off.column("drop").null_count == 40


def test_pictures_come_with_what_they_look_like(stage, shop):
    base, _ = shop
    table = stage.open()(table_of([row(0, f"{base}/red"), row(1, f"{base}/page"), row(2, None, image=jpeg("blue"))]))
    hashes = table.column("phash").to_pylist()
    assert [hash_ is not None for hash_ in hashes] == [True, False, True]
    assert all(len(hash_) == 16 for hash_ in hashes if hash_)


def test_no_rows(stage):
    empty = SCHEMA.empty_table()
    assert stage.open()(empty).schema.equals(SCHEMA)
    assert stage.open()(empty).num_rows == 0


def test_a_table_in_chunks(stage, shop):
    base, _ = shop
    tables = [table_of([row(n, f"{base}/red?{n}"), row(n + 1, None, image=jpeg("blue"))]) for n in (0, 2)]
    after = stage.open()(pa.concat_tables(tables))
    assert after.column("drop").null_count == 4


def test_the_opened_work_and_the_stage_pickle(stage, shop):
    base, _ = shop
    work = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(stage)).open()))
    table = table_of([row(0, f"{base}/red")])
    assert work(table).equals(stage.open()(table))

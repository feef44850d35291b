"""Every way a URL or a server is hostile, each with the drop it must become and a word its sentence must have."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from capfilt.fetch.config import FetchConfig
from capfilt.fetch.process import fetch_all
from capfilt.images import ImageLimits, Picture
from capfilt.records import Drop

CONFIG = FetchConfig(
    timeout_connect_s=1.0,
    timeout_read_s=0.8,
    timeout_total_s=1.5,
    per_host=100,
    concurrency=200,
    max_redirects=4,
    retries=1,
    retry_wait_s=0.01,
    retry_after_max_s=2,
    allow_addresses=("127.0.0.1/32", "127.0.0.8/31"),
    images=ImageLimits(max_bytes=200_000),
)

REFUSED = Drop.REFUSED_ADDRESS
ADDRESSES = {
    "other loopback": ("http://127.0.0.2/", REFUSED, "loopback"),
    "loopback, hexadecimal": ("http://0x7f.1/", REFUSED, "odd spelling of the address 127.0.0.1"),
    "loopback, one number": ("http://2130706433/", REFUSED, "odd spelling"),
    "loopback, octal": ("http://017700000001/", REFUSED, "odd spelling"),
    "loopback, short": ("http://127.1/", REFUSED, "odd spelling"),
    "loopback, IPv6": ("http://[::1]/", REFUSED, "loopback"),
    "number that is none": ("http://999.999.999.999/", REFUSED, "no address"),
    "private": ("http://10.0.0.1/", REFUSED, "private"),
    "private, trailing dot": ("http://10.0.0.1./", REFUSED, "private"),
    "private, full-width": ("http://１０.０.０.１/", REFUSED, "private"),
    "private, mapped": ("http://[::ffff:10.0.0.1]/", REFUSED, "private"),
    "private, compatible": ("http://[::10.0.0.1]/", REFUSED, "private"),
    "private, NAT64": ("http://[64:ff9b::10.0.0.1]/", REFUSED, "private"),
    "private, 6to4": ("http://[2002:0a00:0001::]/", REFUSED, "private"),
    "private, behind a user": ("http://example.com@10.0.0.1/", REFUSED, "private"),
    "private, IPv6": ("http://[fd00::1]/", REFUSED, "private"),
    "carrier": ("http://100.64.0.1/", REFUSED, "carrier"),
    "metadata": ("http://169.254.169.254/latest/", REFUSED, "metadata"),
    "metadata, mapped": ("http://[::ffff:a9fe:a9fe]/", REFUSED, "metadata"),
    "metadata, public range": ("http://168.63.129.16/", REFUSED, "metadata"),
    "link-local": ("http://[fe80::1%25lo]/", REFUSED, "link-local"),
    "multicast": ("http://224.0.0.1/", REFUSED, "multicast"),
    "broadcast": ("http://255.255.255.255/", REFUSED, "reserved"),
    "this host": ("http://0.0.0.0/", REFUSED, "this host"),
    "this host, IPv6": ("http://[::]/", REFUSED, "this host"),
    "Teredo": ("http://[2001:0:102:304::1]/", REFUSED, "reserved"),
    "file": ("file:///etc/passwd", REFUSED, "neither http nor https"),
    "ftp": ("ftp://example.com/a.jpg", REFUSED, "neither http nor https"),
    "data": ("data:image/png;base64,iVBORw0KGgo=", REFUSED, "neither http nor https"),
    "script": ("javascript:alert(1)", REFUSED, "neither http nor https"),
    "empty": ("", Drop.NO_URL, "does not begin"),
    "relative": ("pictures/a.jpg", Drop.NO_URL, "does not begin"),
    "without scheme": ("//example.com/a.jpg", Drop.NO_URL, "does not begin"),
    "without host": ("http:///a.jpg", Drop.NO_URL, "no valid host"),
    "space in host": ("http://exa mple.com/", Drop.NO_URL, "no valid host"),
    "bad port": ("http://example.com:99999/", Drop.NO_URL, "no valid web address"),
    "backslash": ("http://example.com\\@10.0.0.1/", Drop.NO_URL, "no valid web address"),
    "half an IPv6": ("http://[::1", Drop.NO_URL, "no valid web address"),
    "brackets without host": ("http://[x]@/a.jpg", Drop.NO_URL, "no valid web address"),
    "brackets for a scheme": ("https://][ @", Drop.NO_URL, "no valid web address"),
    "a null byte": ("http://example.com\0.evil/", Drop.NO_URL, "no valid"),
    "no such name": ("http://nowhere.invalid/a.jpg", Drop.UNREACHABLE, "looked up"),
    "endless label": (f"http://{'a' * 70}.invalid/", Drop.UNREACHABLE, "looked up"),
    "no listener": ("http://127.0.0.1:1/", Drop.UNREACHABLE, "refuses the connection"),
}
PAGES = {
    "html": (Drop.NOT_AN_IMAGE, "looks like an HTML page"),
    "svg": (Drop.NOT_AN_IMAGE, "SVG"),
    "json": (Drop.NOT_AN_IMAGE, "JSON"),
    "empty": (Drop.NOT_AN_IMAGE, "empty"),
    "avif": (Drop.NOT_AN_IMAGE, "AVIF"),
    "brotli": (Drop.NOT_AN_IMAGE, "not asked for"),
    "truncated": (Drop.BROKEN_IMAGE, "cut short"),
    "noise": (Drop.BROKEN_IMAGE, "damaged"),
    "tiles": (Drop.BROKEN_IMAGE, "65520 x 65520"),
    "scans": (Drop.BROKEN_IMAGE, "scans"),
    "gzip-damaged": (Drop.BROKEN_IMAGE, "damaged"),
    "gzip-cut": (Drop.BROKEN_IMAGE, "cut short"),
    "pixels": (Drop.TOO_MANY_PIXELS, "20,000 x 20,000"),
    "small": (Drop.TOO_SMALL, "20 x 300"),
    "long": (Drop.BAD_ASPECT, "4000 x 40"),
    "heavy": (Drop.TOO_LARGE, "300,000 bytes"),
    "endless": (Drop.TOO_LARGE, "without end"),
    "gzip-bomb": (Drop.TOO_LARGE, "unfolds"),
    "deflate-bomb": (Drop.TOO_LARGE, "unfolds"),
    "404": (Drop.HTTP_STATUS, "404 (Not Found)"),
    "404-noindex": (Drop.HTTP_STATUS, "404"),
    "403": (Drop.HTTP_STATUS, "403"),
    "204": (Drop.HTTP_STATUS, "204"),
    "500": (Drop.HTTP_STATUS, "500"),
    "429-later": (Drop.HTTP_STATUS, "429"),
    "429-date": (Drop.HTTP_STATUS, "429"),
    "302-bare": (Drop.HTTP_STATUS, "302"),
    "noai": (Drop.OPTED_OUT, "noai"),
    "noml": (Drop.OPTED_OUT, "noml"),
    "ourbot": (Drop.OPTED_OUT, "noimageai"),
    "noai-silent": (Drop.OPTED_OUT, "noai"),
    "moved-noai": (Drop.OPTED_OUT, "noai"),
    "loop": (Drop.TOO_MANY_REDIRECTS, "more than 4"),
    "hop0": (Drop.TOO_MANY_REDIRECTS, "more than 4"),
    "to-private": (Drop.REFUSED_ADDRESS, "private"),
    "to-metadata": (Drop.REFUSED_ADDRESS, "metadata"),
    "to-loopback": (Drop.REFUSED_ADDRESS, "loopback"),
    "to-odd": (Drop.REFUSED_ADDRESS, "odd spelling"),
    "to-file": (Drop.REFUSED_ADDRESS, "neither http nor https"),
    "to-nonsense": (Drop.UNREACHABLE, "no web address"),
    "to-nowhere": (Drop.UNREACHABLE, "no web address"),
}
WIRE = {
    "nothing": (Drop.UNREACHABLE, "without an answer"),
    "garbage": (Drop.UNREACHABLE, "not valid HTTP"),
    "huge-header": (Drop.UNREACHABLE, "not valid HTTP"),
    "many-headers": (Drop.UNREACHABLE, "not valid HTTP"),
    "length-long": (Drop.UNREACHABLE, "broke off"),
    "length-short": (Drop.UNREACHABLE, "not valid HTTP"),
    "length-absurd": (Drop.TOO_LARGE, "99,999,999,999,999"),
    "length-negative": (Drop.UNREACHABLE, "not valid HTTP"),
    "two-lengths": (Drop.UNREACHABLE, "not valid HTTP"),
    "bad-chunks": (Drop.UNREACHABLE, "not valid HTTP"),
    "status-999": (Drop.HTTP_STATUS, "999"),
    "silent": (Drop.TIMED_OUT, "silent"),
    "loris": (Drop.TIMED_OUT, "did not finish"),
    "loris-headers": (Drop.TIMED_OUT, "did not finish"),
    "reset": (Drop.UNREACHABLE, "broke"),
}
LAXER = {
    # http.client reads as much as was announced, and takes a chunk without a length for the end of the connection.
    "length-short": (Drop.BROKEN_IMAGE, "cut short"),
    "bad-chunks": (Drop.UNREACHABLE, "broke off"),
}
"""What img2dataset's HTTP cannot tell."""
TOLD = {
    "html": "a sign-in page as JPEG",
    "svg": "a drawing that could hold scripts",
    "json": "an error as JSON, with status 200",
    "empty": "no bytes",
    "avif": "a format that is not read",
    "brotli": "a content coding that was not asked for",
    "truncated": "half a JPEG",
    "noise": "a JPEG's first bytes, then noise",
    "tiles": "a TIFF with tiles of 4 gigapixels",
    "scans": "a JPEG with 4,000 scans",
    "gzip-damaged": "damaged gzip",
    "gzip-cut": "gzip that is cut short",
    "pixels": "a PNG bomb, 400 megapixels in 50 kB",
    "small": "a strip of 20 x 300 pixels",
    "long": "a banner of 4,000 x 40 pixels",
    "heavy": "more bytes than are read",
    "endless": "a body without end",
    "gzip-bomb": "gzip that unfolds to 40 MB",
    "deflate-bomb": "deflate that unfolds to 20 MB",
    "404": "a status",
    "404-noindex": "a status, and an opt-out for the page that says so",
    "403": "a status",
    "204": "a status without a body",
    "500": "a status that may pass, twice",
    "429-later": "Retry-After: an hour",
    "429-date": "Retry-After: the year 2100",
    "302-bare": "a redirect to nowhere",
    "noai": "X-Robots-Tag: noai",
    "noml": "X-Robots-Tag: index, NoML",
    "ourbot": "X-Robots-Tag: capfilt: noimageai",
    "noai-silent": "an opt-out, and then no body",
    "moved-noai": "an opt-out on the redirect",
    "loop": "a redirect to itself",
    "hop0": "nine redirects",
    "to-private": "a redirect to 10.0.0.1",
    "to-metadata": "a redirect to a cloud's metadata",
    "to-loopback": "a redirect to another loopback address",
    "to-odd": "a redirect to 2130706433",
    "to-file": "a redirect to file:///etc/passwd",
    "to-nonsense": "a redirect to half an address",
    "to-nowhere": "a redirect to a host with a space",
    "nothing": "the connection closed without an answer",
    "garbage": "an answer that is not HTTP",
    "huge-header": "a header of 100 kB",
    "many-headers": "20,000 headers",
    "length-long": "more bytes announced than sent",
    "length-short": "fewer bytes announced than sent",
    "length-absurd": "99 terabytes announced",
    "length-negative": "a negative length",
    "two-lengths": "two lengths that differ",
    "bad-chunks": "a chunk whose length is no number",
    "status-999": "a status that does not exist",
    "silent": "no answer, ever",
    "loris": "a byte of the body every 0.1 s",
    "loris-headers": "a header every 0.1 s, without end",
    "reset": "the connection reset within the body",
}
"""What each page and each answer is, as docs/fetching.md tells it."""
GOOD = ("good", "good.html", "gzipped", "moved", "otherbot", "flaky")


@pytest.fixture(scope="module")
def hits(site, outcomes) -> Counter[str]:
    """What was asked of the server for the batch."""
    return Counter(site.hits)


@pytest.fixture(scope="module")
def outcomes(site, engine):
    """All cases in one batch, as a real part mixes them."""
    urls = {name: case[0] for name, case in ADDRESSES.items()}
    urls |= {f"page {name}": site.url(name) for name in (*PAGES, *GOOD)}
    # These ask to be left alone, with all else that their host has.
    urls |= {"page 429-later": site.url("429-later", "127.0.0.8"), "page 429-date": site.url("429-date", "127.0.0.9")}
    urls |= {f"wire {name}": site.raw(name) for name in (*WIRE, "length-none")}
    urls["tls self-signed"] = f"https://127.0.0.1:{site.tls_port}/good"
    urls["tls plain"] = f"https://127.0.0.1:{site.port}/good"
    urls["deaf"] = f"http://127.0.0.1:{site.deaf_port}/"
    fetch_all(["http://10.0.0.1/"], replace(CONFIG, engine=engine))  # img2dataset takes seconds to load
    site.hits.clear()
    started = time.monotonic()
    found = dict(zip(urls, fetch_all(list(urls.values()), replace(CONFIG, engine=engine)), strict=True))
    assert time.monotonic() - started < 10
    return found


def judge(outcome, drop, word):
    assert not isinstance(outcome, Picture)
    assert (outcome.drop, word in outcome.detail) == (drop, True), outcome
    assert re.fullmatch(r"[A-Z0-9a-z].*\.", outcome.detail)
    assert not re.search(r"\wError|Exception|errno|<|\bat 0x", outcome.detail), "a sentence, not a Python repr"


@pytest.mark.parametrize("name", ADDRESSES)
def test_addresses(outcomes, name):
    judge(outcomes[name], *ADDRESSES[name][1:])


@pytest.mark.parametrize("name", PAGES)
def test_pages(outcomes, name):
    judge(outcomes[f"page {name}"], *PAGES[name])


@pytest.mark.parametrize("name", WIRE)
def test_wire(outcomes, engine, name):
    expected = WIRE | LAXER if engine == "img2dataset" else WIRE
    judge(outcomes[f"wire {name}"], *expected[name])


@pytest.mark.parametrize("name", [f"page {name}" for name in GOOD] + ["wire length-none"])
def test_good_pictures_come_through_the_same_batch(outcomes, name):
    picture = outcomes[name]
    assert isinstance(picture, Picture), picture
    assert (picture.width, picture.height) == (80, 60)


def test_plain_http_on_a_tls_port(outcomes):
    judge(outcomes["tls plain"], Drop.UNREACHABLE, "secure (TLS) connection")


def test_a_certificate_nobody_vouches_for(outcomes, self_signed):
    if self_signed is None:
        pytest.skip("needs openssl to make a certificate")
    judge(outcomes["tls self-signed"], Drop.UNREACHABLE, "certificate that is not valid: self-signed certificate")


def test_a_port_that_never_accepts(outcomes):
    judge(outcomes["deaf"], Drop.TIMED_OUT, "did not accept a connection")


def test_what_cannot_pass_is_asked_for_once(hits):
    asked_once = ("/404", "/noai", "/429-later", "/html", "/to-private", "/endless")
    assert {hits[path] for path in asked_once} == {1}
    assert (hits["/500"], hits["/flaky"]) == (2, 2)


def cell(text: str) -> str:
    shown = "".join(char if char.isprintable() else "\\0" for char in text)
    return (shown if len(shown) < 60 else f"{shown[:57]}...").replace("|", "\\|").replace("\\@", "\\\\@")


def test_the_page_on_fetching_has_the_table_of_all_cases(outcomes, engine, site, tmp_path):
    if engine != "native":
        pytest.skip("the page tells what the native engine says")
    lines = [f"| `{cell(url)}` | {outcomes[name].drop} |" for name, (url, *_) in ADDRESSES.items() if url]
    pages = [("page", name) for name in PAGES] + [("wire", name) for name in WIRE]
    lines += [f"| {TOLD[name]} | {outcomes[f'{kind} {name}'].drop} |" for kind, name in pages]
    lines += [f"| {what} | {outcomes[name].drop} |" for name, what in OTHERS.items() if name in outcomes]
    table = "\n".join(["| what | drop |", "|---|---|", *lines])
    (tmp_path / "table.md").write_text(table)
    page = (Path(__file__).resolve().parents[2] / "docs" / "fetching.md").read_text(encoding="utf-8")
    assert table in page, f"docs/fetching.md should have the table of {tmp_path / 'table.md'}"


OTHERS = {
    "tls self-signed": "a certificate nobody vouches for",
    "tls plain": "https on a port that speaks http",
    "deaf": "a port that never accepts",
}

"""robots.txt is read once for each host, and obeyed."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from capfilt.fetch.config import FetchConfig
from capfilt.fetch.process import fetch_all
from capfilt.fetch.robots import parsed
from capfilt.images import Picture
from capfilt.records import Drop

CONFIG = FetchConfig(
    allow_addresses=("127.0.0.0/8",), robots_txt=True, retries=1, retry_wait_s=0.01, timeout_connect_s=2
)


@pytest.fixture(scope="module")
def base(engine) -> FetchConfig:
    return replace(CONFIG, engine=engine)


@pytest.mark.parametrize(
    ("page", "host", "drop", "word"),
    [
        ("good", 3, None, ""),
        ("a/secret", 3, Drop.OPTED_OUT, "The robots.txt of 127.0.0.3 asks robots to leave this address out."),
        ("slowly?n=7", 3, Drop.OPTED_OUT, "robots.txt"),
        ("slowly?n=77", 3, None, ""),
        ("good", 4, Drop.HTTP_STATUS, "cannot be read, so nothing is asked: 127.0.0.4 answered 503"),
        ("a/secret", 5, Drop.OPTED_OUT, "robots.txt of 127.0.0.5"),
        ("good", 6, Drop.REFUSED_ADDRESS, "a private address"),
        ("good", 7, Drop.TOO_LARGE, "robots.txt"),
        ("a/secret", 8, None, ""),
        ("a/secret", 9, None, ""),
    ],
)
def test_rules(site, page, host, drop, word, base):
    found = fetch_all([site.url(page, f"127.0.0.{host}")], base)[0]
    if drop is None:
        assert isinstance(found, Picture), found
    else:
        assert (found.drop, word in found.detail) == (drop, True), found


def test_it_is_asked_for_once_a_host_before_all_else(site, base):
    config = replace(base, timeout_read_s=3)
    site.log.clear()
    for _ in range(2):
        fetch_all([site.url(f"good?n={n}", "127.0.0.3") for n in range(8)], config)
    assert site.log == ["/robots.txt", *["/good"] * 16]


def test_a_redirect_asks_the_host_it_leads_to(site, base):
    """127.0.0.2 has no rules; where it sends us does."""
    found = fetch_all([site.url("to-secret", "127.0.0.2")], base)[0]
    assert (found.drop, "robots.txt of 127.0.0.3" in found.detail) == (Drop.OPTED_OUT, True)


def test_it_is_not_asked_for_where_nobody_wants_it(site, base):
    site.log.clear()
    fetch_all([site.url("a/secret", "127.0.0.3")], replace(base, robots_txt=False))
    assert site.log == ["/a/secret"]


def test_a_closed_address_is_not_asked_for_its_rules(base):
    found = fetch_all(["http://10.0.0.1/a.jpg"], base)[0]
    assert (found.drop, "robots" in found.detail) == (Drop.REFUSED_ADDRESS, False)


def test_no_bytes_upset_the_parser():
    for text in (b"", b"\xff\xfe\0", b"Disallow", b"User-agent: *\nDisallow: /%zz*", b"\xef\xbb\xbfUser-agent: *"):
        parsed(text).can_fetch("http://example.com/a", "capfilt")
    assert not parsed(b"\xef\xbb\xbfUser-agent: *\nDisallow: /").can_fetch("http://example.com/a", "capfilt")


def test_a_crafted_rule_costs_no_time():
    rules = parsed(b"User-agent: *\nDisallow: /" + b"*a" * 100 + b"*b\n")
    started = time.monotonic()
    assert rules.can_fetch("http://example.com/" + "a" * 5000, "capfilt")
    assert time.monotonic() - started < 0.5

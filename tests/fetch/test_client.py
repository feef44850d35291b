"""What becomes of URLs, against the real server."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import pytest

from capfilt.fetch.answers import opted_out
from capfilt.fetch.config import FetchConfig
from capfilt.fetch.failures import seconds_to_wait
from capfilt.fetch.process import fetch_all
from capfilt.fetch.urls import parse
from capfilt.images import Picture, Refused
from capfilt.records import Drop

CONFIG = FetchConfig(allow_addresses=("127.0.0.1/32",), retry_wait_s=0.01, timeout_connect_s=2, timeout_read_s=2)


@pytest.fixture(scope="module")
def base(engine) -> FetchConfig:
    return replace(CONFIG, engine=engine)


def test_results_keep_the_order_of_the_urls(site, base):
    urls = [site.url("good"), "", site.url("404"), site.url("good"), "http://10.0.0.1/"]
    found = fetch_all(urls, base)
    kinds = [None if isinstance(item, Picture) else item.drop for item in found]
    assert kinds == [None, Drop.NO_URL, Drop.HTTP_STATUS, None, Drop.REFUSED_ADDRESS]


def test_no_urls_no_results(base):
    assert fetch_all([], base) == []


def test_nothing_of_this_machine_is_open_by_default(site):
    found = fetch_all([site.url("good"), site.url("good", "localhost")], FetchConfig())
    assert [item.drop for item in found] == [Drop.REFUSED_ADDRESS] * 2


def test_allowed_ranges_open_what_they_name_and_nothing_else(site, base):
    found = fetch_all([site.url("good"), site.url("good", "127.0.0.2")], base)
    assert isinstance(found[0], Picture)
    assert found[1].drop is Drop.REFUSED_ADDRESS


def test_a_name_is_judged_by_the_addresses_it_stands_for(site, monkeypatch, base):
    """A name with an inner address is refused; with an open one beside it, only the open one is connected to."""
    real, asked = socket.getaddrinfo, []
    names = {"inner.test": ["127.0.0.2"], "mixed.test": ["127.0.0.2", "10.0.0.1", "127.0.0.1"]}

    def resolve(host, port, **options):
        asked.append(host)
        places = names.get(host)
        return [real(place, port, **options)[0] for place in places] if places else real(host, port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    inner, mixed = fetch_all([site.url("good", "inner.test"), site.url("counted", "mixed.test")], base)
    assert inner == Refused(Drop.REFUSED_ADDRESS, "The name inner.test stands for 127.0.0.2, a loopback address.")
    assert isinstance(mixed, Picture)
    assert site.headers["/counted"]["Host"].startswith("mixed.test")
    assert asked == ["inner.test", "mixed.test"]


def test_a_name_that_changes_its_address_gains_nothing(site, monkeypatch, base):
    """The answer that is checked is the one that is used: no second lookup can slip another address in."""
    real = socket.getaddrinfo
    answers = iter(["127.0.0.1", "127.0.0.2", "127.0.0.2"])
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **options: real(next(answers), port, **options))
    url, other = site.url("good", "rebinding.test"), replace(base, concurrency=3)
    assert isinstance(fetch_all([url], base)[0], Picture)
    assert isinstance(fetch_all([url], base)[0], Picture), "what was looked up holds"
    assert fetch_all([url], other)[0].drop is Drop.REFUSED_ADDRESS, "another client looks it up anew"


def test_proxies_of_the_environment_are_ignored(site, monkeypatch, base):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert isinstance(fetch_all([site.url("good")], base)[0], Picture)


def test_credentials_are_neither_sent_nor_recorded(site, base):
    secret = "hunter2"
    urls = [
        site.url(f"counted?token={secret}").replace("//", f"//me:{secret}@"),
        site.url(f"404?token={secret}").replace("//", f"//me:{secret}@"),
        f"http://me:{secret}@10.0.0.1/{secret}",
        f"http://me:{secret}@nowhere.invalid/?key={secret}",
        f"http://me:{secret}@exa mple/?key={secret}",
        f"ftp://me:{secret}@example.com/",
        f"http://me:{secret}@127.0.0.1:1/?key={secret}",
    ]
    found = fetch_all(urls, base)
    assert isinstance(found[0], Picture)
    assert "Authorization" not in site.headers["/counted"]
    assert not any(secret in item.detail for item in found[1:])


def test_it_says_who_it_is_and_keeps_no_cookies(site, base):
    named = replace(base, user_agent="test-crawler/1 (+mailto:me@example.com)", concurrency=1)
    fetch_all([site.url("counted"), site.url("counted")], named)
    headers = site.headers["/counted"]
    assert headers["User-Agent"] == "test-crawler/1 (+mailto:me@example.com)"
    assert headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers


def test_opt_outs_can_be_overruled_in_so_many_words(site, base):
    found = fetch_all([site.url("noai"), site.url("moved-noai")], replace(base, opt_outs=()))
    assert all(isinstance(item, Picture) for item in found)


def test_an_opt_out_is_honoured_before_the_body_comes(site, base):
    started = time.monotonic()
    assert fetch_all([site.url("noai-silent")], base)[0].drop is Drop.OPTED_OUT
    assert time.monotonic() - started < 1


def test_parse_drops_credentials_and_fragment():
    assert str(parse(" HTTP://me:pw@Example.com:80/a%20b?c=d#e ")) == "http://example.com/a%20b?c=d"


@pytest.mark.parametrize(
    ("tags", "directive"),
    [
        (["noai"], "noai"),
        (["index", "follow, NOIMAGEAI"], "noimageai"),
        (["none"], "none"),
        (["noarchive, nosnippet, max-image-preview: large"], None),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"], "noindex"),
        (["googlebot: noindex, noai"], None),
        (["googlebot: index, capfilt: noai"], "noai"),
        (["googlebot: noindex", "noml"], "noml"),
        ([], None),
        ([""], None),
    ],
)
def test_opt_outs(tags, directive):
    assert opted_out(tags, {"capfilt"}, FetchConfig().opt_outs) == directive


@pytest.mark.parametrize(
    ("text", "least", "most"), [("7", 7, 7), (" 0 ", 0, 0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0)]
)
def test_retry_after(text, least, most):
    assert least <= seconds_to_wait(text) <= most


@pytest.mark.parametrize("text", [None, "", "soon", "-5", "1.5", "99 bottles", "٣"])
def test_meaningless_retry_after(text):
    assert seconds_to_wait(text) is None

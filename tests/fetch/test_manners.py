"""Turns, spacing, rests and further attempts, against the real server."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import pytest

from capfilt.fetch.config import FetchConfig
from capfilt.fetch.process import fetch_all
from capfilt.images import Picture
from capfilt.records import Drop

CONFIG = FetchConfig(allow_addresses=("127.0.0.0/8",), retry_wait_s=0.01, timeout_connect_s=2, timeout_read_s=2)


@pytest.fixture(scope="module")
def base(engine) -> FetchConfig:
    return replace(CONFIG, engine=engine)


def test_what_may_pass_is_tried_again(site, base):
    site.hits.clear()
    assert isinstance(fetch_all([site.url("flaky")], base)[0], Picture)
    assert fetch_all([site.url("500")], replace(base, retries=3))[0].drop is Drop.HTTP_STATUS
    assert (site.hits["/flaky"], site.hits["/500"]) == (2, 4)


def test_one_host_is_not_asked_for_more_than_its_share_at_once(site, base):
    site.busiest = 0
    found = fetch_all([site.url(f"slowly?n={n}") for n in range(12)], replace(base, per_host=3))
    assert all(isinstance(item, Picture) for item in found)
    assert site.busiest == 3


def test_those_who_wait_for_a_slow_host_keep_no_slot_from_the_others(site, base):
    """Requests to a slow host, allowed one at a time, leave the second slot to the quick ones."""
    config = replace(base, per_host=1, concurrency=2)
    slow = [site.url(f"slowly?s=0.3&n={n}", "127.0.0.2") for n in range(3)]
    site.log.clear()
    found = fetch_all(slow + [site.url("good")] * 20, config)
    assert all(isinstance(item, Picture) for item in found)
    last_quick = max(at for at, path in enumerate(site.log) if path == "/good")
    assert site.log[:last_quick].count("/slowly") == 1


def test_waiting_for_a_turn_is_no_time_out(site, base):
    config = replace(base, concurrency=1, timeout_total_s=0.5, timeout_connect_s=0.5)
    found = fetch_all([site.url(f"slowly?s=0.2&n={n}") for n in range(5)], config)
    assert all(isinstance(item, Picture) for item in found)


def asked(site, host_path):
    return [when for when, path in site.times if path.startswith(host_path)]


def test_requests_to_one_host_are_spaced(site, base):
    """Ten a second: six requests take at least half a second, and none leaves before its time."""
    site.times.clear()
    found = fetch_all([site.url(f"good?spaced={n}") for n in range(6)], replace(base, per_host_rate=10))
    assert all(isinstance(item, Picture) for item in found)
    times = asked(site, "/good?spaced")
    gaps = [late - early for early, late in pairwise(times)]
    assert len(times) == 6
    assert times[-1] - times[0] > 0.45
    assert min(gaps) > 0.05


def test_spacing_holds_from_one_part_to_the_next(site, base):
    config = replace(base, per_host_rate=4)
    site.times.clear()
    for part in range(3):
        fetch_all([site.url(f"good?part={part}")], config)
    times = asked(site, "/good?part")
    assert times[-1] - times[0] > 0.4


def test_hosts_do_not_wait_for_each_other(site, base):
    started = time.monotonic()
    fetch_all([site.url("good", f"127.0.0.{n}") for n in range(1, 10)], replace(base, per_host_rate=0.5))
    assert time.monotonic() - started < 1.5


def test_who_asks_to_wait_is_left_alone_by_all(site, base):
    site.hits.clear()
    site.times.clear()
    config = replace(base, per_host=1)
    found = fetch_all([site.url("busy-now"), *(site.url(f"good?after={n}") for n in range(5))], config)
    assert all(isinstance(item, Picture) for item in found)
    first = asked(site, "/busy-now")[0]
    assert min(asked(site, "/good?after")) - first > 0.9


def test_a_host_that_asks_for_more_than_is_waited_for_is_not_asked_again(site, base):
    config = replace(base, per_host=1, retry_after_max_s=1)
    site.hits.clear()
    urls = [site.url("429-later", "127.0.0.9"), *(site.url(f"good?n={n}", "127.0.0.9") for n in range(5))]
    found = fetch_all([*urls, site.url("good")], config)
    assert {item.drop for item in found[:6]} == {Drop.HTTP_STATUS}
    assert found[0].detail == "127.0.0.9 answered 429 (Too Many Requests)."
    assert found[5].detail == (
        "127.0.0.9 answered 429 (Too Many Requests) before and asked to be left alone; it was not asked again."
    )
    assert isinstance(found[6], Picture), "other hosts are"
    assert (site.hits["/429-later"], site.hits["/good"]) == (1, 1)
    assert fetch_all([site.url("good", "127.0.0.9")], config)[0].drop is Drop.HTTP_STATUS, "nor by the next part"

"""img2dataset's downloader works under our rules, and only for us."""

from __future__ import annotations

import importlib.util
import urllib.request
from dataclasses import replace

import pytest

from capfilt.errors import EngineError
from capfilt.fetch.config import FetchConfig
from capfilt.fetch.process import fetch_all
from capfilt.images import Picture
from capfilt.stages.fetch import FetchImages

CONFIG = FetchConfig(engine="img2dataset", allow_addresses=("127.0.0.0/8",), timeout_connect_s=2, retries=0)
HERE = importlib.util.find_spec("img2dataset") is not None
needs_it = pytest.mark.skipif(not HERE, reason="needs the extra img2dataset")


@pytest.mark.skipif(HERE, reason="needs the extra img2dataset not to be there")
def test_without_the_extra_the_mend_is_told():
    for attempt in (lambda: FetchImages(fetch=CONFIG).open(), lambda: fetch_all(["http://a.example/"], CONFIG)):
        with pytest.raises(EngineError) as caught:
            attempt()
        assert caught.value.where == "fetch.engine"
        assert "capfilt[img2dataset]" in caught.value.mend


@needs_it
def test_it_is_img2dataset_that_downloads(site, monkeypatch):
    from img2dataset import downloader

    fetch_all(["http://10.0.0.1/"], CONFIG)
    real, seen = downloader.download_image, []
    monkeypatch.setattr(downloader, "download_image", lambda row, *rest: seen.append(row[1]) or real(row, *rest))
    assert isinstance(fetch_all([site.url("moved")], CONFIG)[0], Picture)
    assert seen == [site.url("moved"), site.url("good")], "each hop is a request of its own"


@needs_it
def test_elsewhere_in_the_process_nothing_changes(site):
    from img2dataset import downloader

    fetch_all(["http://10.0.0.1/"], CONFIG)
    _, body, error = downloader.download_image((0, site.url("good")), 5, None, None)
    assert (error, body.read()[:2]) == (None, b"\xff\xd8")
    with urllib.request.urlopen(site.url("good")) as answer:
        assert answer.status == 200


@needs_it
def test_it_asks_in_our_name(site):
    fetch_all([site.url("counted")], replace(CONFIG, user_agent="test-crawler/2 (+mailto:me@example.com)"))
    assert site.headers["/counted"]["User-Agent"] == "test-crawler/2 (+mailto:me@example.com)"
    assert site.headers["/counted"]["Accept-Encoding"] == "identity"

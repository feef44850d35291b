"""Hosts that lose rows, sizes of pictures, and the two choices of pictures that are not by verdict alone."""

import pytest

from capfilt.records import table_of
from capfilt.report.charts import aspect_bars, size_bars
from capfilt.report.gallery import Verdict, change
from capfilt.report.gather import gather
from capfilt.report.hosts import HostLosses
from capfilt.report.page import render
from capfilt.report.sizes import Sizes


def row(n, url, drop=None, width=None, height=None):
    made = {"id": f"{n:032x}", "part": 0, "row": n, "url": url, "captions": [], "drop": drop}
    return made | {"width": width, "height": height}


def test_hosts_are_told_by_what_they_lost_of_how_many_and_why():
    rows = [row(n, f"https://me:pw@A.example:8080/{n}", "timed_out" if n < 6 else None) for n in range(10)]
    rows += [row(10 + n, f"http://b.example/{n}", "http_status") for n in range(3)]
    rows += [row(20, "http://A.example/x", "unreachable"), row(21, "c.example/no-scheme", "no_url")]
    rows += [row(22, "http://d.example/", "no_caption_kept")]
    losses = HostLosses()
    losses.add(table_of(rows[:7]))
    losses.add(table_of(rows[7:]))
    first, second = losses.top(5)
    assert (first.host, first.lost, first.rows) == ("a.example", 7, 11)
    assert first.reasons == (("timed_out", 6), ("unreachable", 1))
    assert (second.host, second.lost, second.rows) == ("b.example", 3, 3)
    assert losses.exact


def test_sizes_are_those_of_all_and_of_the_kept():
    shapes = [(100, 300), (300, 100), (300, 300), (5000, 4500)]
    rows = [row(n, "", None if n % 2 else "no_caption_kept", *shape) for n, shape in enumerate(shapes)]
    sizes = Sizes()
    sizes.add(table_of([*rows, row(9, "", None)]))
    assert (sizes.seen.pictures, sizes.kept.pictures) == (4, 2)
    assert sizes.seen.median == 100
    assert sizes.seen.under(224) == pytest.approx(0.5)
    assert sizes.seen.shapes() == {"tall": 0.25, "about square": 0.5, "wide": 0.25}
    assert sizes.kept.shapes() == {"tall": 0.0, "about square": 0.5, "wide": 0.5}
    bars = size_bars(sizes.seen, sizes.kept)
    assert bars[-1].label == "1536 px or more: 1, of them 1 kept"
    assert max(bar.height for bar in bars) == 100
    assert sum(bar.height > 0 for bar in aspect_bars(sizes.seen, sizes.kept)) == 4 + 2
    assert Sizes().seen.median is None


def test_the_changed_most_come_first_and_the_mix_is_of_all_verdicts(store, kit):
    kit["commit"](store, {0: kit["rows"](400, lost=0.0)})
    data, every = gather(store, gallery=6), gather(store, gallery=80)
    changes = [change(card) for card in data.gallery[Verdict.CHANGED]]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] == max(change(card) for card in every.gallery[Verdict.CHANGED])
    assert {card.verdict for card in every.mix} == set(Verdict)
    assert len(every.mix) == 48


def test_the_page_tells_of_hosts_and_sizes(store, web_run):
    html = render(gather(store))
    assert 'id="hosts"' in html
    assert "img" in html.partition('class="hosts"')[2].partition("</table>")[0]
    assert 'id="pictures"' in html
    for anchor in ("books", "hosts", "texts", "scores", "thresholds", "language", "pictures", "gallery", "made"):
        assert f'<a href="#{anchor}">' in html
        assert f'id="{anchor}"' in html

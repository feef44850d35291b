import random
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from capfilt.records import table_of
from capfilt.report.findings import Level, findings
from capfilt.report.gather import gather
from capfilt.report.page import render, write_report
from capfilt.report.sheet import SheetItem, contact_sheet
from capfilt.report.trial import Speed, looked_at
from capfilt.report.trial import render as render_trial
from capfilt.shards.rule import Rule
from capfilt.sources.sampling import MOST

VOID = {"meta", "img", "input", "line", "rect", "polyline", "br"}


class Page(HTMLParser):
    """A strict reading: what elements and attributes there are, and whether they nest."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.scripts = 0
        self.addresses = []
        self.handlers = []
        self.policy = ""
        self.ids = []
        self.labelled = []
        self.images_without_alt = 0
        self.headings = []
        self.text = ""
        self.open = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        self.addresses += [attrs[name] for name in ("src", "href", "srcset", "action", "data") if name in attrs]
        self.policy += attrs["content"] if attrs.get("http-equiv") == "Content-Security-Policy" else ""
        self.handlers += [name for name in attrs if name.startswith("on")]
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.labelled += attrs.get("aria-labelledby", "").split() + ([attrs["for"]] if "for" in attrs else [])
        self.images_without_alt += tag == "img" and not attrs.get("alt")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def sound(html):
    """The page, after the checks that every page must pass."""
    page = Page(html)
    assert all(a.startswith(("data:image/jpeg;base64,", "#")) for a in page.addresses)
    assert page.handlers == []
    assert page.images_without_alt == 0
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.labelled) <= set(page.ids)
    assert page.headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert "default-src 'none'" in page.policy
    assert "unsafe-inline" not in page.policy.replace("style-src 'unsafe-inline'", "")
    assert "url(" not in html
    assert "@import" not in html
    return page


def test_the_page_is_sound_and_shows_the_books(store, web_run):
    page = sound(render(gather(store)))
    assert page.scripts == 1
    text = " ".join(page.text.split())
    assert f"{web_run.kept} of {web_run.rows} pictures kept" in text
    assert f"{web_run.rows} in = {web_run.kept} kept + {sum(web_run.dropped.values())} dropped" in text
    for count in web_run.dropped.values():
        assert re.search(rf"\b{count}\b", text)


def test_texts_that_stand_below_many_pictures_are_listed_by_origin(store, web_run):
    facts = {one.origin: one for one in gather(store).origins}
    text = " ".join(sound(render(gather(store))).text.split())
    for origin, title in (("web", "Web texts"), ("synthetic", "Synthetic captions")):
        (most, times), *_ = facts[origin].repeated
        assert times > 1
        listed = text[text.index(f"{title} that came most often") :]
        assert f"{most}{times} times" in listed[: 400 + len(most)]
    assert "my trip 2014" in dict(facts["web"].repeated)


def test_hostile_texts_are_shown_and_not_obeyed(store, kit):
    def scored(words, itm):
        return {"text": words, "origin": "web", "itm": itm, "itc": None, "kept": itm > 0.5}

    rows = kit["rows"](3 * len(kit["hostile"]), lost=0)
    for number, hostile in enumerate(kit["hostile"] * 3):
        made = {"text": hostile, "origin": "synthetic", "itm": 0.9, "itc": None, "kept": True}
        image = kit["picture"](random.Random(0))
        rows[number].update(
            captions=[scored(hostile, 0.1), made], drop=None, url=f"https://x.example/{hostile}", image=image
        )
    rows[0].update(drop="unreachable", detail="<script>alert(9)</script>", image=None)
    kit["commit"](store, {0: rows})
    page = sound(render(gather(store)))
    assert page.scripts == 1
    for words in ("<script>alert(1)</script>", "</script><script>alert(2)", "<svg onload=alert(4)>", "{{ 7 * 7 }}"):
        assert words in page.text
    assert "<script>alert(9)</script>" in page.text
    assert "\u202e" not in page.text
    assert "\x00" not in page.text


def test_it_is_written_into_the_destination_and_is_the_same_each_time(store, web_run):
    assert write_report(store) == store.path("report.html")
    first = store.read("report.html")
    write_report(store)
    assert store.read("report.html") == first


@pytest.mark.parametrize("case", ["all lost", "no filter", "no captioner", "unfinished", "empty"])
def test_unusual_runs_read_sensibly(store, kit, case):
    rows = {
        "all lost": kit["rows"](20, lost=1.0),
        "no filter": kit["rows"](20, filtered=False),
        "no captioner": kit["rows"](20, captioned=False),
        "unfinished": kit["rows"](20),
        "empty": [],
    }[case]
    kit["commit"](
        store,
        {0: rows},
        finish=case != "unfinished",
        filtered=case != "no filter",
        captioned=case != "no captioner",
    )
    page = sound(render(gather(store)))
    text = " ".join(page.text.split())
    says = {
        "all lost": "Nothing was kept",
        "no filter": "No filter ran",
        "no captioner": "No captioner ran",
        "unfinished": "This run is not finished",
        "empty": "0 of 0 pictures kept",
    }
    assert says[case] in text
    assert ("What the filter saw" in text) == (case in {"no captioner", "unfinished"})
    assert "nan" not in text.lower().split()
    assert "None" not in text.split()


def test_a_ledger_that_disagrees_with_its_markers_is_told(store, web_run, tmp_path):
    other = store.read("pairs/00001.parquet")
    store.write("pairs/00000.parquet", other)
    told = findings(gather(store))
    assert told[0].level is Level.BAD
    assert "capfilt verify" in told[0].text
    assert not any(finding.level is Level.GOOD for finding in told)


def noise(seed):
    out = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def test_the_page_is_under_10_mb_for_the_worst_of_corpora(store, kit):
    image, worst = noise(0), '"' * 5000
    verdicts = [(False, True), (True, True), (True, False), (False, False)]
    rows = []
    for number in range(480):
        web, made = verdicts[number % 4]
        captions = [
            {"text": worst, "origin": origin, "itm": 0.9 if kept else 0.1, "itc": None, "kept": kept}
            for origin, kept in [("web", web), ("synthetic", made)] * 5
        ]
        rows.append({"id": f"{number:032x}", "part": 0, "row": number, "url": worst, "captions": captions})
        rows[-1].update({"image": image} if web or made else {"drop": "no_caption_kept"})
    kit["commit"](store, {0: rows})
    html = render(gather(store, gallery=10**6))
    # The mix has pictures of all verdicts but one, whose pictures are in no shard.
    assert 3 * 80 < html.count("data:image/jpeg") <= 3 * 80 + 48
    assert html.count('class="card"') == 4 * 80 + 48
    assert len(html.encode()) < 10_000_000


def test_a_preview_is_sound_and_under_10_mb_for_the_worst_of_rows():
    image, worst = noise(0), '"' * 5000
    captions = [
        {"text": worst, "origin": origin, "itm": 0.9, "itc": None, "kept": True} for origin in ["web", "synthetic"] * 5
    ]
    rows = [
        {"id": f"{n:032x}", "part": 0, "row": n, "url": worst, "captions": captions, "image": image}
        for n in range(MOST)
    ]
    known = {"source": worst, "rows": 10**9, "exact": True, "drawn_from": "all rows", "seed": 0, "models": {}}
    speed = Speed(wall_s=1, fetch_s=1, image_s=1, reached=1)
    known |= {"models": {"captioner": None, "filter": "f"}, "speed": speed}
    html = render_trial(looked_at(table_of(rows), rule=Rule(threshold=0.5), **known))
    assert html.count("data:image/jpeg") == MOST
    assert len(html.encode()) < 10_000_000
    assert sound(html).scripts == 1


def test_a_contact_sheet_marks_right_and_wrong(kit):
    image = kit["picture"](random.Random(0))
    html = contact_sheet(
        [
            SheetItem(image, ["a red house", "P(match) 0.97"], good=True),
            SheetItem(image, ["<script>alert(1)</script>"], good=False),
            SheetItem(b"no picture", [], good=None),
        ],
        title="Held-out <pictures>",
        columns=3,
    )
    page = sound(html)
    assert page.scripts == 0
    assert html.count("data:image/jpeg") == 2
    text = " ".join(page.text.split())
    assert "3 pictures; 1 of 2 judged are right (50%)." in text
    assert "Right: a red house" in text
    assert "Wrong: <script>alert(1)</script>" in text
    assert "Held-out <pictures>" in text


def test_an_empty_contact_sheet_is_a_page():
    assert sound(contact_sheet([], title="Nothing yet", columns=0)).scripts == 0


def test_a_text_removed_just_under_the_threshold_does_not_read_as_on_it(store, kit):
    scores = {"just under": 0.4999, "exactly": 0.57}
    captions = [
        {"text": text, "origin": "web", "itm": itm, "itc": None, "kept": itm >= 0.5} for text, itm in scores.items()
    ]
    image = kit["picture"](random.Random(0))
    kit["commit"](store, {0: [{"id": "0" * 32, "part": 0, "row": 0, "captions": captions, "image": image}]})
    text = " ".join(sound(render(gather(store))).text.split())
    for shown in ("just under 0.49", "exactly 0.57"):
        assert shown in text

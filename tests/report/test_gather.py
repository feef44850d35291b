import random

import numpy as np
import pytest

from capfilt.errors import DataError, DestinationError
from capfilt.records import Drop, Origin
from capfilt.report.gallery import PARTS_TOGETHER, Verdict, shorten, thumbnail
from capfilt.report.gather import gather
from capfilt.report.meanings import DROPS, ORIGINS
from capfilt.report.measures import SCORE_BINS, noise_over_thresholds
from capfilt.shards.commit import SinkConfig
from capfilt.shards.rule import Rule
from capfilt.storage import Store


def row(part, number, captions, *, drop=None, image=None):
    return {
        "id": f"{part:016x}{number:016x}",
        "part": part,
        "row": number,
        "url": f"https://a.example/{number}",
        "captions": captions,
        "drop": drop,
        "image": image,
    }


def text(words, origin, itm, kept):
    return {"text": words, "origin": origin, "itm": itm, "itc": None, "kept": kept}


def test_the_books_are_those_of_the_manifest(store, web_run):
    data = gather(store)
    assert data.tally == web_run == data.promised
    assert data.tally.to_json() == store.read_json("manifest.json")["totals"]
    assert data.finished
    for facts in data.origins:
        assert facts.noise_ratio == pytest.approx(web_run.noise_ratio(facts.origin))


def test_every_reason_and_origin_has_a_meaning():
    assert set(DROPS) == set(Drop)
    assert set(ORIGINS) == set(Origin)


def test_texts_are_measured_by_origin(store, kit):
    image = kit["picture"](random.Random(0))
    rows = [
        row(0, 0, [text("Sale! 50% off", "web", 0.1, False), text("a red car", "synthetic", 0.9, True)], image=image),
        row(0, 1, [text("Red car, Rome", "web", 0.8, True), text("A RED car ", "synthetic", 0.7, True)], image=image),
        row(0, 2, [text("lost", "web", None, False)], drop="timed_out"),
        row(0, 3, [text("noise", "web", 0.2, False), text("a dog", "synthetic", 0.4, False)], drop="no_caption_kept"),
    ]
    kit["commit"](store, {0: rows})
    web, made = gather(store).origins
    assert (web.origin, web.texts, web.scored, web.kept, web.removed) == ("web", 3, 3, 1, 2)
    assert (made.texts, made.distinct, made.repeated) == (3, 2, (("a red car", 2),))
    assert made.repeated_share == pytest.approx(1 / 3)
    # sale 50 off | red car rome | noise
    assert web.words == 7
    assert np.flatnonzero(web.lengths).tolist() == [1, 3]
    assert web.median_length == 3
    # The best text of each judged picture: 0.9, of which float32 has a little less, 0.8, 0.4.
    assert np.flatnonzero(gather(store).best).tolist() == [400, 800, 899]


def test_noise_over_thresholds_agrees_with_the_verdicts_at_every_border(store, kit):
    thresholds = [0.1, 0.3, 0.5, 0.7, 0.9]
    captions = [[text(f"t{n}", "web", t, False), text("s", "synthetic", 0.99, True)] for n, t in enumerate(thresholds)]
    image = kit["picture"](random.Random(0))
    kit["commit"](store, {0: [row(0, n, c, image=image) for n, c in enumerate(captions)]})
    curve = noise_over_thresholds(gather(store).origins[0].scores)
    for place, threshold in enumerate(thresholds):
        # Float32 has a little less than 0.7 and 0.9 for them, and the rule compares with the threshold as it was given.
        removed = place + (threshold in (0.7, 0.9))
        stored = [caption | {"itm": float(np.float32(caption["itm"]))} for caption, _ in captions]
        assert removed == sum(not Rule(threshold=threshold).passes(caption) for caption in stored)
        assert curve[round(threshold * SCORE_BINS)] == pytest.approx(removed / 5)
    assert (curve[0], curve[-1]) == (0, 1)


def test_rows_are_sorted_by_verdict_and_pictures_found(store, web_run):
    data = gather(store)
    assert sum(data.seen.values()) == web_run.kept + web_run.dropped["no_caption_kept"]
    assert data.seen[Verdict.NOTHING] == web_run.dropped["no_caption_kept"]
    for verdict, cards in data.gallery.items():
        assert len(cards) == min(48, data.seen[verdict])
        for card in cards:
            kept = {c["origin"] for c in card.captions if c["kept"]}
            assert bool(card.thumbnail) == (verdict is not Verdict.NOTHING)
            expected = {Verdict.CHANGED: {"synthetic"}, Verdict.DOUBTED: {"web"}, Verdict.NOTHING: set()}
            assert kept == expected.get(verdict, kept)


@pytest.mark.parametrize("form", ["webdataset", "parquet", "both"])
def test_pictures_come_from_any_kind_of_shard(store, kit, form):
    kit["commit"](store, {0: kit["rows"](30)}, sink=SinkConfig(format=form))
    cards = gather(store).gallery
    assert all(card.thumbnail.startswith(b"\xff\xd8") for card in cards[Verdict.CHANGED] + cards[Verdict.AGREED])


def test_the_choice_is_seeded_and_independent_of_batches(store, web_run, monkeypatch):
    first = gather(store, gallery=5)
    monkeypatch.setattr("capfilt.report.gather.BATCH_ROWS", 7)
    again = gather(store, gallery=5)
    assert again.gallery == first.gallery
    assert again.examples == first.examples
    assert gather(store, gallery=5, seed=1).gallery != first.gallery
    assert gather(store, gallery=0).gallery[Verdict.CHANGED] == ()


def test_pictures_come_from_few_shards_of_many(store, kit):
    kit["commit"](store, {part: kit["rows"](12, part=part, lost=0) for part in range(20)})
    shown = [card for cards in gather(store, gallery=4).gallery.values() for card in cards]
    assert len({card.part for card in shown if card.verdict is not Verdict.NOTHING}) <= 2 * PARTS_TOGETHER


def test_a_run_that_forgot_rejected_texts_counts_no_empty_words(store, kit):
    kit["commit"](store, {0: kit["rows"](40)}, sink=SinkConfig(keep_rejected_text=False))
    for facts in gather(store).origins:
        assert facts.worded <= facts.kept < facts.texts
        assert facts.lengths[0] == 0


def test_an_unfinished_run_is_told_as_such_with_its_own_threshold(store, kit):
    store.write("recipe.yaml", b"capfilt: {threshold: 0.7, decoding: beam}")
    kit["commit"](store, {0: kit["rows"](10, threshold=0.7)}, finish=False)
    data = gather(store)
    assert (data.finished, data.threshold, data.decoding) == (False, 0.7, "beam")


def test_an_empty_part_is_no_problem(store, kit):
    kit["commit"](store, {0: [], 1: kit["rows"](5, part=1)})
    assert gather(store).tally.rows == 5


def test_nothing_to_report_is_said(store):
    with pytest.raises(DestinationError, match="nothing to report"):
        gather(store)


def test_a_damaged_ledger_is_named_and_a_damaged_shard_only_costs_pictures(store, web_run):
    store.write("shards/00000.tar", b"not a tar")
    cards = gather(store).gallery[Verdict.CHANGED]
    assert {bool(card.thumbnail) for card in cards} == {True, False}
    store.write("pairs/00001.parquet", b"not parquet")
    with pytest.raises(DataError, match=r"00001\.parquet"):
        gather(store)


def test_it_reads_from_an_object_store(kit):
    remote = Store("memory://report-test/run")
    books = kit["commit"](remote, {0: kit["rows"](20)})
    data = gather(remote)
    assert data.tally == books
    assert any(card.thumbnail for card in data.gallery[Verdict.CHANGED])


def test_shown_text_is_bounded_and_has_no_control_characters():
    assert shorten("a\x00b\n\u202ec\u200d") == "a\ufffdb \ufffdc\u200d"
    assert shorten("x" * 10**6) == "x" * 299 + "…"
    assert thumbnail(b"") == thumbnail(b"<html>") == b""

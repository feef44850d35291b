"""Rounds side by side: what is compared, what is called better, and what a round does not have."""

from __future__ import annotations

import copy

import pytest

from capfilt.report.rounds import render, sections

LOSS = {"steps": 100, "first_loss": 9.0, "last_loss": 3.25}
FIRST = {
    "round": 1,
    "start": "models/start",
    "captioner": {"given": "mine/captioner"},
    "filter": {"given": "mine/filter"},
    "pretrain": LOSS,
    "data": {
        "totals": {
            "rows": 200,
            "kept": 120,
            "dropped": {"http_status": 30, "no_caption_kept": 50},
            "texts": {"web": 170, "synthetic": 170},
            "texts_kept": {"web": 80, "synthetic": 70},
        },
        "noise_ratio": {"web": 0.5294, "synthetic": 0.5882, "human": None},
        "synthetic": {"texts": 170, "vocabulary": 90, "unique": 0.5, "median_words": 6},
    },
    "held_out": {
        "pictures": 60,
        "texts": 60,
        "captioning": {"scores": {"BLEU-1": 0.3, "BLEU-4": 0.1, "CIDEr": 0.412}, "diversity": {"vocabulary": 40}},
        "filtering": {"auc_itm": 0.81, "auc_itc": 0.8, "kept_true": 0.9, "kept_false": 0.25},
        "retrieval": {
            "text": None,
            "image": None,
            "text_by_itc": {"at_1": 0.2, "at_5": 0.4, "at_10": 0.6},
            "image_by_itc": {"at_1": 0.25, "at_5": 0.45, "at_10": 0.65},
        },
    },
}


@pytest.fixture
def second():
    told = copy.deepcopy(FIRST) | {"round": 2, "captioner": LOSS, "filter": LOSS}
    told["data"]["totals"] |= {"kept": 130, "dropped": {"http_status": 30, "no_caption_kept": 40}}
    told["held_out"]["captioning"]["scores"]["CIDEr"] = 0.5
    told["held_out"]["filtering"] |= {"auc_itm": 0.75, "kept_false": 0.2}
    told["held_out"]["retrieval"]["text"] = {"at_1": 0.3, "at_5": 0.5, "at_10": 0.7}
    return told


def rows(rounds):
    return {row.name: row for section in sections(rounds) for row in section.rows}


def test_every_measure_is_there_once_for_each_round(second):
    found = rows([FIRST, second])
    assert all(len(row.cells) == 2 for row in found.values())
    said = {name: [cell.text for cell in row.cells] for name, row in found.items()}
    assert said["Pictures kept"] == ["60%", "65%"]
    assert said["− No caption kept"] == ["50", "40"]
    assert said["Texts kept"] == ["150", "150"]
    assert said["CIDEr"] == ["41.2", "50.0"]
    assert said["Texts, R@1"] == ["20%", "30%"], "after ITM where it ranked again"
    assert said["Captioner"] == ["given", "9.00 → 3.25"]
    assert "BLEU-1" not in said
    assert "Human noise" not in said, "no human text was scored"


def test_better_and_worse_follow_what_is_measured(second):
    found = rows([FIRST, second])
    tones = {name: (row.cells[1].change, row.cells[1].tone) for name, row in found.items()}
    assert tones["CIDEr"] == ("+8.8", "better")
    assert tones["AUC by ITM"] == ("−0.060", "worse")
    assert tones["False captions kept"] == ("−5.0", "better")
    assert tones["AUC by ITC"] == ("", "")
    assert tones["Pictures kept"] == ("+5.0", ""), "to keep more is neither"
    assert all(row.cells[0].change == "" for name, row in found.items() if name not in ("Pretrain",))


def test_the_page_says_what_became_better_and_what_worse(second):
    html = render([FIRST, second], links=["round-01/data/report.html", "round-02/data/report.html"])
    assert "Round 2 is better than round 1 in CIDEr (41.2 to 50.0) and R@1 of texts (20% to 30%)." in html
    assert "Round 2 is worse than round 1 in the filter&#39;s AUC by ITM (0.810 to 0.750)." in html
    assert html.count("<script") == 0


def test_a_filter_that_judges_by_chance_is_called_so(second):
    assert "hardly tells" not in render([FIRST, second])
    second["held_out"]["filtering"]["auc_itm"] = 0.51
    assert "The filter of round 2 hardly tells true captions from shuffled ones (AUC by ITM 0.510)" in render(
        [FIRST, second]
    )


def test_without_held_out_pairs_the_page_says_that_it_cannot_tell():
    one = copy.deepcopy(FIRST) | {"held_out": None}
    one["data"]["synthetic"] = None
    one["data"]["totals"]["dropped"]["<b>new</b>"] = 1
    html = render([one])
    assert "No held-out pairs were given" in html
    assert "CIDEr" not in html
    assert "<b>new" not in html
    assert "<a " not in html

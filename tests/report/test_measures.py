"""What another threshold would keep is what the rule keeps with it, whatever else it asks for."""

import random
from dataclasses import replace

import pyarrow as pa
import pytest

from capfilt.records import LEDGER_SCHEMA, Origin
from capfilt.report.charts import STEPS, curves
from capfilt.report.findings import findings
from capfilt.report.gather import gather
from capfilt.report.measures import SCORE_BINS, CaptionMeasures
from capfilt.shards.rule import Rule

WORDS = ["a red boat", "Sale!", "...", " \u00a0", "猫", "", "(#1)"]


def pictures(seed):
    """Texts of 300 pictures: some without words, scores that are equal or lie on borders, all origins."""
    rng = random.Random(seed)
    scores = [*(at / 10 for at in range(11)), *(rng.random() for _ in range(20))]
    return [
        [
            {"text": rng.choice(WORDS), "origin": str(rng.choice(list(Origin))), "itm": itm, "itc": None, "kept": False}
            for itm in rng.choices(scores, k=rng.randrange(6))
        ]
        for _ in range(300)
    ]


def ledger(captions, rule):
    """As a data set of this rule has them: scores are stored in float32 first."""
    rows = [{"id": str(n), "part": 0, "row": n, "captions": texts} for n, texts in enumerate(captions)]
    stored = pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA).to_pylist()
    for row in stored:
        for caption, kept in zip(row["captions"], rule.verdicts(row["captions"]), strict=True):
            caption["kept"] = kept
    return pa.Table.from_pylist(stored, schema=LEDGER_SCHEMA)


@pytest.mark.parametrize("best", [None, 1, 2])
@pytest.mark.parametrize("origins", [tuple(map(str, Origin)), ("web",), ("human", "synthetic")])
def test_every_threshold_keeps_what_the_rule_keeps(best, origins):
    own = Rule(threshold=0.4, best=best, origins=origins)
    table = ledger(pictures(7), own)
    measures = CaptionMeasures(own)
    for first in range(0, table.num_rows, 70):
        measures.add(table.slice(first, 70))
    facts = {one.origin: one for one in measures.facts(list(Origin))}
    lines = {line.name: line for line in curves(list(facts.values()), measures.best)}
    rows = table.column("captions").to_pylist()
    for threshold in [0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99]:
        rule = replace(own, threshold=threshold)
        kept = [(caption, yes) for row in rows for caption, yes in zip(row, rule.verdicts(row), strict=True)]
        for origin, one in facts.items():
            mine = [yes for caption, yes in kept if caption["origin"] == origin]
            assert one.kept_at(threshold) == sum(mine), (threshold, origin)
            if origin != Origin.HUMAN:
                assert lines[origin].at(threshold) == pytest.approx(1 - sum(mine) / len(mine))
        with_text = sum(any(rule.verdicts(row)) for row in rows)
        assert int(measures.best[round(threshold * SCORE_BINS) :].sum()) == with_text
        possible = sum(any(replace(own, threshold=0.0).verdicts(row)) for row in rows)
        assert lines["images"].values[round(threshold * STEPS)] == pytest.approx(with_text / possible)


def test_texts_that_lost_their_words_would_be_kept_but_those_that_never_had_any():
    texts = [{"text": "", "origin": "web", "itm": itm, "itc": None, "kept": False} for itm in (0.3, 0.6)]
    row = {"id": "a", "part": 0, "row": 0, "captions": texts, "drop": "no_caption_kept"}
    table = pa.Table.from_pylist([row], schema=LEDGER_SCHEMA)
    for forgetful in (True, False):
        measures = CaptionMeasures(Rule(threshold=0.5), forgetful=forgetful)
        measures.add(table)
        assert measures.facts(["web"])[0].kept_at(0.2) == forgetful, "what passed and was not kept was empty before"


def test_the_share_below_a_threshold_is_told_apart_from_what_was_removed():
    texts = [
        {"text": "a", "origin": "web", "itm": itm, "itc": None, "kept": itm == 0.75} for itm in (0.25, 0.75, 0.625)
    ]
    measures = CaptionMeasures(Rule(threshold=0.5, best=1))
    measures.add(pa.Table.from_pylist([{"id": "a", "part": 0, "row": 0, "captions": texts}], schema=LEDGER_SCHEMA))
    (web,) = measures.facts(["web"])
    assert (web.below(0.5), web.noise_ratio) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_what_a_bound_removed_is_no_word_on_filter_and_captioner(store, kit):
    kit["commit"](store, {0: kit["rows"](300, threshold=0.99)}, threshold=0.99)
    data = gather(store)
    said = [finding.text for finding in findings(data)]
    assert any("without any text" in text for text in said)
    bounded = replace(data, rule=replace(data.rule, origins=("web",)))
    assert [text for text in said if "without any text" not in text and "noisier" not in text] == [
        finding.text for finding in findings(bounded)
    ]

"""The filter on judged pairs: the table, the join with pictures, the figures and their intervals."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from capfilt.errors import DataError, ModelError, SourceError
from capfilt.evaluate.labels import VERDICTS, Label, Scored, labelled, read_labels, scored
from capfilt.evaluate.references import Referenced, read
from capfilt.med.filter import MEDFilter
from capfilt.med.model import MED
from capfilt.roles import Score
from tests.conftest import shape_picture


def pair(text: str, label: str, itm: float | None, itc: float = 0.0, **more: str) -> Scored:
    return Scored(Label(id=text, text=text, label=label, **more), Score(itm, itc))  # type: ignore[arg-type]


def table(folder: Path, *lines: str) -> str:
    file = folder / "labels.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return str(file)


def test_a_table_is_read_with_and_without_the_columns_that_may_be_left_out(tmp_path: Path) -> None:
    file = table(
        tmp_path, "label,id,text,set,kind,again,seen by", 'wrong,a,"Clip art, part 4",titles,nothing,unsure,me'
    )
    assert read_labels(file) == [
        Label(id="a", text="Clip art, part 4", label="wrong", set="titles", kind="nothing", again="unsure")
    ]
    assert read_labels(table(tmp_path, "id,text,label", "a,é,right")) == [Label(id="a", text="é", label="right")]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["id,text", "a,b"], "no column label"),
        (["id,text,label", "a,b,right", "a,b,true"], "label: 'true' is no label"),
        (["id,text,label,again", "a,b,right,maybe"], "again: 'maybe' is no label"),
        (["id,text,label", "a,...,right"], "without an id or a text"),
        (["id,text,label", ",b,right"], "without an id or a text"),
        (["id,text,label"], "no labels"),
        (["id,text,label", 'a,"b,right'], "no CSV"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(table(tmp_path, *lines))
    assert said in caught.value.what
    assert "labels.csv" in caught.value.where
    assert caught.value.mend
    if "is no label" in said:
        assert caught.value.where.endswith(f"line {len(lines)}")


def test_a_table_that_is_not_there_or_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        read_labels(str(tmp_path / "none.csv"))
    (tmp_path / "latin.csv").write_bytes("id,text,label\na,é,right\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_labels(str(tmp_path / "latin.csv"))


SIDES = st.lists(st.tuples(st.sampled_from(["right", "wrong", "unsure"]), st.integers(0, 9)), min_size=1, max_size=30)


@settings(deadline=None, max_examples=30)
@given(SIDES)
def test_figures_are_scikit_learns_and_lie_within_their_intervals(rows: list[tuple[str, int]]) -> None:
    pairs = [pair(chr(97 + i), label, value / 10, value / 10 - 0.3) for i, (label, value) in enumerate(rows)]
    own = labelled(pairs, [0.5])[""]
    sure = [(label == "right", value / 10) for label, value in rows if label != "unsure"]
    right, wrong = ([value for good, value in sure if good is side] for side in (True, False))
    assert (own.right, own.wrong, own.unsure) == (len(right), len(wrong), len(rows) - len(sure))
    if not right or not wrong:
        assert (own.auc_itm, own.auc_itc, own.auc_each_text) == (None, None, None)
    else:
        want = roc_auc_score([good for good, _ in sure], [value for _, value in sure])
        for found in (own.auc_itm, own.auc_itc, own.auc_each_text):  # every text is different here
            assert found is not None
            assert found.value == pytest.approx(want)
            assert 0 <= found.low <= found.high <= 1
    assert own.rule == own.thresholds[0]
    kept = [good for good, value in sure if value >= 0.5]
    precision, recall = own.thresholds[0].precision, own.thresholds[0].recall
    assert (precision is None) == (not kept)
    assert (recall is None) == (not right)
    if precision is not None:
        assert precision.value == pytest.approx(sum(kept) / len(kept))
    if recall is not None:
        assert recall.value == pytest.approx(sum(value >= 0.5 for value in right) / len(right))


def test_pictures_with_one_title_are_no_independent_witnesses() -> None:
    """The same scores with a text for each wrong pair, with one but for its numbers, and with two of unlike scores."""
    draw = random.Random(0)
    scores = [draw.random() for _ in range(80)]
    right = [pair(f"right {chr(97 + i % 26)}{chr(97 + i // 26)}", "right", s) for i, s in enumerate(scores[:40])]
    unlike = [pair(f"wrong {chr(97 + i % 26)}{chr(97 + i // 26)}", "wrong", s / 2) for i, s in enumerate(scores[40:])]
    alike = [pair(f"Icon collection, {i}", "wrong", s / 2) for i, s in enumerate(scores[40:])]
    few = [pair(f"Part {'ab'[i % 2]}", "wrong", s / 2 + (0.5 if i % 2 else 0)) for i, s in enumerate(scores[40:])]
    many, one, two = (labelled([*right, *wrong], [0.5])[""] for wrong in (unlike, alike, few))
    assert (many.wrong_texts, one.wrong_texts, two.wrong_texts) == (40, 1, 2)
    assert many.auc_itm is not None
    assert one.auc_itm is not None
    assert two.auc_itm is not None
    assert one.auc_itm.value == many.auc_itm.value
    assert two.auc_itm.high - two.auc_itm.low > 1.5 * (many.auc_itm.high - many.auc_itm.low)


def test_each_text_counts_once_where_it_is_said() -> None:
    """Nine pictures with one title that the filter takes, and one with another that it does not."""
    pairs = [pair("good", "right", 0.5), *(pair("series", "wrong", 0.9) for _ in range(9)), pair("bad", "wrong", 0.1)]
    own = labelled(pairs, [0.5])[""]
    assert own.auc_itm is not None
    assert own.auc_each_text is not None
    assert (own.auc_itm.value, own.auc_each_text.value) == (pytest.approx(0.1), pytest.approx(0.5))


def test_sets_and_kinds_are_apart_and_agreement_is_scikit_learns() -> None:
    twice = [("right", "right"), ("right", "wrong"), ("wrong", "wrong"), ("wrong", "wrong"), ("unsure", "right")]
    pairs = [pair(chr(97 + i), first, i / 10, again=second, set="b") for i, (first, second) in enumerate(twice)]
    pairs += [pair("x", "wrong", 0.9, kind="nothing", set="a"), pair("y", "wrong", 0.1, kind="other", set="a")]
    pairs += [pair("z", "right", 0.5, set="a")]
    told = labelled(pairs, [0.0])
    assert list(told) == ["b", "a"]
    kinds = {kind: own.auc.value for kind, own in told["a"].kinds.items() if own.auc}
    assert kinds == {"nothing": 0.0, "other": 1.0}
    assert told["a"].agreement is None
    own = told["b"].agreement
    assert own is not None
    assert (own.pairs, own.same) == (5, pytest.approx(3 / 5))
    assert own.kappa == pytest.approx(cohen_kappa_score(*zip(*twice, strict=True), labels=list(VERDICTS)))


def test_a_filter_of_cosines_alone_is_ranked_by_them() -> None:
    own = labelled([pair("a", "right", None, 0.4), pair("b", "wrong", None, -0.2)], [0.0])[""]
    assert (own.auc_itm, own.rule) == (None, None)
    assert own.auc_itc is not None
    assert own.auc_each_text is not None
    assert own.auc_itc.value == own.auc_each_text.value == 1.0
    assert own.thresholds[0].precision is not None
    assert own.thresholds[0].precision.value == 1.0


class Lengths:
    """A filter whose score is the text's length, and which remembers what it was given."""

    def __init__(self, scale: float = 0.01) -> None:
        self.scale = scale
        self.given: list[list[list[str]]] = []

    def score(self, pictures: list[Image.Image], texts: list[list[str]]) -> list[list[Score]]:
        assert len(pictures) == len(texts)
        self.given.append(texts)
        return [[Score(len(text) * self.scale, 0.0) for text in row] for row in texts]


def test_labels_find_their_pictures_by_id_or_key_and_keep_their_order() -> None:
    picture = shape_picture("red", "circle", random.Random(0))
    items = [Referenced(f"key{i}", ("its own",), data=picture, id="" if i == 2 else f"id{i}") for i in range(3)]
    labels = [
        Label(id=of, text=text, label="right")
        for of, text in (("id1", "a"), ("key2", "bb"), ("id9", "ccc"), ("id1", "dddd"), ("id0", "eeeee"))
    ]
    judge = Lengths()
    found = scored(judge, items, labels, batch_size=2)
    assert [(one.label.text, round(100 * one.decisive)) for one in found] == [
        ("a", 1),
        ("bb", 2),
        ("dddd", 4),
        ("eeeee", 5),
    ]
    assert judge.given == [[["eeeee"], ["a", "dddd"]], [["bb"]]]
    with pytest.raises(DataError, match="none of the labels' pictures"):
        scored(judge, items[:1], labels[:1])
    with pytest.raises(ModelError, match="not numbers"):
        scored(Lengths(float("nan")), items, labels)


def test_scores_of_a_real_model_are_those_of_its_filter(shape_shard: Path, tiny_architecture: Path) -> None:
    torch.manual_seed(0)
    judge = MEDFilter(MED.new(tiny_architecture).eval())
    items = list(read([str(shape_shard)]))[:6]
    assert [item.id for item in items] == [str(i) for i in range(6)]
    labels = [Label(id=item.id, text=text, label="right") for item in items for text in ("a red circle", "on white")]
    found = scored(judge, items, labels, batch_size=4)
    pictures = [Image.open(io.BytesIO(item.image())).convert("RGB") for item in items]
    want = judge.score(pictures, [["a red circle", "on white"]] * 6)
    got = [[found[2 * i].score, found[2 * i + 1].score] for i in range(6)]
    for row, wanted in zip(got, want, strict=True):
        assert [s.itm for s in row] == pytest.approx([s.itm for s in wanted], abs=1e-5)
        assert [s.itc for s in row] == pytest.approx([s.itc for s in wanted], abs=1e-5)

"""AUC, shuffling and wording against what they should be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

from capfilt.captions import clean
from capfilt.errors import DataError
from capfilt.evaluate.captioning import wording
from capfilt.evaluate.filtering import Judged, auc, judged, shuffled
from capfilt.evaluate.references import Referenced, read
from capfilt.records import Caption
from capfilt.roles import Score
from capfilt.shards.sample import Sample
from capfilt.shards.tar import write_tar
from tests.conftest import shape_picture

NUMBERS = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=30)


@settings(deadline=None)
@given(NUMBERS, NUMBERS)
def test_auc_is_scikit_learns_ties_included(good: list[float], bad: list[float]) -> None:
    want = roc_auc_score([1] * len(good) + [0] * len(bad), good + bad)
    assert auc(good, bad) == pytest.approx(want)


def test_auc_of_nothing_is_an_error() -> None:
    with pytest.raises(DataError):
        auc([], [1.0])


@given(st.lists(st.sampled_from(["a", "b", "c", "d", "A!", "b "]), min_size=4, max_size=40), st.integers(0, 9))
def test_shuffling_leaves_no_text_where_it_stood(texts: list[str], seed: int) -> None:
    cleaned = [clean(t) for t in texts]
    if 2 * max(cleaned.count(t) for t in cleaned) > len(texts):
        with pytest.raises(DataError):
            shuffled(texts, seed)
        return
    mixed = shuffled(texts, seed)
    assert sorted(mixed) == sorted(texts)
    assert all(clean(a) != clean(b) for a, b in zip(texts, mixed, strict=True))


def test_wording_counts_hits_variety_and_repeats() -> None:
    own = ["a red apple", "the green pear", "a car"]
    held = [Referenced(str(i), (text,)) for i, text in enumerate(own)]
    got = wording(["an apple", "a picture of the", "a apple"], held)
    assert (got.hit, got.distinct, got.most_repeated) == (pytest.approx(1 / 3), 1.0, pytest.approx(1 / 3))
    assert got.vocabulary == 6


def test_a_threshold_keeps_what_is_at_it_or_above() -> None:
    of = lambda *values: [Score(value, 0.0) for value in values]  # noqa: E731
    rows = Judged(of(0.9, 0.5, 0.2), of(0.5, 0.1, 0.1)).operating([0.0, 0.5, 0.95])
    assert [(r.precision, r.recall, r.kept_false) for r in rows] == [
        (0.5, 1.0, 1.0),
        (pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(1 / 3)),
        (None, 0.0, 0.0),
    ]
    cosines = Judged([Score(None, 0.4), Score(None, -0.1)], [Score(None, 0.1), Score(None, -0.5)])
    assert cosines.operating([0.0])[0].recall == 0.5
    assert cosines.separation().auc_itm is None
    assert cosines.separation().auc_itc == 0.75


def test_the_noise_ratio_is_of_all_the_datas_own_texts() -> None:
    of = lambda *values: [Score(value, 0.0) for value in values]  # noqa: E731
    found = Judged(of(0.9, 0.5), of(0.1, 0.2), of(0.49, 0.3, 0.8))
    assert (found.separation().texts, found.separation().noise_ratio) == (5, pytest.approx(2 / 5))
    assert [row.noise_ratio for row in found.operating([0.0, 0.6, 0.95])] == [0.0, pytest.approx(3 / 5), 1.0]
    assert Judged([Score(None, 0.4)], [Score(None, 0.1)]).separation().noise_ratio is None


def test_the_histogram_counts_each_side_and_a_border_belongs_to_the_bin_above() -> None:
    of = lambda *values: [Score(value, 0.0) for value in values]  # noqa: E731
    found = Judged(of(0.0, 0.5, 1.0), of(0.04, 0.05, 0.51)).histogram()
    assert (found.edges[0], found.edges[-1], len(found.edges)) == (0.0, 1.0, 21)
    assert {i: n for i, n in enumerate(found.true) if n} == {0: 1, 10: 1, 19: 1}
    assert {i: n for i, n in enumerate(found.false) if n} == {0: 1, 1: 1, 10: 1}
    cosines = Judged([Score(None, 0.4)], [Score(None, -1.0)]).histogram()
    assert (cosines.edges[0], sum(cosines.true), cosines.false[0]) == (-1.0, 1, 1)


class Lengths:
    """A filter whose score is the text's length, and which remembers how much it was given at once."""

    def __init__(self) -> None:
        self.given: list[list[int]] = []

    def score(self, pictures: list[Image.Image], texts: list[list[str]]) -> list[list[Score]]:
        assert len(pictures) == len(texts)
        self.given.append([len(row) for row in texts])
        return [[Score(len(text) / 100, 0.0) for text in row] for row in texts]


def test_each_picture_is_judged_by_all_its_texts_and_by_one_of_another() -> None:
    picture = shape_picture("red", "circle", random.Random(0))
    texts = [("a", "a" * 10), ("b" * 2,), ("c" * 3, "c" * 30, "c" * 31, "c" * 32, "c" * 33), ("d" * 4,)]
    judge = Lengths()
    found = judged(judge, [Referenced(str(i), row, data=picture) for i, row in enumerate(texts)], batch_size=3)
    assert [round(100 * s.itm) for s in found.true] == [1, 2, 3, 4]
    assert sorted(round(100 * s.itm) for s in found.false) == [1, 2, 3, 4]
    assert all(own.itm != other.itm for own, other in zip(found.true, found.false, strict=True))
    assert [round(100 * s.itm) for s in found.further] == [10, 30, 31, 32, 33]
    assert judge.given == [[3, 2], [6], [2]]  # at most three pictures and six texts


def test_texts_that_were_rejected_count_as_noise_and_in_no_auc(tmp_path: Path) -> None:
    """A data set that this filter made, with what it rejected still in the shards."""
    rows = [("a" * 50, "a" * 10), ("b" * 60, "b" * 20), ("c" * 70,)]
    samples = []
    for at, texts in enumerate(rows):
        captions = [
            Caption(text=text, origin="web", itm=len(text) / 100, itc=0.0, kept=len(text) >= 50) for text in texts
        ]
        samples.append(Sample(f"{at}", shape_picture("red", "circle", random.Random(at)), captions))
    with (tmp_path / "0.tar").open("wb") as file:
        write_tar(file, samples)
    items = list(read([str(tmp_path / "0.tar")]))
    assert [item.texts for item in items] == [row[:1] for row in rows]
    found = judged(Lengths(), items)
    told = found.separation()
    assert (told.pairs, told.texts, told.noise_ratio) == (3, 5, pytest.approx(2 / 5))
    assert [round(100 * s.itm) for s in found.true] == [50, 60, 70]
    assert sorted(round(100 * s.itm) for s in found.false) == [50, 60, 70]

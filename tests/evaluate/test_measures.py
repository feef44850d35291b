"""AUC, shuffling and wording against what they should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from capfilt.captions import clean
from capfilt.errors import DataError
from capfilt.evaluate.captioning import wording
from capfilt.evaluate.filtering import Judged, auc, shuffled
from capfilt.evaluate.references import Referenced
from capfilt.roles import Score

NUMBERS = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=30)


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

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.report.sketches import Distinct, Frequent, Pick, hash64


@given(st.lists(st.text(max_size=5)))
def test_few_different_strings_are_counted_exactly(values):
    sketch = Distinct(size=1000)
    sketch.add(values)
    assert (sketch.count(), sketch.exact) == (len(set(values)), True)


@pytest.mark.parametrize("different", [3000, 50_000])
def test_many_different_strings_are_estimated_in_bounded_memory(different):
    sketch = Distinct(size=1024)
    for start in range(0, different, 1000):
        sketch.add(f"word {n}" for n in range(start, start + 1000))
        sketch.add(f"word {n}" for n in range(start, start + 500))
    assert not sketch.exact
    assert len(sketch._smallest) + sum(map(len, sketch._new)) <= 2 * 1024
    assert sketch.count() == pytest.approx(different, rel=0.1)


def test_the_estimate_does_not_depend_on_the_order():
    words = [f"word {n}" for n in range(5000)]
    counts = set()
    for seed in range(3):
        random.Random(seed).shuffle(words)
        sketch = Distinct(size=256)
        for start in range(0, 5000, 100):
            sketch.add(words[start : start + 100])
        counts.add(sketch.count())
    assert len(counts) == 1


def test_frequent_strings_are_exact_while_few_and_ranked_with_equals_by_text():
    sketch = Frequent(size=10)
    sketch.add({"b": 2, "a": 2, "c": 5})
    sketch.add({"c": 1, "d": 1})
    assert sketch.top(3) == [("c", 6), ("a", 2), ("b", 2)]
    assert sketch.top(9, at_least=2) == [("c", 6), ("a", 2), ("b", 2)]


def test_a_frequent_string_is_found_among_very_many_with_a_bounded_error():
    sketch = Frequent(size=100)
    total = 0
    for batch in range(50):
        sketch.add({"often": 40, **{f"{batch}-{n}": 1 for n in range(200)}})
        total += 240
    [(text, count)] = sketch.top(1)
    assert text == "often"
    assert not sketch.exact
    assert 2000 - total / 100 <= count <= 2000


@given(st.lists(st.integers(0, 10**6), unique=True), st.integers(0, 20), st.randoms())
def test_a_pick_is_the_same_whatever_the_order(values, size, order):
    expected = sorted(values)[:size]
    order.shuffle(values)
    pick = Pick(size)
    for value in values:
        if pick.wants((value,)):
            pick.put((value,), value)
    assert pick.chosen() == expected


def test_hashes_keep_pieces_apart_and_take_any_string():
    assert hash64("ab", "c") != hash64("a", "bc")
    assert hash64("\ud800") == hash64("\ud800")

"""Batches that fail: which rows pay for it, how often the work is tried, and when it is not the rows."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from capfilt.errors import DataError, EngineError, ModelError
from capfilt.stages.careful import ENOUGH, FEW, Careful, Fault, RowError, Streak


class Work:
    """Doubles rows; fails of some, and of more than ``room`` at once."""

    def __init__(self, bad: set[int] = frozenset(), room: int = 10**6, error: Exception | None = None) -> None:
        self.bad, self.room, self.sizes = bad, room, []
        self.error = error or RowError("It is bad")

    def __call__(self, rows: Sequence[int]) -> list[int]:
        self.sizes.append(len(rows))
        if len(rows) > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        if self.bad & set(rows):
            raise self.error
        return [2 * row for row in rows]


@given(bad=st.sets(st.integers(0, 39), max_size=FEW - 1), size=st.integers(1, 40), room=st.integers(1, 40))
def test_only_bad_rows_have_no_result_and_the_order_stays(bad, size, room):
    found = list(Careful(Work(bad, room), size, where="model")(range(40)))
    assert [row for row, _ in found] == list(range(40))
    assert {row for row, result in found if isinstance(result, Fault)} == bad
    assert all(result == 2 * row for row, result in found if row not in bad)


def test_one_bad_row_costs_two_halves_a_level():
    work = Work({5})
    assert dict(Careful(work, 32, where="model")(range(32)))[5] == Fault("It is bad.")
    assert work.sizes == [32, 16, 8, 4, 4, 2, 1, 1, 2, 8, 16][: len(work.sizes)]
    assert len(work.sizes) == 11


def test_when_memory_runs_out_later_batches_are_smaller_and_it_is_said(caplog):
    work = Work(room=5)
    careful = Careful(work, 16, where="model")
    with caplog.at_level(logging.WARNING):
        assert len(list(careful(range(64)))) == 64
    assert careful.largest == 4
    assert work.sizes.count(16) == 1
    assert "memory ran out with 16 pictures at a time; going on with 8" in caplog.text


class Held:
    """What a batch holds on its way."""


def test_what_ran_out_is_given_back_before_smaller_batches_are_tried():
    held, begun = weakref.WeakSet(), []

    def work(rows: Sequence[int]) -> list[int]:
        begun.append((len(rows), len(held)))
        mine = [Held() for _ in rows]
        held.update(mine)
        if len(held) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [row + len(mine) - len(rows) for row in rows]

    found = list(Careful(work, 32, where="model", total=64)(range(64)))
    assert found == [(row, row) for row in range(64)]
    assert begun == [(32, 0)] + 4 * [(16, 0)]


def test_parts_of_few_rows_that_all_fail_are_the_model_together():
    streak = Streak()

    def part():
        return list(Careful(Work({0, 1, 2}), 4, where="model", total=3, streak=streak)(range(3)))

    assert [len(part()) for _ in range(10)] == [3] * 10
    with pytest.raises(ModelError, match="the last 32, and none in between was done"):
        part()


def test_a_row_that_is_done_ends_the_streak_and_bad_rows_behind_good_ones_are_none():
    streak = Streak()
    rows = range(200)
    bad = set(range(100, 100 + 2 * ENOUGH))
    found = dict(Careful(Work(bad), 8, where="model", total=len(rows), streak=streak)(rows))
    assert {row for row, result in found.items() if isinstance(result, Fault)} == bad
    for _ in range(2 * ENOUGH):
        found = list(Careful(Work({0, 1, 2}), 4, where="model", total=4, streak=streak)(range(4)))
        assert [isinstance(result, Fault) for _, result in found] == [True, True, True, False]


def test_a_picture_too_large_for_the_memory_alone_is_told():
    ((_, fault),) = Careful(Work(room=0), 1, where="model")([3])
    assert fault == Fault("Memory ran out with this picture alone.")


def test_what_a_model_says_stands_in_the_ledger_in_one_line():
    ((_, fault),) = Careful(Work({3}, error=IndexError("index 7 is out of range\nat line 9")), 1, where="model")([3])
    assert fault == Fault("The model failed with this picture alone: index 7 is out of range.")


def test_when_most_rows_fail_it_is_the_model():
    work = Work(set(range(100)))
    with pytest.raises(ModelError, match="fails with most pictures") as caught:
        list(Careful(work, 32, where="model")(range(100)))
    assert caught.value.where == "model"
    assert len(work.sizes) < 2 * ENOUGH, "it is found out early"


def test_a_few_bad_rows_at_the_beginning_are_not_the_model():
    bad = set(range(2 * FEW - 1))
    found = list(Careful(Work(bad), 8, where="model", total=100)(range(100)))
    assert {row for row, result in found if isinstance(result, Fault)} == bad


def test_of_few_rows_all_are_tried_before_it_is_the_model():
    rows = range(FEW + 2)
    with pytest.raises(ModelError, match="10 of 10"):
        list(Careful(Work(set(rows)), 4, where="model", total=len(rows))(rows))


@pytest.mark.parametrize("kind", [RuntimeError, getattr(torch, "AcceleratorError", RuntimeError)])
def test_a_gpu_that_fails_is_no_rows_fault(kind):
    work = Work({5}, error=kind("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might"))
    with pytest.raises(
        EngineError, match=r"the GPU of .* fails: CUDA error: an illegal memory access was encountered\n"
    ):
        list(Careful(work, 8, where="model")(range(40)))
    assert work.sizes == [8], "it is not asked again"


@pytest.mark.parametrize("said", ["CUDA error: out of memory", "CUDA error: device-side assert triggered"])
def test_what_a_gpu_says_of_rows_is_theirs(said):
    found = list(Careful(Work({5}, error=RuntimeError(said)), 8, where="model")(range(40)))
    assert [row for row, result in found if isinstance(result, Fault)] == [5]


def test_errors_for_the_user_pass():
    with pytest.raises(DataError):
        list(Careful(Work({1}, error=DataError("no")), 4, where="model")(range(4)))

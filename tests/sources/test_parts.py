"""Parts as one sequence: all rows once, whatever is asked for, and no memory for what is not."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.errors import RecipeError
from capfilt.sources.parts import Parts, Some, cut

FILES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.just("digest")), max_size=6)


@given(files=FILES, part_rows=st.integers(1, 50))
def test_every_row_of_every_file_is_in_one_part_and_none_is_too_large(files, part_rows):
    parts = cut(files, part_rows)
    rows = [(part.file, row) for part in parts for row in range(part.start, part.stop)]
    assert rows == [(name, row) for name, count, _ in files for row in range(count)]
    assert [part.index for part in parts] == list(range(len(parts)))
    sizes = [part.stop - part.start for part in parts]
    assert parts.sizes == ((min(sizes), max(sizes)) if sizes else (0, 0))
    assert parts.sizes[1] <= part_rows
    assert parts.rows == len(rows)


@given(files=FILES.filter(lambda files: any(rows for _, rows, _ in files)), data=st.data())
def test_it_is_a_sequence_like_any_other(files, data):
    parts = cut(files, 3)
    listed = list(parts)
    at = data.draw(st.integers(-len(parts), len(parts) - 1))
    assert parts[at] == listed[at]
    piece = data.draw(st.slices(len(parts)))
    assert list(parts[piece]) == listed[piece]
    some = Some(parts, sorted(data.draw(st.sets(st.integers(0, len(parts) - 1)))))
    assert list(some) == [some[number] for number in range(len(some))]
    with pytest.raises(IndexError):
        parts[len(parts)]


def test_digests_follow_content_and_cut_and_not_the_files_place():
    base = cut([("a", 10, "x")], 5)
    assert cut([("elsewhere", 10, "x")], 5).digest == base.digest
    others = [cut([("a", 10, "y")], 5), cut([("a", 10, "x")], 4), cut([("a", 11, "x")], 6)]
    others.append(Parts(replace(item, source=1) for item in base.stretches))
    assert len({base.digest, *(other.digest for other in others)}) == 5
    assert len({part.digest for part in cut([("a", 10, "x"), ("b", 10, "y")], 5)}) == 4


def test_a_billion_rows_take_the_memory_of_their_files():
    tracemalloc.start()
    parts = cut(((f"{number}.parquet", 10_000_000, "x") for number in range(500)), 1000)
    last, _, _ = parts[-1], parts.digest, parts.sizes
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (parts.rows, len(parts)) == (5_000_000_000, 5_000_000)
    assert (last.file, last.start, last.stop) == ("499.parquet", 9_999_000, 10_000_000)
    assert peak < 2_000_000


def test_part_rows_below_one():
    with pytest.raises(RecipeError, match="part_rows"):
        cut([("a", 10, "x")], 0)

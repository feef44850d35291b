"""Duplicates among hashes: what is found is what comparing all with all finds."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.errors import DataError, RecipeError
from capfilt.shards.duplicates import Duplicate, Pictures, find

SCHEMA = pa.schema(
    [
        ("part", pa.int64()),
        ("row", pa.int64()),
        ("sha256", pa.string()),
        ("phash", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


def table(rows):
    """Rows of (content, perceptual hash or None, side in px)."""
    return pa.Table.from_pylist(
        [
            {
                "part": at // 3,
                "row": at % 3,
                "sha256": hashlib.sha256(bytes([content])).hexdigest(),
                "phash": None if phash is None else f"{phash:016x}",
                "width": side,
                "height": side,
            }
            for at, (content, phash, side) in enumerate(rows)
        ],
        schema=SCHEMA,
    )


def found(rows, near):
    return {(one.part * 3 + one.row): one for one in find(Pictures([table(rows)]), near)}


def by_hand(rows, near):
    """The same by comparing each picture with all that stay, in the order of preference."""
    stay, gone = [], {}
    for at in sorted(range(len(rows)), key=lambda at: (-(rows[at][2] ** 2), at)):
        content, phash, _ = rows[at]
        equal = [one for one in stay if rows[one][0] == content]
        like = [
            (phash ^ rows[one][1]).bit_count()
            for one in stay
            if near >= 0 and phash is not None and rows[one][1] is not None
        ]
        if equal:
            gone[at] = None
        elif like and min(like) <= near:
            gone[at] = min(like)
        else:
            stay.append(at)
    return gone


# Few bits and few contents, so that equal and near pictures are common; a picture's hash follows from its content.
HASHES = st.builds(lambda base, flips: base ^ flips, st.sampled_from([0, 0xFFFF0000FFFF0000]), st.integers(0, 255))


@settings(deadline=None)
@given(
    hashes=st.lists(st.none() | HASHES, min_size=6, max_size=6),
    picks=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), max_size=14),
    near=st.integers(-1, 8),
)
def test_it_finds_what_comparing_all_with_all_finds(hashes, picks, near):
    sides = dict(picks)  # equal bytes are of equal size
    rows = [(content, hashes[content], sides[content]) for content, _ in picks]
    assert {at: one.bits for at, one in found(rows, near).items()} == by_hand(rows, near)


def test_the_largest_stays_and_the_first_of_equals():
    rows = [(1, 0, 10), (2, 1, 30), (3, 3, 20), (2, 1, 30)]
    assert found(rows, 1) == {
        0: Duplicate(0, 0, 0, 1, 1),
        2: Duplicate(0, 2, 0, 1, 1),
        3: Duplicate(1, 0, 0, 1, None),
    }


def test_of_a_chain_the_ends_stay_apart():
    chain = [(n, (1 << 2 * n) - 1, 10) for n in range(4)]  # 2 bits from one to the next
    assert set(found(chain, 2)) == {1, 3}
    assert set(found(chain, 1)) == set()


def test_rows_without_a_picture_or_without_a_hash():
    rows = table([(1, None, 10), (1, None, 10), (2, None, 10)])
    none = rows.set_column(2, SCHEMA.field("sha256"), pa.nulls(3, pa.string()))
    assert list(find(Pictures([none]), 8)) == list(find(Pictures([]), 8)) == []
    assert [one.bits for one in find(Pictures([none, rows]), 8)] == [None]


def test_damaged_hashes_and_distances_out_of_range():
    bad = table([(1, 0, 10)]).set_column(3, SCHEMA.field("phash"), pa.array(["not hexadecimal"]))
    with pytest.raises(DataError, match="damaged"):
        Pictures([bad])
    with pytest.raises(RecipeError, match="near"):
        list(find(Pictures([]), 9))

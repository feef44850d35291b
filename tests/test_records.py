"""The record: identity, schema, and books that balance."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from capfilt import records
from capfilt.errors import CapfiltError, DataError, RecipeError
from capfilt.records import Caption, Drop, Tally


def caption(origin: str, itm: float | None, *, kept: bool) -> Caption:
    return Caption(text="a", origin=origin, itm=itm, itc=itm, kept=kept)


def rows() -> pa.Table:
    captions = [
        [caption("web", 0.2, kept=False), caption("synthetic", 0.9, kept=True)],
        [caption("web", 0.8, kept=True)],
        [caption("web", 0.1, kept=False)],
        [],
    ]
    drops = [None, None, Drop.NO_CAPTION_KEPT, Drop.UNREACHABLE]
    return records.table_of(
        {"id": str(i), "part": 0, "row": i, "captions": c, "drop": d}
        for i, (c, d) in enumerate(zip(captions, drops, strict=True))
    )


def test_books_balance_and_give_the_papers_noise_ratio() -> None:
    tally = Tally.of(rows())
    assert (tally.rows, tally.kept, tally.dropped) == (4, 2, {"no_caption_kept": 1, "unreachable": 1})
    assert tally.balanced
    assert tally.noise_ratio("web") == pytest.approx(2 / 3)
    assert tally.noise_ratio("synthetic") == 0
    assert tally.noise_ratio("human") is None
    assert Tally.from_json(tally.to_json()) == tally
    assert (tally + tally).texts == {"synthetic": 2, "web": 6}
    assert Tally.of(rows().slice(0, 0)) == Tally()


def test_texts_of_a_duplicate_are_neither_kept_nor_noise() -> None:
    twin = {"id": "x", "part": 0, "row": 4, "drop": str(Drop.DUPLICATE)}
    twin["captions"] = [caption("web", 0.9, kept=True), caption("synthetic", 0.1, kept=False)]
    table = records.table_of([*rows().to_pylist(), twin])
    alone, both = Tally.of(rows()), Tally.of(table)
    assert (both.texts, both.texts_kept) == (alone.texts, alone.texts_kept)
    assert both.dropped["duplicate"] == 1
    assert Tally.with_duplicates(table).texts == {"synthetic": 2, "web": 4}


def test_texts_never_scored_are_no_noise() -> None:
    table = records.table_of([{"id": "a", "part": 0, "row": 0, "captions": [caption("web", None, kept=True)]}])
    assert Tally.of(table).noise_ratio("web") is None


def test_an_id_is_of_its_content_and_its_pieces_do_not_run_together() -> None:
    assert records.row_id("http://a/b", "c") == records.row_id("http://a/b", "c")
    assert len(records.row_id("", "")) == 32
    assert len({records.row_id(*pair) for pair in [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")]}) == 4
    records.row_id("\ud800", "a lone surrogate does not raise")


def test_another_schema_is_an_error_that_shows_both() -> None:
    with pytest.raises(DataError, match="expected") as caught:
        records.conform(rows().drop_columns(["url"]), where="stage x")
    assert "stage x" in str(caught.value)
    loose = pa.Table.from_pylist(
        rows().to_pylist(), schema=pa.schema([pa.field(f.name, f.type) for f in records.SCHEMA])
    )
    assert records.conform(loose, where="x").schema == records.SCHEMA


def test_errors_cross_a_process_boundary_whole() -> None:
    error = pickle.loads(pickle.dumps(RecipeError("what", where="where", mend="mend", passing=True)))
    assert error.passing
    assert isinstance(error, CapfiltError)
    assert (type(error), error.what, error.where, error.mend) == (RecipeError, "what", "where", "mend")

"""JSON is scanned in pieces and found to be what the standard library reads whole, wherever the pieces end."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.sources import documents
from capfilt.sources.documents import Scanner, meant

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_elements_are_those_of_the_list_at_their_places(monkeypatch, chunk):
    monkeypatch.setattr(documents, "_CHUNK", chunk)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(VALUES, max_size=6), st.booleans(), st.sampled_from([None, 1]))
    def check(values, plain, indent):
        data = json.dumps(values, ensure_ascii=plain, indent=indent).encode("utf-8", "surrogatepass")
        scanner = Scanner(io.BytesIO(data), "x.json")
        scanner.take("[")
        found = [(offset, meant(text)) for offset, text, _ in scanner.elements()]
        assert [value for _, value in found] == json.loads(data.decode("utf-8", "replace"))
        for at, (offset, _) in enumerate(found):
            again = Scanner(io.BytesIO(data), "x.json", offset)
            assert [meant(text) for _, text, _ in again.elements()] == [value for _, value in found[at:]]

    check()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4))
def test_members_are_those_of_the_object(data):
    scanner = Scanner(io.BytesIO(json.dumps(data).encode()), "x.json")
    found = {}
    for key in scanner.members():
        found[key] = meant(scanner.value()[1])
    assert found == data
    skipped = Scanner(io.BytesIO(json.dumps(data).encode()), "x.json")
    assert [skipped.skip() for _ in skipped.members()] == [None] * len(data)

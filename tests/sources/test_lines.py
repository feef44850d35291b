"""Text tables are counted fast and read slowly, and both find the same records, whatever bytes they are given."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.sources import lines

SHORT = 16
"""Stands for the most bytes of a line, and a block is a few of these."""
PIECES = [
    b"{",
    b"}",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\r",
    b" ",
    b"\t",
    b"x",
    b'"',
    b"http://a",
    b"\xef\xbb\xbf",
    b"\xc2\x85",
]
PIECES += [b"\xc2\xa0", b"\xff", b"\x1c", b"\0", b"x" * (SHORT - 1), b"{" * SHORT, b"y" * (SHORT + 1), b" " * 3 * SHORT]
PIECES += [b" " * SHORT, b" " * (SHORT - 1), b"\r" * SHORT]


@pytest.fixture
def short_lines(monkeypatch):
    monkeypatch.setattr(lines, "_LINE_BYTES", SHORT)
    monkeypatch.setattr(lines, "_MARK_BYTES", 40)


@pytest.mark.parametrize("block", [1, 7, 16, 33, 1000])
@pytest.mark.parametrize("kind", ["jsonl", "tsv"])
def test_counting_finds_what_reading_finds(short_lines, tmp_path_factory, monkeypatch, kind, block):
    monkeypatch.setattr(lines, "_COUNT_BYTES", block)
    # Without a header, quotes are text; what is read first tells that, so it is always the same.
    head = b"http://a\tb\n" if kind == "tsv" else b""
    file = tmp_path_factory.mktemp("lines") / f"x.{kind}"

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.sampled_from(PIECES), max_size=25))
    def check(pieces):
        file.write_bytes(head + b"".join(pieces))
        counted = lines.count(str(file), kind)
        read = list(lines.records(str(file), kind))
        assert counted.rows == len(read)
        assert [mark.row for mark in counted.marks] == sorted(mark.row for mark in counted.marks)
        for mark in counted.marks:
            assert list(lines.records(str(file), kind, mark)) == read[mark.row :]

    check()


def test_marks_are_few(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(b'{"url": "http://h/1.jpg", "caption": "a"}\n' * 400_000)
    counted = lines.count(str(file), "jsonl")
    assert counted.rows == 400_000
    assert 3 <= len(counted.marks) <= 5

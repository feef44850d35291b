"""The published preprocessing of captions."""

from __future__ import annotations

import pytest

from capfilt.captions import clean


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ('A "Dog"... (old)!', "a dog old"),
        ("a#b*c:d;e~f", "a b c d e f"),
        ("keeps - , ' ? / and\tfolds\n space", "keeps - , ' ? / and folds space"),
        ("...", ""),
        ("", ""),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned
    assert clean(cleaned) == cleaned


def test_thirty_words_are_kept() -> None:
    assert clean("w " * 40) == " ".join(["w"] * 30)
    assert clean("a b c", max_words=2) == "a b"

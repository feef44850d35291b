"""How a caption's text is cleaned before a model reads it (the paper's published preprocessing).

Knows strings only: no tokens, no tables, no models.
"""

from __future__ import annotations

import re

_PUNCTUATION = re.compile(r"[.!\"()*#:;~]")
_SPACE = re.compile(r"\s+")


def clean(text: str, *, max_words: int = 30) -> str:
    """The form in which every model reads a caption: lower case, no ``.!"()*#:;~``, single spaces.

    Args:
        text: any string.
        max_words: words (split at spaces) that are kept, at least 1; BLIP keeps 30 in
            pretraining and captioning.

    Returns:
        The cleaned text; empty when nothing but punctuation and space was there.
    """
    folded = _SPACE.sub(" ", _PUNCTUATION.sub(" ", text.lower())).strip()
    return " ".join(folded.split(" ")[:max_words])

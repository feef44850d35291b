"""Caption metrics: pycocoevalcap's figures, with and without Java, and variety counted by hand."""

from __future__ import annotations

import builtins
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest

from capfilt.errors import EngineError
from capfilt.evaluate.quality import diversity, quality

FAILS_AFTER_TOKENS = """case "$*" in *PTBTokenizer*) for last; do :; done; tr A-Z a-z < "$last";; *) exit 1;; esac"""
"""A Java that splits words and then has no memory for METEOR and SPICE."""
TEXTS = ["a man rides a horse", "two dogs play in the snow", "a red bus on a street", "a plate of food"]
REFERENCES = [
    ["A man is riding a horse.", "A person on a brown horse"],
    ["Two dogs are playing in the snow!", "dogs play in snow"],
    ["A double-decker bus drives down the street.", "a red bus"],
    ["A cat sleeps on the sofa.", "a sleeping cat"],
]


def bleu_1(texts: list[str], references: list[list[str]]) -> float:
    """Papineni et al. 2002, equations 1 to 3, for single words and the closest reference's length."""
    hit = written = closest = 0
    for text, rows in zip(texts, references, strict=True):
        words, others = text.split(), [row.split() for row in rows]
        written += len(words)
        closest += min((abs(len(row) - len(words)), len(row)) for row in others)[1]
        allowed = Counter[str]()
        for row in others:
            allowed |= Counter(row)
        hit += sum((Counter(words) & allowed).values())
    penalty = 1.0 if written >= closest else math.exp(1 - closest / written)
    return penalty * hit / written


def test_without_java_words_are_split_plainly_and_what_needs_it_is_named() -> None:
    found = quality(TEXTS, REFERENCES, java=False)
    assert found.tokenizer == "plain"
    assert set(found.left_out) == {"METEOR", "SPICE"}
    assert all("Java" in why for why in found.left_out.values())
    assert list(found.scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    plain = [[r.lower().strip(".!").replace("double-decker", "double decker") for r in rows] for rows in REFERENCES]
    assert found.scores["BLEU-1"] == pytest.approx(bleu_1(TEXTS, plain), rel=1e-6)
    perfect = quality([rows[0] for rows in REFERENCES], REFERENCES, java=False)
    assert perfect.scores["BLEU-4"] == pytest.approx(1.0, abs=1e-6)
    assert perfect.scores["CIDEr"] > 2 * found.scores["CIDEr"]


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java on this machine")
def test_with_java_the_figures_are_those_of_the_official_program() -> None:
    """The published evaluation, called as its own example calls it, with the metrics that need no download."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    found = quality(TEXTS, REFERENCES, java=True)
    assert found.tokenizer == "PTB"
    wanted = PTBTokenizer().tokenize({i: [{"caption": r} for r in rows] for i, rows in enumerate(REFERENCES)})
    said = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(TEXTS)})
    assert found.scores["CIDEr"] == pytest.approx(Cider().compute_score(wanted, said)[0])
    assert found.scores["ROUGE-L"] == pytest.approx(Rouge().compute_score(wanted, said)[0])
    assert found.scores["BLEU-4"] == pytest.approx(Bleu(4).compute_score(wanted, said)[0][3])
    assert 0 < found.scores["METEOR"] < 1
    assert set(found.left_out) <= {"SPICE"}  # its program fetches a parser when it is first used


def test_a_java_that_fails_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for script, tokenizer in (("echo no heap >&2; exit 1", "plain"), (FAILS_AFTER_TOKENS, "PTB")):
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\n{script}\n")
        java.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        found = quality(TEXTS, REFERENCES)
        assert found.tokenizer == tokenizer
        assert {"METEOR", "SPICE"} == set(found.left_out)
        assert found.scores["CIDEr"] > 0


def test_without_the_package_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: object) -> object:
        if name.startswith("pycocoevalcap"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(EngineError) as caught:
        quality(TEXTS, REFERENCES)
    assert "capfilt[eval]" in caught.value.mend


def test_variety_is_counted() -> None:
    found = diversity(["a red bus", "a red bus", "a blue bus"])
    assert (found.captions, found.vocabulary) == (3, 4)
    assert found.distinct_1 == pytest.approx(4 / 9)
    assert found.distinct_2 == pytest.approx(4 / 6)
    assert found.distinct_3 == pytest.approx(2 / 3)
    assert found.unique == pytest.approx(2 / 3)
    assert found.repeated == pytest.approx(2 / 3)
    assert found.words == 3
    assert diversity([]).unique == 0

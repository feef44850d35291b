"""How good captions are beside references: BLEU, ROUGE-L, CIDEr, METEOR and SPICE, all of pycocoevalcap's making.

METEOR, SPICE and the tokenizer that papers use need Java, SPICE a parser too. What cannot be had is left out and said.
Knows texts only.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capfilt.captions import clean
from capfilt.errors import DataError, EngineError

TOKENIZER_JAVA = "PTB"
TOKENIZER_PLAIN = "plain"
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
Texts = dict[int, list[str]]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Scores as the field prints them, but in their own units: 1.279 is what papers call a CIDEr of 127.9."""

    captions: int
    """Captions compared, one a picture."""
    tokenizer: str
    """``PTB`` as in papers, or ``plain`` (words in lower case) where there is no Java."""
    scores: Mapping[str, float]
    """By metric: BLEU-1 to BLEU-4, ROUGE-L, CIDEr and, with Java, METEOR and SPICE."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Metrics that could not be computed, and why."""


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """How varied captions are, whatever they are of."""

    captions: int
    vocabulary: int
    """Different words."""
    distinct_1: float
    """Different words per word, in (0, 1]."""
    distinct_2: float
    """The same of pairs of words that stand beside each other."""
    distinct_3: float
    unique: float
    """Different captions per caption."""
    repeated: float
    """Share of captions that stand there more than once."""
    words: float
    """Words a caption, on average."""


def quality(texts: Sequence[str], references: Sequence[Sequence[str]], *, java: bool | None = None) -> Quality:
    """Compare captions with what people say.

    Args:
        texts: one a picture. references: for each picture one or more.
        java: whether to use it; None where there is one.

    Raises:
        EngineError: pycocoevalcap is not installed. DataError: no reference has a word.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu  # noqa: PLC0415  an extra
        from pycocoevalcap.cider.cider import Cider  # noqa: PLC0415
        from pycocoevalcap.rouge.rouge import Rouge  # noqa: PLC0415
    except ImportError as error:
        raise EngineError(
            "the caption metrics are not installed", where="pycocoevalcap", mend="pip install 'capfilt[eval]'"
        ) from error
    check_references(references)
    has_java = shutil.which("java") is not None if java is None else java
    said, wanted, has_java = _tokenized(texts, references, has_java)
    scores: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints as it goes
        for name, value in zip(
            ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"), Bleu(4).compute_score(wanted, said)[0], strict=True
        ):
            scores[name] = float(value)
        scores["ROUGE-L"] = float(Rouge().compute_score(wanted, said)[0])
        scores["CIDEr"] = float(Cider().compute_score(wanted, said)[0])
    left_out = {}
    for name, compute in (("METEOR", _meteor), ("SPICE", _spice)):
        if not has_java:
            left_out[name] = "needs a Java that works" if shutil.which("java") else "needs Java"
            continue
        try:
            scores[name] = compute(wanted, said)
        except (OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            left_out[name] = (str(error).strip().splitlines() or [type(error).__name__])[0]
    tokenizer = TOKENIZER_JAVA if has_java else TOKENIZER_PLAIN
    return Quality(captions=len(texts), tokenizer=tokenizer, scores=scores, left_out=left_out)


def check_references(references: Iterable[Iterable[str]]) -> None:
    """Passes where there is something to compare captions with.

    Raises:
        DataError: no reference of any picture has a word.
    """
    if not any(_WORD.search(text) for rows in references for text in rows):
        raise DataError("no reference has a word to compare captions with", mend="Name data whose texts say something.")


def _tokenized(texts: Sequence[str], references: Sequence[Sequence[str]], java: bool) -> tuple[Texts, Texts, bool]:
    """Both sides in words, and whether it was Java that found them: one that does not work is as good as none."""
    said = {i: [text] for i, text in enumerate(texts)}
    wanted = {i: list(rows) for i, rows in enumerate(references)}
    if java:
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            found = _ptb(said), _ptb(wanted)
            if all(_counts(a) == _counts(b) for a, b in zip(found, (said, wanted), strict=True)):
                return *found, True
    return _plain(said), _plain(wanted), False


def _counts(texts: Texts) -> dict[int, int]:
    return {i: len(rows) for i, rows in texts.items()}


def _plain(texts: Texts) -> Texts:
    return {i: [" ".join(_WORD.findall(text.lower())) for text in rows] for i, rows in texts.items()}


def _ptb(texts: Texts) -> Texts:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer  # noqa: PLC0415

    # A line break of another kind would shift all that follow.
    told = {i: [{"caption": " ".join(text.split()) or "."} for text in rows] for i, rows in texts.items()}
    found: Texts = PTBTokenizer().tokenize(told)
    return found


def _meteor(wanted: Texts, said: Texts) -> float:
    from pycocoevalcap.meteor.meteor import Meteor  # noqa: PLC0415

    meteor: Any = Meteor()
    try:
        return float(meteor.compute_score(wanted, said)[0])
    finally:
        if meteor.lock.locked():  # it keeps the lock when it fails, and its end would wait for it
            meteor.lock.release()
        for pipe in (meteor.meteor_p.stdin, meteor.meteor_p.stdout, meteor.meteor_p.stderr):
            with contextlib.suppress(OSError):  # what was still to be written to a program that has died
                pipe.close()


def _spice(wanted: Texts, said: Texts) -> float:
    from pycocoevalcap.spice import get_stanford_models as parser  # noqa: PLC0415
    from pycocoevalcap.spice.spice import Spice  # noqa: PLC0415

    # It would fetch hundreds of megabytes, unasked, into the environment.
    if not Path(parser.SPICEDIR, parser.SPICELIB, f"{parser.JAR}-models.jar").is_file():
        raise RuntimeError(f"needs its parser, once: python -m {parser.__name__}")
    with contextlib.redirect_stdout(io.StringIO()):
        return float(Spice().compute_score(wanted, said)[0])


def diversity(texts: Sequence[str]) -> Diversity:
    """How varied captions are; of none, all shares are 0."""
    rows = [clean(text).split() for text in texts]
    grams = {n: Counter(tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)) for n in (1, 2, 3)}
    share = {n: len(found) / max(1, found.total()) for n, found in grams.items()}
    counts = Counter(" ".join(row) for row in rows)
    return Diversity(
        captions=len(texts),
        vocabulary=len(grams[1]),
        distinct_1=share[1],
        distinct_2=share[2],
        distinct_3=share[3],
        unique=len(counts) / max(1, len(rows)),
        repeated=sum(count for count in counts.values() if count > 1) / max(1, len(rows)),
        words=sum(map(len, rows)) / max(1, len(rows)),
    )

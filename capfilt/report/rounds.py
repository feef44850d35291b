"""Several rounds of the loop side by side, as one HTML page or as lines of a terminal.

Knows the figures of ``round.json``; knows no run, reads no file and trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from capfilt.records import Origin
from capfilt.report.findings import Finding, Level
from capfilt.report.meanings import DROPS, PLURALS
from capfilt.report.rendering import page, percent

BLIND = 0.6
"""A filter with an AUC below this judges little better than chance."""

Figures = Mapping[str, Any]
Kind = Literal["count", "share", "number", "score"]
_BETTER = {True: "better", False: "worse"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of one round."""

    text: str
    """As it is read; a dash where the round has none."""
    share: float | None = None
    """Of what is a share, in [0, 1]: the length of its bar."""
    change: str = ""
    """Since the round before, with its sign; empty where nothing changed or there is nothing to compare."""
    tone: str = ""
    """``better``, ``worse``, or empty where neither can be said."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure over the rounds."""

    name: str
    meaning: str
    """One line on what it is; may be empty."""
    cells: tuple[Cell, ...]
    """One a round."""
    colour: str = ""
    """The origin whose colour its bars have; empty for none."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """Measures that belong together."""

    name: str
    meaning: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A measure: how it is called, where it stands in a round's figures, and how it is written."""

    name: str
    at: Callable[[Figures], float | None]
    kind: Kind
    meaning: str = ""
    rising: bool | None = None
    """Whether more is better; None where neither is."""
    colour: str = ""


def render(rounds: Sequence[Figures], *, links: Sequence[str] = ()) -> str:
    """The page: one self-contained HTML document that loads nothing.

    Args:
        rounds: the figures of each round, in order; 1 or more.
        links: for each round the address of its data set's own report, seen from the page; empty for none.
    """
    return page(
        "rounds.html",
        rounds=rounds,
        links=list(links) or [""] * len(rounds),
        sections=sections(rounds),
        heads=[row for section in sections(rounds) for row in section.rows if row.name in _HEADS],
        findings=list(_findings(rounds)),
    )


def sections(rounds: Sequence[Figures]) -> list[Section]:
    """All measures that any of the rounds has."""
    found = (
        ("The books", "What became of the rows of the web source.", _rows(_books(rounds), rounds)),
        ("The texts", "The share of texts that the round's filter removed.", _rows(_noise(), rounds)),
        ("Synthetic captions", "What the round's captioner wrote, before filtering.", _rows(_synthetic(), rounds)),
        ("Held-out pairs", _held_out_meaning(rounds), _rows(_held_out(rounds), rounds)),
        ("Training", "The sum of the losses at the first and at the last report.", _losses(rounds)),
    )
    all_of_them = [Section(name=name, meaning=meaning, rows=tuple(rows)) for name, meaning, rows in found]
    return [section for section in all_of_them if section.rows]


_HEADS = ("Pictures kept", "Web noise", "Synthetic noise", "CIDEr", "AUC by ITM", "Texts, R@1", "Pictures, R@1")
"""Measures that stand large at the head of the page."""


def _rows(lines: Sequence[_Line], rounds: Sequence[Figures]) -> Iterator[Row]:
    for line in lines:
        values = [line.at(figures) for figures in rounds]
        if any(value is not None for value in values):
            pairs = zip(values, [None, *values[:-1]], strict=True)
            cells = tuple(_cell(line, value, before) for value, before in pairs)
            yield Row(name=line.name, meaning=line.meaning, cells=cells, colour=line.colour)


def _books(rounds: Sequence[Figures]) -> list[_Line]:
    reasons = {reason for figures in rounds for reason in figures["data"]["totals"]["dropped"]}
    return [
        _Line(name="Rows in the source", at=_at("data", "totals", "rows"), kind="count"),
        *(_dropped(reason) for reason in [*DROPS, *sorted(reasons - set(DROPS))] if reason in reasons),
        _Line(
            name="Pictures kept",
            at=lambda f: _ratio(f, "kept"),
            kind="share",
            meaning="with at least one text that fits",
            colour="kept",
        ),
        _Line(
            name="Texts kept",
            at=lambda f: float(sum(f["data"]["totals"]["texts_kept"].values())),
            kind="count",
            meaning="web and synthetic: the new pairs that pretraining gets beside the human ones",
        ),
    ]


def _dropped(reason: str) -> _Line:
    _, name, meaning = DROPS.get(reason, ("", reason, ""))
    return _Line(
        name=f"− {name}",
        at=lambda f: float(f["data"]["totals"]["dropped"].get(reason, 0)),
        kind="count",
        meaning=meaning,
    )


def _ratio(figures: Figures, name: str) -> float | None:
    totals = figures["data"]["totals"]
    return totals[name] / totals["rows"] if totals["rows"] else None


def _noise() -> list[_Line]:
    return [
        _Line(
            name=f"{origin.capitalize()} noise",
            at=_at("data", "noise_ratio", origin),
            kind="share",
            meaning=f"of scored {PLURALS[origin]}",
            colour=origin,
        )
        for origin in (Origin.WEB, Origin.HUMAN, Origin.SYNTHETIC)
    ]


def _synthetic() -> list[_Line]:
    at = partial(_at, "data", "synthetic")
    return [
        _Line(name="Captions", at=at("texts"), kind="count"),
        _Line(name="Vocabulary", at=at("vocabulary"), kind="count", meaning="different words"),
        _Line(
            name="Different captions",
            at=at("unique"),
            kind="share",
            meaning="of all; the rest repeat another picture's",
            colour=Origin.SYNTHETIC,
        ),
        _Line(name="Median length", at=at("median_words"), kind="count", meaning="words"),
    ]


def _held_out_meaning(rounds: Sequence[Figures]) -> str:
    held = next((figures["held_out"] for figures in rounds if figures["held_out"]), None)
    if held is None:
        return ""
    return (
        f"{held['pictures']:,} pictures that nothing was trained on: the captioner's captions, the filter's verdict on "
        "true and shuffled captions, and retrieval by the pretrained model."
    )


def _held_out(rounds: Sequence[Figures]) -> list[_Line]:
    at = partial(_at, "held_out")
    names = dict.fromkeys(name for figures in rounds for name in at("captioning", "scores")(figures) or ())
    scores = [
        _Line(name=name, at=at("captioning", "scores", name), kind="score", meaning=_TIMES_100, rising=True)
        for name in names
        if name not in ("BLEU-1", "BLEU-2", "BLEU-3")
    ]
    words = _Line(
        name="Different words", at=at("captioning", "diversity", "vocabulary"), kind="count", meaning="in all captions"
    )
    verdicts = [
        _Line(name="AUC by ITM", at=at("filtering", "auc_itm"), kind="number", meaning="0.5 is chance", rising=True),
        _Line(name="AUC by ITC", at=at("filtering", "auc_itc"), kind="number", meaning="0.5 is chance", rising=True),
        _Line(name="True captions kept", at=at("filtering", "kept_true"), kind="share", rising=True, colour="kept"),
        _Line(name="False captions kept", at=at("filtering", "kept_false"), kind="share", rising=False, colour="web"),
    ]
    recalls = [
        _Line(
            name=f"{what}, R@{rank}",
            at=partial(_recall, which=which, rank=rank),
            kind="share",
            meaning=f"{asked} with a right answer among the first {rank}" if rank > 1 else f"{asked} answered first",
            rising=True,
            colour="images",
        )
        for what, which, asked in (("Texts", "text", "pictures"), ("Pictures", "image", "texts"))
        for rank in (1, 5, 10)
    ]
    return [*scores, words, *verdicts, *recalls]


_TIMES_100 = "times 100, as papers print it"


def _recall(figures: Figures, *, which: str, rank: int) -> float | None:
    """After ITM's ranking where there was one."""
    best = _at("held_out", "retrieval", which)(figures)
    share: float | None = _at("held_out", "retrieval", which if best else f"{which}_by_itc", f"at_{rank}")(figures)
    return share


def _losses(rounds: Sequence[Figures]) -> Iterator[Row]:
    for name, what in (("captioner", "LM"), ("filter", "ITC and ITM"), ("pretrain", "ITC, ITM and LM")):
        cells = []
        for figures in rounds:
            f = figures[name]
            text = "given" if "given" in f else f"{f['first_loss']:.2f} → {f['last_loss']:.2f}"
            cells.append(Cell(text=text, change="" if "given" in f else f"{f['steps']:,} steps"))
        yield Row(name=name.capitalize(), meaning=what, cells=tuple(cells))


def _at(*path: str) -> Callable[[Figures], Any]:
    """What stands at a path of names; None where one of them is not there."""

    def look(figures: Figures) -> Any:
        value: Any = figures
        for name in path:
            value = (value or {}).get(name)
        return value

    return look


def _cell(line: _Line, value: float | None, before: float | None) -> Cell:
    if value is None:
        return Cell(text="–")
    change, tone = "", ""
    if before is not None:
        difference = value - before
        change = _signed(difference, line.kind)
        if line.rising is not None and change:
            tone = _BETTER[(difference > 0) == line.rising]
    return Cell(
        text=_written(value, line.kind), share=value if line.kind == "share" else None, change=change, tone=tone
    )


def _written(value: float, kind: Kind) -> str:
    return {"count": f"{value:,.0f}", "share": percent(value), "number": f"{value:.3f}", "score": f"{100 * value:.1f}"}[
        kind
    ]


def _signed(difference: float, kind: Kind) -> str:
    scale, digits = {"count": (1, 0), "share": (100, 1), "number": (1, 3), "score": (100, 1)}[kind]
    size = f"{abs(scale * difference):,.{digits}f}"  # of shares and scores in points
    if not size.strip("0."):
        return ""
    return f"{'+' if difference > 0 else '−'}{size}"


def _findings(rounds: Sequence[Figures]) -> Iterator[Finding]:
    if not any(figures["held_out"] for figures in rounds):
        yield _note(
            "No held-out pairs were given, so nothing here says whether a round's models are better than those of the "
            "round before: noise ratios are the filter's own opinion."
        )
    if "given" in rounds[0]["captioner"]:
        yield _note(
            "Round 1 took its captioner and its filter as they were given; those of later rounds are finetuned."
        )
    for figures in rounds:
        auc = _at("held_out", "filtering", "auc_itm")(figures)
        if auc is not None and auc < BLIND:
            yield Finding(
                level=Level.BAD,
                text=f"The filter of round {figures['round']} hardly tells true captions from shuffled ones "
                f"(AUC by ITM {auc:.3f}), so what it kept and removed says little.",
            )
    for before, after in pairwise(rounds):
        yield from _compared(before, after)


def _compared(before: Figures, after: Figures) -> Iterator[Finding]:
    """What became better and what worse on held-out pairs, in one sentence each."""
    told: dict[bool, list[str]] = {True: [], False: []}
    for name, at, kind in _COMPARED:
        old, new = at(before), at(after)
        if old is not None and new is not None and old != new:
            told[new > old].append(f"{name} ({_written(old, kind)} to {_written(new, kind)})")
    for better, names in told.items():
        if names:
            text = f"Round {after['round']} is {_BETTER[better]} than round {before['round']} in {_listed(names)}."
            yield Finding(level=Level.GOOD if better else Level.NOTE, text=text)


_COMPARED: tuple[tuple[str, Callable[[Figures], float | None], Kind], ...] = (
    ("CIDEr", _at("held_out", "captioning", "scores", "CIDEr"), "score"),
    ("the filter's AUC by ITM", _at("held_out", "filtering", "auc_itm"), "number"),
    ("R@1 of texts", partial(_recall, which="text", rank=1), "share"),
    ("R@1 of pictures", partial(_recall, which="image", rank=1), "share"),
)
"""What the findings compare; more is better in each."""


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _note(text: str) -> Finding:
    return Finding(level=Level.NOTE, text=text)

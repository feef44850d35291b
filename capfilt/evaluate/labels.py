"""How a filter does on pairs that a person has judged: the noise that is really there, not shuffled captions.

Knows a table of judgements, models and pictures; judges nothing by itself.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from capfilt.captions import clean
from capfilt.errors import DataError, ModelError
from capfilt.evaluate.filtering import RULE, batches
from capfilt.evaluate.references import Referenced, decode
from capfilt.inputs import open_read
from capfilt.roles import Filter, Score

Verdict = Literal["right", "wrong", "unsure"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
RESAMPLES = 2000
"""Of the bootstrap."""
_MOST_BYTES = 64 << 20
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a person says of one picture and one text."""

    id: str
    """The picture's content id in shards of ours, else its key."""
    text: str
    label: Verdict
    set: str = ""
    """Pairs of one set are measured together."""
    kind: str = ""
    """Of the mistake, in the person's own word, where the text is wrong."""
    again: Verdict | None = None
    """The same person's label at a second look, if there was one."""


@dataclass(frozen=True)
class Scored:
    """A judged pair with the filter's scores."""

    label: Label
    score: Score

    @property
    def decisive(self) -> float:
        """P(match), or the cosine of a filter that knows no such probability."""
        return self.score.itc if self.score.itm is None else self.score.itm


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95% interval from a bootstrap."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a threshold does to the judged pairs."""

    threshold: float
    """Of P(match), or of the cosine where the filter knows no P(match)."""
    precision: Estimate | None
    """Share of what is kept that is right; None where nothing is kept."""
    recall: Estimate | None
    """Share of the right that is kept; None where nothing is right."""
    kept_wrong: Estimate | None
    """Share of the wrong that is kept; None where nothing is wrong."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Wrong texts of one kind against all the right ones."""

    wrong: int
    auc: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One person's two looks at the same pairs."""

    pairs: int
    same: float
    """Share with the same label twice, in [0, 1]."""
    kappa: float | None
    """Cohen's: 0 is chance, 1 is always the same; None where one label is all there is."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The filter on one set of judged pairs."""

    right: int
    wrong: int
    unsure: int
    """Left out of all figures below."""
    right_texts: int
    """Different texts, cleaned and without numbers."""
    wrong_texts: int
    auc_itm: Estimate | None
    """Probability that a right pair's P(match) is above a wrong one's; None where the filter knows no P(match) or
    one side is empty."""
    auc_itc: Estimate | None
    """The same of the cosine."""
    auc_each_text: Estimate | None
    """As ``auc_itm`` (by the cosine where there is no P(match)), but each different text counts once, however many
    pictures bear it."""
    kinds: dict[str, Kind]
    """By the kind of the mistake, the decisive score."""
    rule: Kept | None
    """At the paper's P(match) 0.5."""
    thresholds: list[Kept]
    agreement: Agreement | None
    """None if nothing was judged twice."""


def read_labels(file: str) -> list[Label]:
    """The judgements of a CSV with the columns ``id``, ``text``, ``label``, and if wanted ``set``, ``kind``, ``again``.

    Raises:
        SourceError: the file is not there. DataError: a column is missing, or a line says what it must not.
    """
    with open_read(file) as f:
        data = f.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise DataError("too large for a table of labels", where=file, mend="Name the CSV of the judgements.")
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        if missing := {"id", "text", "label"} - set(rows.fieldnames or ()):
            raise DataError(
                f"no column {', '.join(sorted(missing))}", where=file, mend="It needs the columns id, text and label."
            )
        found = [_label(row, f"{file}, line {rows.line_num}") for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"no CSV in UTF-8: {error}", where=file, mend="Save it as such.") from error
    if not found:
        raise DataError("no labels in it", where=file, mend="Judge some pairs: a line for each.")
    return found


def _label(row: dict[str, str | None], where: str) -> Label:
    cells = {name: (row.get(name) or "").strip() for name in ("id", "text", "label", "set", "kind", "again")}
    if not cells["id"] or not clean(cells["text"]):
        raise DataError("a pair without an id or a text", where=where, mend="Give both, or take the line out.")
    for name in ("label", "again"):
        if cells[name] not in VERDICTS and not (name == "again" and not cells[name]):
            raise DataError(f"{name}: {cells[name]!r} is no label", where=where, mend=f"Say {', '.join(VERDICTS)}.")
    return Label(
        id=cells["id"],
        text=cells["text"],
        label=cast(Verdict, cells["label"]),
        set=cells["set"],
        kind=cells["kind"],
        again=cast(Verdict, cells["again"]) if cells["again"] else None,
    )


def scored(
    judge: Filter, items: Iterable[Referenced], labels: Sequence[Label], *, batch_size: int = 64
) -> list[Scored]:
    """The filter's scores of the judged pairs whose pictures are there, in the order of the labels.

    Args:
        judge: the filter.
        items: pictures; found by their content id, or by their key.
        labels: judgements; those of pictures that are not there are passed over.
        batch_size: pictures at once; fewer where they have many texts.

    Raises:
        DataError: no picture of the labels is there. ModelError: a score is no number.
    """
    wanted: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        wanted.setdefault(label.id, []).append(place)
    pairs: list[tuple[Referenced, list[str]]] = []
    places: list[list[int]] = []
    for item in items:
        found = wanted.pop(item.id, None) or wanted.pop(item.key, None)
        if found:
            pairs.append((item, [labels[place].text for place in found]))
            places.append(found)
    if not pairs:
        raise _none_there()
    scores: dict[int, Score] = {}
    rows = iter(places)
    for part in batches(pairs, batch_size):
        for row in judge.score([decode(item) for item, _ in part], [texts for _, texts in part]):
            scores |= dict(zip(next(rows), row, strict=True))
    if not all(math.isfinite(value) for s in scores.values() for value in (s.itc, s.itm or 0.0)):
        raise ModelError("the filter's scores are not numbers", where="filter", mend="Its weights are damaged.")
    return [Scored(labels[place], scores[place]) for place in sorted(scores)]


def of_labels(items: Iterable[Referenced], labels: Sequence[Label]) -> Iterator[Referenced]:
    """The pictures that someone judged, of any number.

    Raises:
        DataError: none of them is there.
    """
    wanted, found = {label.id for label in labels}, False
    for item in items:
        if item.id in wanted or item.key in wanted:
            found = True
            yield item
    if not found:
        raise _none_there()


def _none_there() -> DataError:
    return DataError(
        "none of the labels' pictures is there",
        mend="Name the data that was judged (the column id holds its ids, or its keys), and all of it: see --limit.",
    )


def labelled(pairs: Sequence[Scored], thresholds: Sequence[float], *, seed: int = 0) -> dict[str, Labelled]:
    """Figures of each set, by its name, in the order of their first pairs.

    Intervals are from a bootstrap that draws texts, not pairs: pictures with one title are judged alike, by the
    person and by the filter, and are no independent witnesses. Texts that differ in numbers only are one.
    """
    sets: dict[str, list[Scored]] = {}
    for pair in pairs:
        sets.setdefault(pair.label.set, []).append(pair)
    return {name: _figures(own, thresholds, seed) for name, own in sets.items()}


def _figures(pairs: Sequence[Scored], thresholds: Sequence[float], seed: int) -> Labelled:
    sure = [pair for pair in pairs if pair.label.label != "unsure"]
    right, wrong = ([pair for pair in sure if pair.label.label == verdict] for verdict in ("right", "wrong"))
    draw = _Draw(sure, seed)
    matching = all(pair.score.itm is not None for pair in sure)
    kinds = sorted({pair.label.kind for pair in wrong} - {""})
    by_kind = {kind: [pair for pair in wrong if pair.label.kind == kind] for kind in kinds}
    return Labelled(
        right=len(right),
        wrong=len(wrong),
        unsure=len(pairs) - len(sure),
        right_texts=len({_one_text(pair) for pair in right}),
        wrong_texts=len({_one_text(pair) for pair in wrong}),
        auc_itm=draw.auc(right, wrong, [pair.decisive for pair in sure]) if matching else None,
        auc_itc=draw.auc(right, wrong, [pair.score.itc for pair in sure]),
        auc_each_text=draw.auc(right, wrong, [pair.decisive for pair in sure], each_text=True),
        kinds={
            kind: Kind(wrong=len(own), auc=draw.auc(right, own, [pair.decisive for pair in sure]))
            for kind, own in by_kind.items()
        },
        rule=draw.kept(RULE) if matching else None,
        thresholds=[draw.kept(threshold) for threshold in thresholds],
        agreement=_agreement([pair.label for pair in pairs]),
    )


def _one_text(pair: Scored) -> str:
    words = clean(pair.label.text).split(" ")
    return " ".join(word for word in words if not any(c.isdigit() for c in word)) or " ".join(words)


class _Draw:
    """Pairs, how often each bootstrap sample has each of them, and figures over all samples at once.

    Row 0 of the weights is what there is, each pair once; the other rows are the samples.
    """

    def __init__(self, pairs: Sequence[Scored], seed: int) -> None:
        self.place = {id(pair): i for i, pair in enumerate(pairs)}
        self.right = np.array([pair.label.label == "right" for pair in pairs], bool)
        self.decisive = np.array([pair.decisive for pair in pairs], np.float64)
        texts, self.text, counts = np.unique(
            np.array([_one_text(pair) for pair in pairs], object).astype(str), return_inverse=True, return_counts=True
        )
        self.share = 1 / counts[self.text]
        drawn = np.random.default_rng(seed).integers(len(texts), size=(RESAMPLES, len(texts))) if pairs else None
        times = np.zeros((RESAMPLES, len(texts)))
        if drawn is not None:
            np.add.at(times, (np.arange(RESAMPLES)[:, None], drawn), 1)
        self.weight: _Floats = np.vstack([np.ones(len(pairs)), times[:, self.text]])

    def auc(
        self, right: Sequence[Scored], wrong: Sequence[Scored], values: Sequence[float], *, each_text: bool = False
    ) -> Estimate | None:
        """Of the pairs named, by a value of each pair of the draw."""
        if not right or not wrong:
            return None
        good, bad = ([self.place[id(pair)] for pair in own] for own in (right, wrong))
        value = np.asarray(values)
        above = np.sign(value[good][:, None] - value[bad]) / 2 + 0.5
        weight = self.weight * self.share if each_text else self.weight
        return _estimate(
            ((weight[:, good] @ above) * weight[:, bad]).sum(1),
            weight[:, good].sum(1) * weight[:, bad].sum(1),
        )

    def kept(self, threshold: float) -> Kept:
        """What has a score at the threshold or above."""
        keep = self.decisive >= threshold
        kept, all_right, all_wrong = (self.weight[:, mask].sum(1) for mask in (keep, self.right, ~self.right))
        true, false = (self.weight[:, keep & mask].sum(1) for mask in (self.right, ~self.right))
        return Kept(
            threshold=threshold,
            precision=_estimate(true, kept),
            recall=_estimate(true, all_right),
            kept_wrong=_estimate(false, all_wrong),
        )


def _estimate(part: _Floats, whole: _Floats) -> Estimate | None:
    """A share of what there is, with the interval of the samples in which there is a whole."""
    if not whole[0]:
        return None
    drawn = part[1:][whole[1:] > 0] / whole[1:][whole[1:] > 0]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value=float(part[0] / whole[0]), low=float(low), high=float(high))


def _agreement(labels: Sequence[Label]) -> Agreement | None:
    twice = [(label.label, label.again) for label in labels if label.again is not None]
    if not twice:
        return None
    same = sum(first == second for first, second in twice) / len(twice)
    shares = [[sum(pair[i] == verdict for pair in twice) / len(twice) for verdict in VERDICTS] for i in (0, 1)]
    chance = sum(first * second for first, second in zip(*shares, strict=True))
    return Agreement(pairs=len(twice), same=same, kappa=None if chance == 1 else (same - chance) / (1 - chance))

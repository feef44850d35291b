"""All measures that a model can be put to, in one go: captioning, filtering, retrieval, and a person's labels.

Joins the room's other modules and opens models; knows no command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from capfilt.catalog import MODEL_FILE
from capfilt.errors import DataError, DestinationError, EngineError, ModelError
from capfilt.evaluate.captioning import write
from capfilt.evaluate.filtering import judged
from capfilt.evaluate.labels import labelled, read_labels, scored
from capfilt.evaluate.quality import check_references, diversity, quality
from capfilt.evaluate.references import Referenced
from capfilt.evaluate.retrieval import retrieve
from capfilt.med.config import MEDConfig
from capfilt.med.model import MED
from capfilt.peers.opening import open_captioner, open_filter
from capfilt.roles import Score, Writing

Measure = Literal["captioning", "filtering", "retrieval", "labels"]
MEASURES: tuple[Measure, ...] = ("captioning", "filtering", "retrieval")
"""What needs nothing but the data; ``labels`` needs a table of judgements too."""
THRESHOLDS = tuple(i / 20 for i in range(20))
"""At which the filter's precision and recall are told."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be measured, and how."""

    measures: tuple[Measure, ...] | None = None
    """None takes all that the model can. ``labels`` is measured wherever a table of labels is named."""
    labels: str | None = None
    """A table of judged pairs, as ``labels.read_labels`` takes it."""
    writing: Writing = field(default_factory=lambda: Writing(beams=3))
    """How captions are written; the paper evaluates beam search with 3 beams."""
    prompt: str | None = None
    """What another captioner than a MED is asked."""
    rerank: int = 256
    """Candidates of a query that ITM ranks again, 0 for none."""
    batch_size: int = 64
    """Pictures at once."""
    device: str = "cpu"
    seed: int = 0
    """Of the false captions that the filter is tried with."""


def able(folder: Path) -> tuple[Measure, ...]:
    """What a model folder can be measured on: a MED by what it holds, another model by what it is tried as."""
    if not (folder / MODEL_FILE).is_file():
        return ("captioning", "filtering")
    holds = MEDConfig.load(folder).holds
    return {"both": MEASURES, "captioner": ("captioning",), "filter": ("filtering", "retrieval")}[holds]


def evaluate(
    folder: Path,
    items: Sequence[Referenced],
    asked: Asked,
    *,
    on_measure: Callable[[Measure], None] | None = None,
    on_told: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Figures by measure, as plain values; ``captions`` and ``judgements`` stand beside them if there are any.

    Args:
        folder: of the model.
        items: what it is measured on.
        asked: what is measured.
        on_measure: told which measure begins.
        on_told: given all figures there are after each measure; ``unfinished`` names the measures to come.

    Raises:
        DataError: there is nothing to measure on. ModelError: the model cannot do what is asked.
        EngineError: the caption metrics are not installed.
    """
    if not items:
        raise DataError("no picture with a text to measure on", mend="Name shards or annotations with captions.")
    measures = _measures(folder, asked)
    told: dict[str, Any] = {"pictures": len(items), "texts": sum(len(item.texts) for item in items)}
    for at, measure in enumerate(measures, 1):
        if on_measure:
            on_measure(measure)
        told |= {**_MEASURE[measure](folder, items, asked), "unfinished": list(measures[at:])}
        if on_told:
            on_told(told)
    return told


def _measures(folder: Path, asked: Asked) -> tuple[Measure, ...]:
    can = able(folder)
    if asked.labels is not None and "filtering" not in can:
        raise ModelError("this model judges nothing", where=str(folder), mend="Name a filter, or leave the labels out.")
    if asked.labels is None and "labels" in (asked.measures or ()):
        raise DataError("no labels to measure on", mend="Name a table of judged pairs: --labels FILE.")
    if not (folder / MODEL_FILE).is_file() and asked.measures is None:
        raise ModelError(
            "a model of others does not say what it can do",
            where=str(folder),
            mend="Say --measure captioning or filtering.",
        )
    if wrong := [measure for measure in asked.measures or () if measure not in (*can, "labels")]:
        raise ModelError(
            f"this model cannot do {', '.join(wrong)}", where=str(folder), mend=f"It can do {', '.join(can)}."
        )
    measures = asked.measures or can
    return measures if asked.labels is None or "labels" in measures else (*measures, "labels")


def _captioning(folder: Path, items: Sequence[Referenced], asked: Asked) -> dict[str, Any]:
    check_references(item.texts for item in items)  # before captions are written, which may take hours
    captioner = open_captioner(folder, asked.writing, prompt=asked.prompt, device=asked.device, dtype=torch.float32)
    texts = write(captioner, items, batch_size=asked.batch_size)
    try:
        told = asdict(quality(texts, [item.texts for item in items]))
    except EngineError as error:
        told = {"scores": {}, "left_out": {"all": f"{error.what}: {error.mend}"}}
    return {
        "captioning": {"writing": asdict(asked.writing), **told, "diversity": asdict(diversity(texts))},
        "captions": [{"key": item.key, "caption": text} for item, text in zip(items, texts, strict=True)],
    }


def _filtering(folder: Path, items: Sequence[Referenced], asked: Asked) -> dict[str, Any]:
    found = judged(
        open_filter(folder, device=asked.device, dtype=torch.float32),
        items,
        seed=asked.seed,
        batch_size=asked.batch_size,
    )
    rows = [asdict(row) for row in found.operating(_thresholds(found.true[0]))]
    return {"filtering": {**asdict(found.separation()), "histogram": asdict(found.histogram()), "thresholds": rows}}


def _thresholds(score: Score) -> tuple[float, ...]:
    """Of P(match), or of the cosine where the filter knows no P(match)."""
    return THRESHOLDS if score.itm is not None else tuple(2 * t - 1 for t in THRESHOLDS)


def _labels(folder: Path, items: Sequence[Referenced], asked: Asked) -> dict[str, Any]:
    table = read_labels(asked.labels or "")
    judge = open_filter(folder, device=asked.device, dtype=torch.float32)
    found = scored(judge, items, table, batch_size=asked.batch_size)
    sets = labelled(found, _thresholds(found[0].score), seed=asked.seed)
    return {
        "labels": {"not_found": len(table) - len(found), "sets": {name: asdict(own) for name, own in sets.items()}},
        "judgements": [{**asdict(pair.label), **asdict(pair.score)} for pair in found],
    }


def _retrieval(folder: Path, items: Sequence[Referenced], asked: Asked) -> dict[str, Any]:
    model = MED.load(folder, device=asked.device)
    # Thousands of pictures' tokens: half of the memory, and no difference that a rank would show.
    store = torch.float16 if model.device.type == "cuda" else None
    found = retrieve(model, items, rerank=asked.rerank, batch_size=asked.batch_size, store=store)
    return {"retrieval": asdict(found)}


_MEASURE: dict[Measure, Callable[[Path, Sequence[Referenced], Asked], dict[str, Any]]] = {
    "captioning": _captioning,
    "filtering": _filtering,
    "retrieval": _retrieval,
    "labels": _labels,
}


ROWS = ("captions", "judgements")
"""What is told row by row, and gets files of its own."""


class Results:
    """A folder of figures that grows measure by measure.

    Holds ``evaluation.json``, ``captions.jsonl`` if there are captions, ``judgements.jsonl`` if there are labels, and
    for a filter the plots ``scores.png`` and ``thresholds.png`` where matplotlib is installed. What an earlier
    evaluation left there under these names goes when the first figures of this one come, so that figures of two are
    never side by side.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.files: list[Path] = []
        """Written so far."""

    def save(self, told: Mapping[str, Any]) -> None:
        """Write what is new; each file appears whole, ``evaluation.json`` last.

        Args:
            told: as :func:`evaluate` tells it after a measure.

        Raises:
            DestinationError: a file cannot be written.
        """
        try:
            if not self.files:
                self.out.mkdir(parents=True, exist_ok=True)
                for name in ("evaluation.json", *(f"{name}.jsonl" for name in ROWS), *_PLOTS):
                    (self.out / name).unlink(missing_ok=True)
            for name in ROWS:
                if name in told:
                    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told[name])
                    self._add(f"{name}.jsonl", partial(_write_text, text))
            if "filtering" in told:
                for name, draw in _PLOTS.items():
                    if figure := _figure(draw, told["filtering"]):
                        self._add(name, partial(figure.savefig, dpi=120, format="png"))
            text = json.dumps({name: value for name, value in told.items() if name not in ROWS}, indent=1) + "\n"
            self._add("evaluation.json", partial(_write_text, text), again=True)
        except OSError as error:
            raise DestinationError(
                f"cannot be written to: {error}", where=str(self.out), mend="Name another folder, or make room."
            ) from error

    def _add(self, name: str, write: Callable[[Path], object], *, again: bool = False) -> None:
        file = self.out / name
        if file in self.files and not again:
            return
        temporary = file.with_name(f".{name}")
        write(temporary)
        temporary.replace(file)
        if file not in self.files:
            self.files.append(file)


def _write_text(text: str, file: Path) -> None:
    file.write_text(text, encoding="utf-8")


def _figure(draw: Callable[[Any, dict[str, Any]], None], told: dict[str, Any]) -> Any:
    """A figure of matplotlib's, or None where that is not installed."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra
    except ImportError:
        return None
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    draw(axes, told)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize="small", frameon=False)
    return figure


def draw_thresholds(axes: Any, told: Mapping[str, Any]) -> None:
    """What each threshold keeps, from the figures of filtering."""
    rows = told["thresholds"]
    at = [row["threshold"] for row in rows]
    axes.plot(at, [row["recall"] for row in rows], label="true kept (recall)")
    axes.plot(at, [row["kept_false"] for row in rows], label="false kept")
    axes.plot(at, [row["precision"] for row in rows], label="true among kept (precision)", linestyle="--")
    axes.set(xlabel=f"threshold of {_score(told)}", ylabel="share", ylim=(0, 1.02), xlim=(at[0], at[-1]))


def draw_scores(axes: Any, told: Mapping[str, Any]) -> None:
    """How many true and false captions have which score, from the figures of filtering."""
    found = told["histogram"]
    for side in ("true", "false"):
        axes.stairs(found[side], found["edges"], fill=True, alpha=0.5, label=f"{side} captions")
    axes.set(xlabel=_score(told), ylabel="captions", xlim=(found["edges"][0], found["edges"][-1]))


def _score(told: Mapping[str, Any]) -> str:
    return "cosine" if told["auc_itm"] is None else "P(match)"


_PLOTS: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "scores.png": draw_scores,
    "thresholds.png": draw_thresholds,
}

"""All measures that a model can be put to, in one go: captioning, filtering, retrieval.

Joins the room's other modules and opens models; knows no command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from capfilt.catalog import MODEL_FILE
from capfilt.errors import DataError, EngineError, ModelError
from capfilt.evaluate.captioning import write
from capfilt.evaluate.filtering import judged
from capfilt.evaluate.quality import diversity, quality
from capfilt.evaluate.references import Referenced
from capfilt.evaluate.retrieval import retrieve
from capfilt.med.config import MEDConfig
from capfilt.med.model import MED
from capfilt.peers.opening import open_captioner, open_filter
from capfilt.roles import Writing

Measure = Literal["captioning", "filtering", "retrieval"]
MEASURES: tuple[Measure, ...] = ("captioning", "filtering", "retrieval")
THRESHOLDS = tuple(i / 20 for i in range(20))
"""At which the filter's precision and recall are told."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be measured, and how."""

    measures: tuple[Measure, ...] | None = None
    """None takes all that the model can."""
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
    folder: Path, items: Sequence[Referenced], asked: Asked, *, on_measure: Callable[[Measure], None] | None = None
) -> dict[str, Any]:
    """Figures by measure, as plain values; ``captions`` stands beside them if captions were written.

    Raises:
        DataError: there is nothing to measure on. ModelError: the model cannot do what is asked.
        EngineError: the caption metrics are not installed.
    """
    if not items:
        raise DataError("no picture with a text to measure on", mend="Name shards or annotations with captions.")
    measures = _measures(folder, asked)
    told: dict[str, Any] = {"pictures": len(items), "texts": sum(len(item.texts) for item in items)}
    for measure in measures:
        if on_measure:
            on_measure(measure)
        told |= _MEASURE[measure](folder, items, asked)
    return told


def _measures(folder: Path, asked: Asked) -> tuple[Measure, ...]:
    can = able(folder)
    if not (folder / MODEL_FILE).is_file() and asked.measures is None:
        raise ModelError(
            "a model of others does not say what it can do",
            where=str(folder),
            mend="Say --measure captioning or filtering.",
        )
    if wrong := [measure for measure in asked.measures or () if measure not in can]:
        raise ModelError(
            f"this model cannot do {', '.join(wrong)}", where=str(folder), mend=f"It can do {', '.join(can)}."
        )
    return asked.measures or can


def _captioning(folder: Path, items: Sequence[Referenced], asked: Asked) -> dict[str, Any]:
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
    thresholds = THRESHOLDS if found.true[0].itm is not None else tuple(2 * t - 1 for t in THRESHOLDS)
    rows = [asdict(row) for row in found.operating(thresholds)]
    return {"filtering": {**asdict(found.separation()), "thresholds": rows}}


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
}


def save(told: dict[str, Any], out: Path) -> list[Path]:
    """Write ``evaluation.json``, ``captions.jsonl`` if there are captions, and ``thresholds.png`` where matplotlib is
    installed; returns what was written."""
    out.mkdir(parents=True, exist_ok=True)
    figures = {name: value for name, value in told.items() if name != "captions"}
    written = [_put(out / "evaluation.json", json.dumps(figures, indent=1) + "\n")]
    if "captions" in told:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told["captions"])
        written.append(_put(out / "captions.jsonl", lines))
    if "filtering" in told and _plot(told["filtering"]["thresholds"], out / "thresholds.png"):
        written.append(out / "thresholds.png")
    return written


def _put(file: Path, text: str) -> Path:
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(text, encoding="utf-8")
    return temporary.replace(file)


def _plot(rows: list[dict[str, Any]], file: Path) -> bool:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an extra
    except ImportError:
        return False
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    at = [row["threshold"] for row in rows]
    axes.plot(at, [row["recall"] for row in rows], label="true kept (recall)")
    axes.plot(at, [row["kept_false"] for row in rows], label="false kept")
    axes.plot(at, [row["precision"] for row in rows], label="true among kept (precision)", linestyle="--")
    axes.set(xlabel="threshold", ylabel="share", ylim=(0, 1.02), xlim=(at[0], at[-1]))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize="small", frameon=False)
    figure.savefig(file, dpi=120)
    return True

"""Measuring and reading from Python: what a model is worth, and what a data set holds. Knows no command line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from capfilt.catalog import model_folder
from capfilt.evaluate import references
from capfilt.evaluate.run import Asked, Measure
from capfilt.evaluate.run import evaluate as measure
from capfilt.med.device import device_of
from capfilt.roles import Writing


def evaluate(
    model: str | Path,
    data: str | Sequence[str],
    *,
    measures: Sequence[Measure] | None = None,
    decoding: Literal["beam", "nucleus", "greedy"] = "beam",
    images: str | None = None,
    split: str | None = None,
    limit: int = 5000,
    batch_size: int = 64,
    device: str = "auto",
) -> dict[str, Any]:
    """Measures a model on pictures with references.

    >>> import capfilt
    >>> found = capfilt.evaluate("med-mini/filter", "clean", measures=["filtering"])
    >>> 0 <= found["filtering"]["auc_itm"] <= 1
    True

    Args:
        model: a name of ``capfilt models``, or a model folder.
        data: shards, data sets, or ``.json`` annotations (COCO, Karpathy, NoCaps, BLIP).
        measures: of ``captioning``, ``filtering`` and ``retrieval``; None takes all that the model can.
        decoding: how captions are written; beam search has three beams.
        images: the folder that file names in annotations start from.
        split: of Karpathy's annotations: ``test``, ``val`` or ``train``.
        limit: so many pictures at most, 1 or more.
        batch_size: pictures at once.
        device: ``auto`` takes a GPU where there is one.

    Returns:
        Figures by measure, as plain values (docs/evaluation.md); ``captions`` beside them if captions were written.

    Raises:
        CapfiltError: there is no such model or data, or the model cannot do what is asked.
    """
    asked = Asked(
        measures=None if measures is None else tuple(measures),
        writing=Writing(beams={"beam": 3, "greedy": 1, "nucleus": None}[decoding]),
        batch_size=batch_size,
        device=device_of(device),
    )
    entries = [data] if isinstance(data, str) else data
    items = list(islice(references.read(entries, images=images, split=split), limit))
    return measure(model_folder(str(model)), items, asked)

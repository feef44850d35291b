"""Human pairs, noisy web pairs and held-out pairs for the tables, cut from what ``capfilt corpora build`` wrote.

    OUT/human-00000.tar      pictures of some concepts with their captions
    OUT/web-00000.tar        other pictures of these, some with another one's caption, and titled clip art
    OUT/drawings-00000.tar   held-out pictures of the same concepts
    OUT/concepts-00000.tar   pictures of concepts never trained on
    OUT/material.json        counts; written last

Which picture goes where depends on its key alone. Knows shards; knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from capfilt.corpora.sides import chance
from capfilt.errors import DataError
from capfilt.evaluate.filtering import shuffled
from capfilt.inputs import expand
from capfilt.paper.config import SplitConfig
from capfilt.records import Caption, Origin
from capfilt.shards.read import samples
from capfilt.shards.sample import Sample
from capfilt.shards.tar import write_tar
from capfilt.storage import Store

HELD_OUT = {"drawings": "", "concepts": ", new concepts"}
"""The sets that are measured on, new drawings of trained concepts and concepts never seen, and how their figures' names
end."""


def cut(corpora: Path, config: SplitConfig, out: Path, *, pictures: int) -> dict[str, Any]:
    """Write the sets and return their counts; what is there already is told.

    Args:
        corpora: shards ``human-train-*``, ``web-train-*``, ``heldout-picture-*`` and ``heldout-seen-style-*``.
        config: how they are cut.
        out: the folder of the sets.
        pictures: of each held-out set at most so many.

    Raises:
        SourceError: shards are missing. DataError: a set would be empty.
    """
    store = Store(str(out))
    if store.exists("material.json"):
        told: dict[str, Any] = store.read_json("material.json")
        return told
    found = [s for s in _read(corpora, "human-train-*.tar") if _taken(s, config.concepts_one_in)]
    human = [s for s in found if chance("paper human", s.key) < config.human_share]
    chosen = {s.key for s in human}
    rest = [s for s in found if s.key not in chosen]
    clips = [
        s
        for s in (_read(corpora, "web-train-*.tar") if config.clipart_one_in else ())
        if chance("paper clip art", s.key) * config.clipart_one_in < 1
    ]
    simulated, wrong = _simulated(rest, config.wrong_share)
    web = [*simulated, *clips]
    random.Random(0).shuffle(web)
    drawings = [s for s in _read(corpora, "heldout-picture-*.tar") if _taken(s, config.concepts_one_in)]
    concepts = list(_read(corpora, "heldout-seen-style-*.tar"))
    sets = {"human": human, "web": web, "drawings": drawings[:pictures], "concepts": concepts[:pictures]}
    for name, own in sets.items():
        if len(own) < 2:
            raise DataError(f"no pictures for {name}", where=str(corpora), mend="Take more concepts (split).")
        store.write(f"{name}-00000.tar", _tar(own))
    told = {
        "split": asdict(config),
        "pictures": {name: len(own) for name, own in sets.items()},
        "captions": {name: sum(len(s.captions) for s in own) for name, own in sets.items()},
        "trained concepts": len({s.meta["concept"] for s in found}),
        "web": {"simulated": len(simulated), "of them wrong": wrong, "clip art": len(clips)},
    }
    store.write_json("material.json", told)
    return told


def _read(corpora: Path, files: str) -> Iterator[Sample]:
    return samples(expand(str(corpora / files)))


def _taken(sample: Sample, one_in: int) -> bool:
    return chance("paper concept", str(sample.meta.get("concept", ""))) * one_in < 1


def _simulated(rest: Sequence[Sample], share: float) -> tuple[list[Sample], int]:
    """Each with its first caption as alt text, or with that of another picture of those that are to be wrong."""
    wrong = [s for s in rest if chance("paper wrong", s.key) < share]
    texts = shuffled([s.captions[0]["text"] for s in wrong], 0) if len(wrong) > 1 else []
    others = dict(zip((s.key for s in wrong), texts, strict=True)) if texts else {}
    made = [
        replace(
            s, captions=[_alt(others.get(s.key, s.captions[0]["text"]))], meta={**s.meta, "right": s.key not in others}
        )
        for s in rest
    ]
    return made, len(others)


def _alt(text: str) -> Caption:
    return {"text": text, "origin": Origin.WEB, "itm": None, "itc": None, "kept": True}


def _tar(own: Sequence[Sample]) -> bytes:
    file = BytesIO()
    write_tar(file, own)
    return file.getvalue()

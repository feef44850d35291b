"""What limits med-mini's filter on concepts never trained on: is it their words?

    python -P benchmarks/limits.py --shards DIR [--limit 500] [--out FILE]
    python -P benchmarks/limits.py --page

DIR is what `capfilt corpora build` wrote. Each picture's own text and another's are scored, as `capfilt evaluate
--measure filtering` does it; the AUC is then that of the texts all, some or none of whose words (but articles and
prepositions) stand in a text of the human training pairs, each against all false ones. About a minute of one core. The
second command puts the committed figures into docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from capfilt.captions import clean
from capfilt.catalog import model_folder
from capfilt.embedded import HELD_OUT, NAME
from capfilt.evaluate.filtering import auc, shuffled
from capfilt.evaluate.references import decode, read
from capfilt.med.filter import MEDFilter

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "limits.json"
PAGE = ROOT / "docs" / "results.md"
SETS = [name for name in HELD_OUT if not name.startswith("clip art")]
SMALL = frozenset(["a", "an", "and", "in", "of", "on", "the", "to", "with"])
GROUPS: dict[str, Callable[[float], bool]] = {
    "all": lambda share: share == 1,
    "some": lambda share: 0 < share < 1,
    "none": lambda share: share == 0,
}
BATCH = 64


def words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", clean(text).lower()) if word not in SMALL]


def measure(shards: Path, limit: int) -> dict[str, Any]:
    sets = [str(shards / f"{name}-train-*.tar") for name in ("human", "icons")]
    trained = {word for item in read(sets) for text in item.texts for word in words(text)}
    model = MEDFilter.load(model_folder(f"{NAME}/filter"), dtype=torch.float32)
    sets = {}
    for name in SETS:
        items = list(islice(read([str(shards / HELD_OUT[name])]), limit))
        own = [item.texts[0] for item in items]
        pairs = [[clean(one), clean(other)] for one, other in zip(own, shuffled(own, 0), strict=True)]
        scores = []
        for at in range(0, len(items), BATCH):
            scores += model.score([decode(item) for item in items[at : at + BATCH]], pairs[at : at + BATCH])
        true, false = ([float(score[side].itm) for score in scores] for side in (0, 1))
        known = [sum(word in trained for word in words(text)) / max(1, len(words(text))) for text in own]
        sets[name] = {"pictures": len(items), "auc": auc(true, false), "words": {}}
        for group, holds in GROUPS.items():
            some = [score for score, share in zip(true, known, strict=True) if holds(share)]
            if some:
                told = {"texts": len(some), "auc": auc(some, false), "median": statistics.median(some)}
                sets[name]["words"][group] = told
        print(name, sets[name], flush=True)
    return {"limit": limit, "trained_words": len(trained), "sets": sets}


def table(found: Mapping[str, Any]) -> str:
    lines = ["| set | words that training had | texts | AUC by ITM | median P(match) |", "|---|---|---|---|---|"]
    for name, told in found["sets"].items():
        lines += [
            f"| {name} | {group} | {of['texts']} | {of['auc']:.3f} | {of['median']:.2f} |"
            for group, of in told["words"].items()
        ]
    return "\n".join(lines)


def filled(page: str, found: Mapping[str, Any]) -> str:
    """The page with the table between its marks."""
    marks = re.compile(r"(<!-- limits, from benchmarks/results/limits\.json -->\n).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda mark: f"{mark[1]}{table(found)}\n{mark[2]}", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text())), encoding="utf-8")
        return
    if options.shards is None:
        parser.error("--shards is needed")
    options.out.write_text(json.dumps(measure(options.shards, options.limit), indent=1) + "\n")


if __name__ == "__main__":
    main()

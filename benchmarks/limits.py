"""What limits med-mini's filter on concepts never trained on: is it their words?

    python -P benchmarks/limits.py --shards DIR [--limit 500] [--before DIR] [--out FILE]
    python -P benchmarks/limits.py --page

DIR is what `capfilt corpora build` wrote. Each picture's own text and another's are scored, as `capfilt evaluate
--measure filtering` does it; the AUC is then that of the texts all, some or none of whose words (but articles and
prepositions) stand in a text of the emoji or icons trained on, each against all false ones. The AUC that is missing on
concepts never trained on, in seen styles, is told by name too: which of them hold most of it, and how much of it is
the luck of the shuffle, by ten of them; all pictures of that set count here, whatever the limit. Then texts that name
nothing, none of which is in the list of boilerplate, are scored beside held-out clip art; --before names another filter
that is measured likewise, such as the first finetuning's (runs/med-mini/filter/model). A few minutes of one core. The
second command puts the committed figures into docs/results.md.
"""

from __future__ import annotations

import argparse
import bisect
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from capfilt.captions import clean
from capfilt.catalog import model_folder
from capfilt.embedded import HELD_OUT, NAME
from capfilt.evaluate.filtering import RULE, auc, shuffled
from capfilt.evaluate.references import Referenced, decode, read
from capfilt.med.filter import MEDFilter

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "limits.json"
PAGE = ROOT / "docs" / "results.md"
SETS = [name for name in HELD_OUT if not name.startswith("clip art")]
SMALL = frozenset(["a", "an", "and", "in", "of", "on", "the", "to", "with"])
BY_NAME = "concepts never seen, styles seen"
SHOWN = 20
"""Names in the table."""
SHUFFLES = 10
GROUPS: dict[str, Callable[[float], bool]] = {
    "all": lambda share: share == 1,
    "some": lambda share: 0 < share < 1,
    "none": lambda share: share == 0,
}
BATCH = 64
NOTHING = (
    "a series of icons",
    "vector graphics",
    "free clipart",
    "untitled",
    "photo by john smith 2004",
    "icons by a famous designer",
    "version 2 final",
    "see my other works",
    "made with a drawing program",
    "png image",
    "public domain",
    "no description",
)
"""Thought of, not taken from a corpus; the first five were tried before the list was made."""


def words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", clean(text).lower()) if word not in SMALL]


def measure(shards: Path, limit: int) -> dict[str, Any]:
    sets = [str(shards / f"{name}-train-*.tar") for name in ("human", "icons")]
    trained = {word for item in read(sets) for text in item.texts for word in words(text)}
    model = MEDFilter.load(model_folder(f"{NAME}/filter"), dtype=torch.float32)
    told: dict[str, Any] = {"limit": limit, "trained_words": len(trained), "sets": (sets := {})}
    for name in SETS:
        items = list(read([str(shards / HELD_OUT[name])]))
        if name == BY_NAME:
            true, false = scored(model, items, SHUFFLES)
            told["names"] = by_name([item.texts[0] for item in items], true, false[0])
            told["names"]["shuffles"] = [auc(true, each) for each in false]
            print(told["names"], flush=True)
        items = items[:limit]  # as evaluate.py
        own = [item.texts[0] for item in items]
        true, (false,) = scored(model, items)
        known = [sum(word in trained for word in words(text)) / max(1, len(words(text))) for text in own]
        sets[name] = {"pictures": len(items), "auc": auc(true, false), "words": {}}
        for group, holds in GROUPS.items():
            some = [score for score, share in zip(true, known, strict=True) if holds(share)]
            if some:
                median = statistics.median(some)
                sets[name]["words"][group] = {"texts": len(some), "auc": auc(some, false), "median": median}
        print(name, sets[name], flush=True)
    return told


def scored(model: MEDFilter, items: Sequence[Referenced], shuffles: int = 1) -> tuple[list[float], list[list[float]]]:
    """P(match) of each picture's own text, and of another's, for several shuffles; the first is that of `evaluate`."""
    own = [item.texts[0] for item in items]
    others = [shuffled(own, seed) for seed in range(shuffles)]
    pairs = [list(map(clean, texts)) for texts in zip(own, *others, strict=True)]
    scores = []
    for at in range(0, len(items), BATCH):
        scores += model.score([decode(item) for item in items[at : at + BATCH]], pairs[at : at + BATCH])
    true, *false = ([float(score[side].itm) for score in scores] for side in range(1 + shuffles))
    return true, false


def by_name(own: Sequence[str], true: Sequence[float], false: Sequence[float]) -> dict[str, Any]:
    """How the AUC that is missing spreads over the names: each drawing misses the share of false texts that score
    higher than its own (half of the equal ones), and 1 - AUC is the mean of that."""
    ordered = sorted(false)
    missed: dict[str, list[float]] = defaultdict(list)
    for text, score in zip(own, true, strict=True):
        below, up_to = bisect.bisect_left(ordered, score), bisect.bisect_right(ordered, score)
        missed[text].append(1 - (below + up_to) / 2 / len(ordered))
    total = sum(map(sum, missed.values()))
    names, held = [], 0.0
    for text, each in sorted(missed.items(), key=lambda of: -sum(of[1])):
        held += sum(each)
        of = [score for name, score in zip(own, true, strict=True) if name == text]
        names.append(
            {
                "text": text,
                "pictures": len(each),
                "auc": 1 - statistics.mean(each),
                "median": statistics.median(of),
                "held_so_far": held / total,
            }
        )
    return {"pictures": len(own), "auc": auc(true, false), "names": len(names), "worst": names}


def nothing(shards: Path, limit: int, filters: Mapping[str, Path]) -> dict[str, Any]:
    """Of each text that names nothing, the share of held-out clip art beside which a filter lets it pass; and of the
    pictures' own titles shuffled among them."""
    listed = {clean(line) for line in (shards / "boilerplate.txt").read_text(encoding="utf-8").splitlines()}
    assert not listed & {clean(text) for text in NOTHING}
    items = list(islice(read([str(shards / HELD_OUT["clip art never seen"])]), limit))
    other = shuffled([item.texts[0] for item in items], 0)
    told: dict[str, Any] = {"pictures": len(items), "filters": {}}
    for name, folder in filters.items():
        model = MEDFilter.load(folder, dtype=torch.float32)
        passed = [0] * (len(NOTHING) + 1)
        for at in range(0, len(items), BATCH):
            texts = [[*map(clean, NOTHING), clean(one)] for one in other[at : at + BATCH]]
            for scores in model.score([decode(item) for item in items[at : at + BATCH]], texts):
                passed = [count + (float(score.itm) >= RULE) for count, score in zip(passed, scores, strict=True)]
        shares = dict(zip((*NOTHING, "shuffled titles"), (count / len(items) for count in passed), strict=True))
        told["filters"][name] = {"passed": shares}
        print(name, shares, flush=True)
    return told


def table(found: Mapping[str, Any]) -> str:
    lines = ["| set | words that training had | texts | AUC by ITM | median P(match) |", "|---|---|---|---|---|"]
    for name, told in found["sets"].items():
        lines += [
            f"| {name} | {group} | {of['texts']} | {of['auc']:.3f} | {of['median']:.2f} |"
            for group, of in told["words"].items()
        ]
    return "\n".join(lines)


def table_of_names(found: Mapping[str, Any]) -> str:
    """The names that hold most of what is missing."""
    lines = ["| name | drawings | AUC by ITM | median P(match) | of what is missing, so far |", "|---|---|---|---|---|"]
    lines += [
        f"| {of['text']} | {of['pictures']} | {of['auc']:.2f} | {of['median']:.2f} | {of['held_so_far']:.0%} |"
        for of in found["names"]["worst"][:SHOWN]
    ]
    return "\n".join(lines)


def table_of_nothing(found: Mapping[str, Any]) -> str:
    filters = found["nothing"]["filters"]
    lines = [f"| text | {' | '.join(filters)} |", f"|---|{'---|' * len(filters)}"]
    for text in (*NOTHING, "shuffled titles"):
        shares = [f"{told['passed'][text]:.1%}" for told in filters.values()]
        lines.append(f"| {text} | {' | '.join(shares)} |")
    return "\n".join(lines)


def filled(page: str, found: Mapping[str, Any]) -> str:
    """The page with the tables between their marks."""
    tables = {"limits": table, "limits by name": table_of_names, "limits of nothing": table_of_nothing}
    for name, make in tables.items():
        made = make(found)
        marks = re.compile(rf"(<!-- {name}, from benchmarks/results/limits\.json -->\n).*?(<!-- end -->)", re.DOTALL)
        page = marks.sub(lambda mark, made=made: f"{mark[1]}{made}\n{mark[2]}", page)  # type: ignore[misc]
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--before", type=Path, help="another filter's folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if options.page:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text())), encoding="utf-8")
        return
    if options.shards is None:
        parser.error("--shards is needed")
    before = {"emoji alone": options.before} if options.before else {}
    filters = {**before, "as shipped": model_folder(f"{NAME}/filter")}
    told = measure(options.shards, options.limit)
    told["nothing"] = nothing(options.shards, options.limit, filters)
    options.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()

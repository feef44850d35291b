"""Do more steps, larger pictures or more things take med-mini's filter further on concepts it was never trained on?

    python -P benchmarks/longer.py --shards DIR --start START --run RUN [--arm ARM]  trains; goes on if stopped
    python -P benchmarks/longer.py --shards DIR --start START --run RUN [--arm ARM] --measure  five minutes of one core
    python -P benchmarks/longer.py --page

DIR is what `capfilt corpora build` wrote, START the filter of the third finetuning, step 6 of `make med-mini`
(runs/med-mini/filter-free/model); what is committed began from its float16 half, which was shipped before the mean
was. From there it goes on with another seed and a learning rate that rises once more, all else as it was but this:
the arm `longer` (3 hours of a core) on pictures of 160 px for 128, 1,600 steps for 900; the arm `extras` (80 minutes),
which is step 7, for 900 steps with the set extras-train too, coloured drawings of things that are no emoji, each five
times as often as it comes, and icons and clip art half as often. Measured are START, the arm's filter, and the mean of
their weights, each on whole sets with ten shuffles of the captions; figures of the other arm stay. The last command
puts the committed figures into docs/results.md. Several processes share each batch with `PYTHONSAFEPATH=1 torchrun
--nproc-per-node 2 benchmarks/longer.py ...`.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from capfilt.embedded import FREE, HELD_OUT, MORE, NAME, more, wide
from capfilt.evaluate.filtering import auc
from capfilt.evaluate.references import read
from capfilt.inputs import expand
from capfilt.med.config import MEDConfig
from capfilt.med.filter import MEDFilter
from capfilt.med.model import MED
from capfilt.recipe import load_config
from capfilt.train.config import TrainConfig
from capfilt.train.run import train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "longer.json"
PAGE = ROOT / "docs" / "results.md"
FIRST, LAST = 10, 100
"""Steps at the begin, while the learning rate is still low, and at the end, over which losses are averaged."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How the finetuning goes on."""

    label: str
    recipe: str
    size: int
    steps: int
    seed: int


ARMS = {
    "longer": Arm(label="longer", recipe=FREE, size=160, steps=1600, seed=9),
    "extras": Arm(label="with extras", recipe=MORE, size=128, steps=900, seed=11),
}


def go_on(arm: Arm, shards: Path, start: Path, run: Path) -> None:
    def of(name: str) -> tuple[str, ...]:
        return tuple(expand(str(shards / f"{name}-train-*.tar")))

    recipe = load_config(TrainConfig, f"{NAME}/{arm.recipe}")
    frozen = recipe.optim.freeze
    if MEDConfig.load(start).holds == "filter":  # a half has the filter's words alone
        frozen = tuple(part.replace("embeddings.both", "embeddings.encode") for part in frozen)
    human, others = of("human"), (*of("web"), *of("icons"))
    given = more(shards, human, others, of("extras")) if arm.recipe == MORE else wide(shards, human, others)
    own = {"init": str(start), "image_size": arm.size, "steps": arm.steps, "seed": arm.seed, "out": str(run)}
    config = replace(recipe, data=replace(recipe.data, **given), optim=replace(recipe.optim, freeze=frozen), **own)
    train(config, lambda at: print(at.step, at.losses, flush=True))


def measure(arm: Arm, shards: Path, start: Path, run: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """What was found before, with this arm's figures."""
    scored = _beside("limits").scored
    first, longer = MED.load(start), MED.load(run / "model")
    filters = {
        "third finetuning, 128 px": first,
        f"{arm.label}, {arm.size} px": longer,
        f"mean of third and {arm.label}, {arm.size} px": mean(first, longer),
    }
    told: dict[str, Any] = {
        "losses": {**before.get("losses", {}), arm.label: losses(run / "log.csv")},
        "filters": dict(before.get("filters", {})),
    }
    for name, model in filters.items():
        found = told["filters"][name] = {}
        for held_out, files in HELD_OUT.items():
            if held_out.startswith("clip art"):
                continue
            items = list(read([str(shards / files)]))
            true, false = scored(MEDFilter(model), items, 10)
            found[held_out] = {"pictures": len(items), "shuffles": [auc(true, each) for each in false]}
            print(name, held_out, statistics.mean(found[held_out]["shuffles"]), flush=True)
    return told


def mean(one: MED, other: MED) -> MED:
    """Half of each model's weights, at the other's size of pictures."""
    resized = one.resized(other.config.vision.image_size).state_dict()
    made = MED(other.config, other.tokenizer)
    made.load_state_dict({name: (resized[name] + weight) / 2 for name, weight in other.state_dict().items()})
    return made.eval()


def losses(log: Path) -> dict[str, dict[str, float]]:
    """ITC's and ITM's: what is begun with, and what is reached."""
    with log.open(newline="") as file:
        rows = [{name: float(row[name]) for name in ("step", "itc", "itm")} for row in csv.DictReader(file)]
    begin = [row for row in rows if row["step"] <= FIRST]
    end = [row for row in rows if row["step"] > rows[-1]["step"] - LAST]
    some = {"begin": begin, "end": end}
    return {at: {name: statistics.mean(row[name] for row in some[at]) for name in ("itc", "itm")} for at in some}


def table(found: Mapping[str, Any]) -> str:
    """Means of the shuffles, and their ends."""
    filters = found["filters"]
    lines = [f"| set | {' | '.join(filters)} |", f"|---|{'---|' * len(filters)}"]
    for name in next(iter(filters.values())):
        cells = [told[name]["shuffles"] for told in filters.values()]
        said = [f"{statistics.mean(each):.3f} ({min(each):.3f} to {max(each):.3f})" for each in cells]
        lines.append(f"| {name} | {' | '.join(said)} |")
    return "\n".join(lines)


def filled(page: str, found: Mapping[str, Any]) -> str:
    """The page with the table between its marks."""
    marks = re.compile(r"(<!-- longer, from benchmarks/results/longer\.json -->\n).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda mark: f"{mark[1]}{table(found)}\n{mark[2]}", page)


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--start", type=Path, help="the filter that goes on")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--arm", choices=ARMS, default="longer")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.page:
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    elif options.shards is None or options.start is None or options.run is None:
        parser.error("--shards, --start and --run are needed")
    elif options.measure:
        before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        found = measure(ARMS[options.arm], options.shards, options.start, options.run, before)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    else:
        go_on(ARMS[options.arm], options.shards, options.start, options.run)


if __name__ == "__main__":
    main()

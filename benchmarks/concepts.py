"""Does med-mini's filter know new concepts better, the more concepts it was trained on?

    python -P benchmarks/concepts.py --shards DIR --runs DIR [--first DIR] [ARM ...]  trains: 20 minutes an arm
    python -P benchmarks/concepts.py --shards DIR --runs DIR --measure                measures: a minute an arm
    python -P benchmarks/concepts.py --page

The first DIR is what `capfilt corpora build` wrote. Three arms start from ImageNet's features, which stay as they are,
and MiniLM's words, and are trained for equal steps on the drawings of a quarter, half and all of the emoji's concepts;
a concept of one arm is in each larger arm too. Two more are the filter's last finetuning, cut short, from its first one
(--first: runs/med-mini/filter/model of `make med-mini`), which knows emoji alone: on these again, or with all icons
beside them. Measured is each on whole sets of concepts that none was trained on, with ten shuffles of the captions.
Times are of one core. Arms may run side by side, and each goes on if it is stopped. The last command puts the committed
figures into docs/results.md.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import re
import statistics
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from capfilt.corpora.sides import chance
from capfilt.embedded import FREE, HELD_OUT, NAME, WIDE, fit_vocabulary, start
from capfilt.evaluate.filtering import auc
from capfilt.evaluate.references import read
from capfilt.inputs import expand
from capfilt.med.filter import MEDFilter
from capfilt.recipe import load_config
from capfilt.train.config import MixConfig, TrainConfig
from capfilt.train.run import train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "concepts.json"
PAGE = ROOT / "docs" / "results.md"
SETS = ("concepts never seen, styles seen", "concepts never seen, style never seen")
SHUFFLES = 10
LAST = 50
"""Steps at the end over which the losses are averaged."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One run: a recipe, the shares of the concepts whose drawings it sees, and how long."""

    recipe: str
    emoji: float
    icons: float = 0.0
    steps: int
    lr: float | None = None
    """Of those that start anew."""


ARMS = {
    "emoji, a quarter": Arm(recipe=WIDE, emoji=0.25, steps=600, lr=1e-3),
    "emoji, half": Arm(recipe=WIDE, emoji=0.5, steps=600, lr=1e-3),
    "emoji, all": Arm(recipe=WIDE, emoji=1.0, steps=600, lr=1e-3),
    "going on, emoji": Arm(recipe=FREE, emoji=1.0, steps=220),
    "going on, emoji and icons": Arm(recipe=FREE, emoji=1.0, icons=1.0, steps=220),
}


def go(name: str, shards: Path, runs: Path, first: Path | None) -> None:
    """Train one arm."""
    arm, run = ARMS[name], runs / slug(name)
    recipe = load_config(TrainConfig, f"{NAME}/{arm.recipe}")
    optim = recipe.optim
    if arm.lr:
        init = run / "start"
        begin(shards, run / "architecture", init)
        optim = replace(optim, lr=arm.lr)
    elif first is None:
        raise SystemExit(f"{name}: --first is needed")
    else:
        init = first
        # This half of the model has the filter's words alone.
        frozen = tuple(part.replace("embeddings.both", "embeddings.encode") for part in optim.freeze)
        optim = replace(optim, freeze=frozen)
    emoji = (some(shards, "human", arm.emoji, run),)
    mix = [MixConfig(shards=emoji)]
    if arm.icons:
        mix = [MixConfig(shards=emoji, weight=2.0), MixConfig(shards=(some(shards, "icons", arm.icons, run),))]
    data = replace(recipe.data, mix=tuple(mix))
    config = replace(recipe, init=str(init), steps=arm.steps, out=str(run), data=data, optim=optim)
    train(config, lambda at: print(name, at.step, at.losses, flush=True))


def begin(shards: Path, architecture: Path, target: Path) -> None:
    """What `make med-mini` starts from."""
    architecture.mkdir(parents=True, exist_ok=True)
    fit_vocabulary(shards / "vocab.txt", architecture)
    start(shards, architecture, target)


def some(shards: Path, side: str, share: float, run: Path) -> str:
    """A shard of the samples of a share of the concepts, by their names alone."""
    target = run / f"{side}.tar"
    run.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target, "w") as out:
        for concept, files in samples(expand(str(shards / f"{side}-train-*.tar"))):
            if chance("share", concept) < share:
                for info, member in files:
                    out.addfile(info, member)
    return str(target)


def samples(shards: list[str]) -> Iterator[tuple[str, list[tuple[tarfile.TarInfo, Any]]]]:
    """Each sample's concept and its files."""
    for shard in shards:
        with tarfile.open(shard) as tar:
            for _, members in groupby(tar.getmembers(), key=lambda info: info.name.split(".")[0]):
                infos = list(members)
                (record,) = (info for info in infos if info.name.endswith(".json"))
                record_file = tar.extractfile(record)
                assert record_file is not None
                concept = json.load(record_file)["concept"]
                yield concept, [(info, tar.extractfile(info)) for info in infos]


def measure(shards: Path, runs: Path) -> dict[str, Any]:
    scored = _beside("limits").scored
    told: dict[str, Any] = {}
    for name, arm in ARMS.items():
        run = runs / slug(name)
        sides = {side: run / f"{side}.tar" for side in ("human", *(["icons"] if arm.icons else []))}
        seen = {side: [concept for concept, _ in samples([str(file)])] for side, file in sides.items()}
        sets: dict[str, Any] = {}
        told[name] = {
            "steps": arm.steps,
            "concepts": {side: len(set(each)) for side, each in seen.items()},
            "pictures": {side: len(each) for side, each in seen.items()},
            "losses": losses(run / "log.csv"),
            "sets": sets,
        }
        model = MEDFilter.load(run / "model", dtype=torch.float32)
        for held_out in SETS:
            items = list(read([str(shards / HELD_OUT[held_out])]))
            true, false = scored(model, items, SHUFFLES)
            sets[held_out] = {"pictures": len(items), "shuffles": [auc(true, each) for each in false]}
            print(name, held_out, statistics.mean(sets[held_out]["shuffles"]), flush=True)
    return told


def losses(log: Path) -> dict[str, float]:
    """ITC's and ITM's at the end of training."""
    with log.open(newline="") as file:
        rows = [{name: float(row[name]) for name in ("step", "itc", "itm")} for row in csv.DictReader(file)]
    end = [row for row in rows if row["step"] > rows[-1]["step"] - LAST]
    return {name: statistics.mean(row[name] for row in end) for name in ("itc", "itm")}


def table(found: Mapping[str, Any]) -> str:
    """Means of the shuffles, and their ends."""
    lines = [f"| trained on | concepts of emoji | of icons | ITM's loss at the end | {' | '.join(SETS)} |"]
    lines += [f"|---|---|---|---|{'---|' * len(SETS)}"]
    for name, told in found.items():
        each = [told["sets"][held_out]["shuffles"] for held_out in SETS]
        said = " | ".join(f"{statistics.mean(aucs):.3f} ({min(aucs):.3f} to {max(aucs):.3f})" for aucs in each)
        emoji, icons = (f"{told['concepts'].get(side, 0):,}" for side in ("human", "icons"))
        lines.append(f"| {name} | {emoji} | {icons} | {told['losses']['itm']:.2f} | {said} |")
    return "\n".join(lines)


def filled(page: str, found: Mapping[str, Any]) -> str:
    """The page with the table between its marks."""
    marks = re.compile(r"(<!-- concepts, from benchmarks/results/concepts\.json -->\n).*?(<!-- end -->)", re.DOTALL)
    return marks.sub(lambda mark: f"{mark[1]}{table(found)}\n{mark[2]}", page)


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name)


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", metavar="ARM", help=f"of: {'; '.join(ARMS)}. All, if none is named")
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--first", type=Path, help="the filter after its first finetuning")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.page:
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    elif options.shards is None or options.runs is None:
        parser.error("--shards and --runs are needed")
    elif options.measure:
        RESULTS.write_text(json.dumps(measure(options.shards, options.runs), indent=1) + "\n", encoding="utf-8")
    elif unknown := set(options.arms) - ARMS.keys():
        parser.error(f"no such arm: {', '.join(sorted(unknown))}")
    else:
        for name in options.arms or ARMS:
            go(name, options.shards, options.runs, options.first)


if __name__ == "__main__":
    main()

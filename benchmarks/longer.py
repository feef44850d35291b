"""Does more training, on larger pictures, take med-mini's filter further on concepts that it was never trained on?

    python -P benchmarks/longer.py --shards DIR --run RUN             trains, 3 hours of a core; goes on if stopped
    python -P benchmarks/longer.py --shards DIR --run RUN --measure   measures, five minutes of one core
    python -P benchmarks/longer.py --page

DIR is what `capfilt corpora build` wrote. From the shipped filter the last finetuning goes on with all as it was but
pictures of 160 px for 128, another seed, 1,600 steps for 900 and a learning rate that rises once more. Measured are the
shipped filter, this one, and the mean of their weights, each on whole sets with ten shuffles of the captions. The last
command puts the committed figures into docs/results.md. Several processes share each batch with
`PYTHONSAFEPATH=1 torchrun --nproc-per-node 2 benchmarks/longer.py ...`.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import re
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from capfilt.catalog import model_folder
from capfilt.embedded import FREE, HELD_OUT, NAME, wide
from capfilt.evaluate.filtering import auc
from capfilt.evaluate.references import read
from capfilt.inputs import expand
from capfilt.med.filter import MEDFilter
from capfilt.med.model import MED
from capfilt.recipe import load_config
from capfilt.train.config import TrainConfig
from capfilt.train.run import train

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "longer.json"
PAGE = ROOT / "docs" / "results.md"
SHIPPED = f"{NAME}/filter"
SIZE, STEPS, SEED = 160, 1600, 9
FIRST, LAST = 10, 100
"""Steps at the begin, while the learning rate is still low, and at the end, over which losses are averaged."""


def go_on(shards: Path, run: Path) -> None:
    human, web, icons = (tuple(expand(str(shards / f"{name}-train-*.tar"))) for name in ("human", "web", "icons"))
    recipe = load_config(TrainConfig, f"{NAME}/{FREE}")
    # The shipped half of the model has the filter's words alone.
    frozen = tuple(part.replace("embeddings.both", "embeddings.encode") for part in recipe.optim.freeze)
    data = replace(recipe.data, **wide(shards, human, (*web, *icons)))
    optim = replace(recipe.optim, freeze=frozen)
    own = {"init": SHIPPED, "image_size": SIZE, "steps": STEPS, "seed": SEED, "out": str(run)}
    train(replace(recipe, data=data, optim=optim, **own), lambda at: print(at.step, at.losses, flush=True))


def measure(shards: Path, run: Path) -> dict[str, Any]:
    scored = _beside("limits").scored
    shipped, longer = MED.load(model_folder(SHIPPED)), MED.load(run / "model")
    filters = {"shipped, 128 px": shipped, "longer, 160 px": longer, "mean of both, 160 px": mean(shipped, longer)}
    told: dict[str, Any] = {"losses": losses(run / "log.csv"), "filters": {}}
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
    """ITC's and ITM's: what the shipped filter begins with on larger pictures, and what is reached."""
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
    parser.add_argument("--run", type=Path)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.page:
        found = json.loads(RESULTS.read_text(encoding="utf-8"))
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    elif options.shards is None or options.run is None:
        parser.error("--shards and --run are needed")
    elif options.measure:
        RESULTS.write_text(json.dumps(measure(options.shards, options.run), indent=1) + "\n", encoding="utf-8")
    else:
        go_on(options.shards, options.run)


if __name__ == "__main__":
    main()

"""A whole table: every arm at every seed, and what they come to together.

    OUT/TABLE.json   figures of each unit, mean and spread of each arm; written anew after each unit
    OUT/TABLE.md     the same as a table beside the paper's figures        OUT/TABLE.png   plotted
    OUT/steps/       what is not done twice (``steps``)

Knows units and their order; knows not how one is made.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from capfilt.errors import DestinationError, require_within
from capfilt.paper.config import load_scale, load_table
from capfilt.paper.experiment import Experiment
from capfilt.paper.page import draw, markdown
from capfilt.paper.steps import Steps
from capfilt.storage import Store


def run_table(
    table: str, out: str, *, corpora: str, scale: str = "mini", seeds: int = 3, tell: Callable[[str], None] = print
) -> dict[str, Any]:
    """Does what is not done yet of a table, and writes and returns its results.

    Args:
        table: a name of ``config.tables()`` or a file.
        out: a folder of this machine; tables of one scale share it, and what their arms have in common.
        corpora: what ``capfilt corpora build`` wrote.
        scale: a name or a file.
        seeds: 1 or more; 0, 1, 2, ... A later run may ask for more.
        tell: told in words what begins.

    Raises:
        CapfiltError: a mistake in settings or data, or a step that failed; the next run goes on.
    """
    require_within("--seeds", seeds, 1, 1000)
    asked, size = load_table(table), load_scale(scale)
    store = Store(out)
    if not store.is_local:
        raise DestinationError("training writes to a folder of this machine", where=out, mend="Name one.")
    store.check_writable()
    name, folder = Path(table).stem, Path(store.url)
    doing = Experiment(size, Path(corpora), folder, Steps(folder, lambda step: tell(f"  {step}")))
    told: dict[str, Any] = {
        "table": name,
        "title": asked.title,
        "section": asked.section,
        "show": list(asked.show),
        "scale": Path(scale).stem,
        "seeds": seeds,
        "precision": "",
        "material": doing.material.figures,
        "cpu_s": 0.0,
        "arms": [{"name": key, "title": arm.title, "paper": arm.paper, "units": []} for key, arm in asked.arms.items()],
        "recipe": {key: asdict(arm) for key, arm in asked.arms.items()},
    }
    cost: dict[str, float] = {}
    precisions: set[str] = set()
    for seed in range(seeds):
        for row, (key, arm) in zip(told["arms"], asked.arms.items(), strict=True):
            tell(f"table {name}, {key}, seed {seed}")
            figures = doing.unit(arm, seed)
            cost |= doing.used
            precisions |= doing.precisions
            row["units"].append({"seed": seed, "figures": figures})
            row.update(summary([unit["figures"] for unit in row["units"]]))
            told["precision"] = " and ".join(sorted(precisions))
            told["cpu_s"] = round(sum(cost.values()), 1)
            store.write_json(f"{name}.json", told)
    store.write(f"{name}.md", markdown(told).encode())
    if figure := draw(told):
        store.write(f"{name}.png", figure)
    return told


def summary(units: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """``mean`` and ``spread`` (the sample's standard deviation, 0 of one unit) of each figure that all units have."""
    names = [name for name in units[0] if all(name in unit for unit in units)]
    values = {name: [unit[name] for unit in units] for name in names}
    return {
        "mean": {name: statistics.fmean(own) for name, own in values.items()},
        "spread": {name: statistics.stdev(own) if len(own) > 1 else 0.0 for name, own in values.items()},
    }

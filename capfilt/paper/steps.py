"""What is done once and used by many: a step's folder is named by a digest of all that decides what is in it.

    OUT/steps/KIND-DIGEST/done.json   identity, figures and cost; written when the step is done

Two arms that ask for the same captioner get the same folder, and a second run finds what the first one made. Knows
folders and digests; knows not what a step does.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capfilt.storage import Store

DONE = "done.json"


@dataclass(frozen=True)
class Step:
    """A finished step."""

    name: str
    """Its folder's name, which stands for all that decided it."""
    folder: Path
    figures: Mapping[str, Any]
    cpu_s: float
    """Seconds of all cores together. Of a step that was stopped and went on, those of the last part."""


class Steps:
    """The steps below a folder.

    Args:
        out: the folder; steps go to ``out/steps``.
        tell: told the name of each step that begins.
    """

    def __init__(self, out: Path, tell: Callable[[str], None]) -> None:
        self.root, self.tell = out / "steps", tell

    def __call__(self, kind: str, identity: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]) -> Step:
        """The step, out of its folder if it is done, else done now.

        Args:
            kind: how the folder's name begins.
            identity: plain values: all that decides what the step makes.
            work: does it in the folder that it is given, where an earlier attempt may have left something to go on
                from; returns its figures.
        """
        told = json.dumps({"kind": kind, **identity}, sort_keys=True)
        name = f"{kind}-{hashlib.blake2b(told.encode(), digest_size=6).hexdigest()}"
        folder = self.root / name
        store = Store(str(folder))
        if not store.exists(DONE):
            self.tell(name)
            folder.mkdir(parents=True, exist_ok=True)
            begun = time.process_time()
            figures = work(folder)
            cost = time.process_time() - begun
            store.write_json(DONE, {"identity": json.loads(told), "figures": figures, "cpu_s": round(cost, 1)})
        done = store.read_json(DONE)
        return Step(name, folder, done["figures"], done["cpu_s"])

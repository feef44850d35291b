"""CapFilt: turn a scraped, noisy image-text corpus into a clean one, and train the next model on it.

What a user calls from Python. Each name is loaded when it is first asked for, so that ``import capfilt`` takes no time
and loads neither torch nor ray.

>>> import capfilt
>>> result = capfilt.bootstrap("pictures", "clean", run=capfilt.RunConfig(runner="local"))
>>> result.manifest["totals"]["rows"]
9
>>> best = next(capfilt.read("clean")).caption
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capfilt.api.measuring import evaluate
    from capfilt.api.models import Captioner, Filter
    from capfilt.api.reading import read, verify
    from capfilt.api.training import finetune, pretrain
    from capfilt.bootstrap import bootstrap
    from capfilt.catalog import sample
    from capfilt.dedup import dedup
    from capfilt.errors import CapfiltError
    from capfilt.flow.config import RunConfig
    from capfilt.med.model import MED
    from capfilt.recipe import Recipe
    from capfilt.recipe import load as load_recipe
    from capfilt.refilter import refilter
    from capfilt.roles import Score
    from capfilt.shards.sample import Sample

__all__ = [
    "MED",
    "CapfiltError",
    "Captioner",
    "Filter",
    "Recipe",
    "RunConfig",
    "Sample",
    "Score",
    "bootstrap",
    "dedup",
    "evaluate",
    "finetune",
    "load_recipe",
    "pretrain",
    "read",
    "refilter",
    "sample",
    "verify",
]

_WHERE = {
    "MED": "capfilt.med.model",
    "CapfiltError": "capfilt.errors",
    "Captioner": "capfilt.api.models",
    "Filter": "capfilt.api.models",
    "Recipe": "capfilt.recipe",
    "RunConfig": "capfilt.flow.config",
    "Sample": "capfilt.shards.sample",
    "Score": "capfilt.roles",
    "bootstrap": "capfilt.bootstrap",
    "dedup": "capfilt.dedup",
    "evaluate": "capfilt.api.measuring",
    "finetune": "capfilt.api.training",
    "load_recipe": "capfilt.recipe",
    "pretrain": "capfilt.api.training",
    "read": "capfilt.api.reading",
    "refilter": "capfilt.refilter",
    "sample": "capfilt.catalog",
    "verify": "capfilt.api.reading",
}
_ELSEWHERE_CALLED = {"load_recipe": "load"}


class _Face(ModuleType):
    """The package itself. Some rooms have the name of what they are there for (``bootstrap``, ``evaluate``, ``dedup``):
    when Python loads such a room it would put it in the place of the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face


if not TYPE_CHECKING:  # a type checker would take any name for there

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(_WHERE[name]), _ELSEWHERE_CALLED.get(name, name))
        setattr(sys.modules[__name__], name, found)
        return found


def __dir__() -> list[str]:
    return __all__

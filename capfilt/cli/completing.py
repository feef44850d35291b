"""What a shell completes beyond commands and options: names of recipes and models, and fields of recipes.

Knows where the names are; loads nothing until the shell asks.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from importlib import import_module


def recipes(incomplete: str) -> list[str]:
    """Names of recipes; the shell goes on with files where none begins so."""
    from capfilt import catalog

    return [name for name in catalog.recipes() if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Names of models of the catalogue; the shell goes on with folders where none begins so."""
    from capfilt import catalog

    return [name for name in catalog.models() if name.startswith(incomplete)]


def fields(module: str, config: str) -> Callable[[str], list[str]]:
    """A completer of ``section.field=`` for the config class that stands in a module of capfilt."""

    def complete(incomplete: str) -> list[str]:
        return [f"{name}=" for name in names(getattr(import_module(module), config)) if name.startswith(incomplete)]

    return complete


def names(config: type, before: str = "") -> Iterator[str]:
    """Every field of a config class, as ``section.field``."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        kind = hints[field.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from names(kind, f"{before}{field.name}.")
        else:
            yield f"{before}{field.name}"

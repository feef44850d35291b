"""``capfilt schema``: the JSON Schema of a recipe, by which editors complete and check it.

Knows which class a recipe fills; reading that class is ``capfilt.schema``.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer


class Kind(StrEnum):
    """What a YAML file is for."""

    BOOTSTRAP = "bootstrap"
    PRETRAIN = "pretrain"
    FINETUNE = "finetune"
    ROUNDS = "rounds"
    SERVICE = "service"


def command(
    kind: Annotated[Kind, typer.Argument(metavar="[KIND]", help="What the recipe is for.")] = Kind.BOOTSTRAP,
) -> None:
    """Print the JSON Schema of a recipe: fields, types, choices, ranges, defaults and what each means.

    KIND is bootstrap, pretrain, finetune, rounds, or service (the settings of `capfilt serve`). An editor with a YAML
    language server completes and checks a recipe whose first line names the schema:

    # yaml-language-server: $schema=bootstrap.schema.json
    """
    typer.echo(json.dumps(of(kind), indent=1))


def of(kind: Kind) -> dict[str, Any]:
    """The schema of one kind of file."""
    from capfilt.schema import schema

    title = "Settings of capfilt serve" if kind is Kind.SERVICE else f"A recipe of capfilt {kind}"
    found = schema(_config(kind), title=title)
    if kind in (Kind.PRETRAIN, Kind.FINETUNE):
        tasks = ["pretrain"] if kind is Kind.PRETRAIN else ["captioner", "filter"]
        found["properties"]["task"]["enum"] = tasks
        if kind is Kind.FINETUNE:
            del found["properties"]["task"]["default"]
    return found


def _config(kind: Kind) -> type:
    if kind is Kind.BOOTSTRAP:
        from capfilt.recipe import Recipe

        return Recipe
    if kind is Kind.ROUNDS:
        from capfilt.rounds.config import RoundsConfig

        return RoundsConfig
    if kind is Kind.SERVICE:
        from capfilt.service.config import ServiceConfig

        return ServiceConfig
    from capfilt.train.config import TrainConfig

    return TrainConfig

"""The recipe's fields as data, for forms: their kinds, choices, defaults and what they mean.

Read from the config classes themselves, so that a form never knows other fields than a recipe has. Knows dataclasses
and their docstrings; knows no page.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal

from pydantic import BaseModel, Field

from capfilt.recipe import Recipe
from capfilt.schema import docs

FieldKind = Literal["text", "whole", "number", "yes-no", "choice", "list", "json"]
_PLAIN: dict[Any, FieldKind] = {str: "text", int: "whole", float: "number", bool: "yes-no"}


class FormField(BaseModel):
    """A field of a recipe."""

    name: str = Field(description="Its place in the recipe, as `capfilt.threshold`.")
    kind: FieldKind = Field(description="`whole` is a number without a fraction; `list` is of texts.")
    choices: list[str] = Field(description="Of a `choice`.")
    optional: bool = Field(description="Whether it may be null.")
    default: Any = Field(description="Null also where it is needed.")
    needed: bool
    about: str = Field(description="What it means, with unit and range.")


class FormSection(BaseModel):
    """A section of a recipe."""

    name: str
    about: str
    fields: list[FormField]


class Form(BaseModel):
    """All fields of a recipe."""

    sections: list[FormSection]


def recipe_form() -> Form:
    """The form of a recipe; sections within sections have their fields in the outer one."""
    hints, about = typing.get_type_hints(Recipe), docs(Recipe)
    sections = [
        FormSection(name=one.name, about=about.get(one.name, ""), fields=_fields(hints[one.name], f"{one.name}."))
        for one in dataclasses.fields(Recipe)
    ]
    return Form(sections=sections)


def _fields(cls: type, prefix: str) -> list[FormField]:
    hints, about = typing.get_type_hints(cls), docs(cls)
    found: list[FormField] = []
    for one in dataclasses.fields(cls):
        kind, name = hints[one.name], prefix + one.name
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            found += _fields(kind, f"{name}.")
            continue
        needed = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        default = None if needed else one.default
        if one.default_factory is not dataclasses.MISSING:
            default = one.default_factory()
        what, choices, optional = _kind(kind)
        if isinstance(default, tuple):
            default = list(default)
        told: dict[str, Any] = {"default": default, "needed": needed, "about": about.get(one.name, "")}
        found.append(FormField(name=name, kind=what, choices=choices, optional=optional, **told))
    return found


def _kind(kind: Any) -> tuple[FieldKind, list[str], bool]:
    args = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        rest = [one for one in args if one is not type(None)]
        if len(rest) == 1:
            return (*_kind(rest[0])[:2], len(rest) < len(args))
        return "json", [], len(rest) < len(args)
    if origin is Literal:
        return "choice", [str(one) for one in args], False
    if origin is tuple and args == (str, ...):
        return "list", [], False
    return _PLAIN.get(kind, "json"), [], False

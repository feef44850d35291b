"""JSON Schema of a config class: its types and choices, the docs that stand below its fields, the ranges it checks.

All of it is read from the class itself, so nothing is written twice: docs and ranges from its source, by its syntax.
Knows dataclasses; knows no recipe.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import operator
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Range(NamedTuple):
    """What a number may be; None is no bound that stands by itself."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False


def schema(config: type, *, title: str) -> dict[str, Any]:
    """The schema of a YAML file that fills the class.

    Nothing is required, for the command line may give what a file leaves out, and a section may be empty (null). Rules
    that join several fields are not in it: only the class itself checks those.

    Args:
        config: a frozen dataclass whose sections are dataclasses.
        title: what the file is.

    Returns:
        JSON Schema, draft 2020-12, as plain values.
    """
    made = TypeAdapter(config).json_schema()
    inner: dict[str, dict[str, Any]] = made.pop("$defs", {})
    # A class that holds itself stands among the definitions, and the top then only points at it.
    top = {**inner.get(config.__name__, made)} if "$ref" in made else made
    classes = {section.__name__: section for section in _sections(config, set())}
    _tell(top, config, classes)
    for name, told in inner.items():
        if name in classes:
            _tell(told, classes[name], classes)
    return {"$schema": DIALECT, **top, "title": title, **({"$defs": inner} if inner else {})}


def docs(config: type) -> dict[str, str]:
    """The text below each field of a class, in one line."""
    body = _definition(config).body
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def ranges(config: type) -> dict[str, Range]:
    """The bounds of each number that the class's ``__post_init__`` compares with constants.

    Read are ``require_within("...", self.field, low, high)`` and comparisons as ``1 <= self.field <= 64`` that stand
    for themselves. A bound that is another field is left out; of two that a choice decides, the wider one is taken.
    """
    constants = vars(sys.modules[config.__module__])
    found: dict[str, Range] = {}
    check = next((part for part in _definition(config).body if getattr(part, "name", "") == "__post_init__"), None)
    for call in (node for node in ast.walk(check or ast.Pass()) if isinstance(node, ast.Call)):
        match call:
            case ast.Call(func=ast.Name("require_within"), args=[_, ast.Attribute(ast.Name("self"), name), low, high]):
                found[name] = Range(_value(low, constants, min), _value(high, constants, max))
            case ast.Call(args=[ast.Compare() as compare, *_]):
                found |= _compared(compare, constants)
    return found


def _tell(told: dict[str, Any], config: type, classes: Mapping[str, type]) -> None:
    told["additionalProperties"] = False
    told["description"] = " ".join((inspect.getdoc(config) or "").split("\n\n")[0].split())
    told.pop("title", None)
    told.pop("required", None)
    texts, bounds = docs(config), ranges(config)
    for name, field in told["properties"].items():
        field.pop("title", None)
        if str(field.get("$ref", "")).rpartition("/")[2] in classes:
            field["anyOf"] = [{"$ref": field.pop("$ref")}, {"type": "null"}]
        if name in texts:
            field["description"] = texts[name]
        if name in bounds:
            for kind in (field, *field.get("anyOf", ())):
                if kind.get("type") in ("integer", "number"):
                    kind.update(_keywords(bounds[name]))


def _keywords(bounds: Range) -> dict[str, float]:
    low = "exclusiveMinimum" if bounds.open_low else "minimum"
    high = "exclusiveMaximum" if bounds.open_high else "maximum"
    return {key: value for key, value in ((low, bounds.low), (high, bounds.high)) if value is not None}


def _sections(config: type, seen: set[type]) -> Iterator[type]:
    """The class and all that stand in its fields, however deep."""
    if config in seen:
        return
    seen.add(config)
    yield config
    for kind in typing.get_type_hints(config).values():
        for inner in (kind, *typing.get_args(kind)):
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                yield from _sections(inner, seen)


def _definition(config: type) -> ast.ClassDef:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 the source of a class is one
    return definition


def _compared(compare: ast.Compare, constants: Mapping[str, Any]) -> dict[str, Range]:
    sides = [compare.left, *compare.comparators]
    found: dict[str, Range] = {}
    for at, side in enumerate(sides):
        match side:
            case ast.Attribute(ast.Name("self"), name):
                bounds = Range()
                for by, other, before in [
                    *((compare.ops[at - 1], sides[at - 1], True) for _ in range(at > 0)),
                    *((compare.ops[at], sides[at + 1], False) for _ in range(at + 1 < len(sides))),
                ]:
                    bounds = _bounded(bounds, by, _value(other, constants, min), before=before)
                if bounds != Range():
                    found[name] = bounds
    return found


def _bounded(bounds: Range, by: ast.cmpop, value: float | None, *, before: bool) -> Range:
    """The bounds with one comparison more: of a constant with the field if ``before``, else of the field with it."""
    if value is None or not isinstance(by, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
        return bounds
    open_ = isinstance(by, ast.Lt | ast.Gt)
    if isinstance(by, ast.Lt | ast.LtE) == before:
        return bounds._replace(low=value, open_low=open_)
    return bounds._replace(high=value, open_high=open_)


_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {ast.Mult: operator.mul, ast.Pow: operator.pow}


def _value(node: ast.expr, constants: Mapping[str, Any], wider: Callable[[list[float]], float]) -> float | None:
    """The number that an expression of constants is, the ``wider`` one of a choice; None for any other."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(name) if isinstance(constants.get(name), int | float):
            return float(constants[name]) if isinstance(constants[name], float) else int(constants[name])
        case ast.UnaryOp(ast.USub(), inner):
            found = [_value(inner, constants, wider)]
            join: Callable[[list[float]], float] = lambda both: -both[0]  # noqa: E731
        case ast.BinOp(left, by, right) if type(by) in _OPERATORS:
            found = [_value(side, constants, wider) for side in (left, right)]
            join = lambda both: _OPERATORS[type(by)](*both)  # noqa: E731
        case ast.IfExp(body=one, orelse=other):
            found, join = [_value(side, constants, wider) for side in (one, other)], wider
        case _:
            return None
    numbers = [value for value in found if value is not None]
    return join(numbers) if len(numbers) == len(found) else None

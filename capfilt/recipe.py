"""The typed recipe: the config classes of all rooms joined into one, and YAML turned into it.

A setting is described and checked beside the class it configures; here only its name and type are checked,
with errors that name the field. Knows YAML and types; runs nothing and loads neither torch nor ray.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from capfilt.catalog import recipe_file
from capfilt.errors import RecipeError, meant
from capfilt.fetch.config import FetchConfig
from capfilt.flow.config import PlanConfig
from capfilt.shards.commit import SinkConfig
from capfilt.sources.base import SourceConfig
from capfilt.stages.config import CapFiltConfig

T = TypeVar("T")

FREE_FIELDS = frozenset(
    {
        "source.path",  # what was read is in the plan's digest; the same bytes may lie elsewhere
        "source.images",  # and so may the pictures of annotations
        "fetch.timeout_connect_s",
        "fetch.timeout_read_s",
        "fetch.timeout_total_s",
        "fetch.concurrency",
        "fetch.per_host",
        "fetch.per_host_rate",
        "fetch.retries",
        "fetch.retry_wait_s",
        "fetch.retry_after_max_s",
        "fetch.threads",
        "capfilt.batch_size",  # moves a score by rounding at most, and is what one lowers when memory runs out
        "capfilt.device",
        "capfilt.cpus",
        "capfilt.cuda_graphs",
        "capfilt.gpus",
    }
)
"""Settings of speed and place: a run may go on with others than it began with."""

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text (in quotes, if it looks like something else)",
    "tuple_type": "a list",
    "list_type": "a list",
    "dataclass_type": "a section of fields",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a bootstrap writes."""

    source: SourceConfig
    """Where rows come from."""
    fetch: FetchConfig = field(default_factory=FetchConfig)
    """How pictures are fetched and which are refused."""
    capfilt: CapFiltConfig = field(default_factory=CapFiltConfig)
    """How pictures are captioned and texts filtered."""
    sink: SinkConfig = field(default_factory=SinkConfig)
    """What is written."""
    plan: PlanConfig = field(default_factory=PlanConfig)
    """How the source is cut into parts."""


def load(recipe: str | None = None, overrides: Sequence[str] = (), *, source: str | None = None) -> Recipe:
    """A recipe from a file or a name of the catalogue; None takes the defaults.

    >>> import capfilt
    >>> recipe = capfilt.load_recipe("bootstrap", ["capfilt.threshold=0.7"], source="pictures")
    >>> recipe.capfilt.threshold, recipe.sink.format
    (0.7, 'webdataset')

    Args:
        recipe: path or catalogue name.
        overrides: settings as ``section.field=value``, values in YAML; they win over the file.
        source: wins over ``source.path``.

    Raises:
        RecipeError: no such file, not YAML, unknown fields, wrong types or values out of range; names them all.
    """
    return load_config(Recipe, recipe, overrides, given={} if source is None else {"source.path": source})


def load_config(
    cls: type[T], file: str | None = None, overrides: Sequence[str] = (), *, given: Mapping[str, Any] | None = None
) -> T:
    """Any config dataclass from YAML, with the same checks and errors as :func:`load`.

    Args:
        cls: a dataclass whose sections are dataclasses.
        file: path or catalogue name of a YAML file; None takes the defaults.
        overrides: settings as ``section.field=value``, values in YAML; they win over the file.
        given: plain values by dotted name; they win over both.

    Raises:
        RecipeError: as :func:`load`.
    """
    path = None if file is None else recipe_file(file)
    data = {} if path is None else _read(path)
    settings = {**dict(_setting(text) for text in overrides), **(given or {})}
    for name, value in settings.items():
        _put(data, name, value)
    return _build(cls, _without_empty_sections(cls, data), where="" if path is None else str(path), set_by=settings)


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe's identity as plain JSON values: every field but :data:`FREE_FIELDS`, in the order of the classes.

    Two runs with equal identities and equal sources write the same data set.
    """
    return _without(to_json(recipe), "")


def to_json(config: Any) -> dict[str, Any]:
    """Every field of a config as plain JSON values, in the order of the classes."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(config))))


def _without(data: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if name in FREE_FIELDS:
            continue
        if isinstance(value, list):
            # Sections in a list (`source.also`) have the fields of the section that they stand in.
            told[key] = [_without(item, prefix) if isinstance(item, dict) else item for item in value]
        else:
            told[key] = _without(value, f"{name}.") if isinstance(value, dict) else value
    return told


class _Yaml(yaml.SafeLoader):
    """YAML 1.2's plain values (``1e-4`` is a number; ``no`` and dates are text) and no field given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, refused when a key stands in it twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Yaml.yaml_implicit_resolvers = {}  # its own, so that yaml.SafeLoader's table stays as it is
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Yaml.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )


def _parse(text: str) -> Any:
    loader = _Yaml(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _read(path: Path) -> dict[str, Any]:
    mend = "Compare it with pipelines/bootstrap.yaml."
    try:
        data = _parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot be read: {error}", where=str(path), mend="Give a YAML file.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"not YAML: {_yaml_problem(error)}", where=str(path), mend=mend) from error
    if data is not None and not isinstance(data, dict):
        raise RecipeError("not a list of named fields", where=str(path), mend=mend)
    return data or {}


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
    return f"{getattr(error, 'problem', None) or error}{place}"


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not all(name.strip().split(".")):
        raise RecipeError(f"{text!r} is not a setting", where="--set", mend="Write it as section.field=value.")
    try:
        return name.strip(), _parse(value)
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(
            f"the value of {name.strip()} is not YAML: {_yaml_problem(error)}", where="--set", mend="Put it in quotes."
        ) from error


def _put(data: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = data.get(section)
        # What is no section gives way: the check of types then says what belongs there.
        data[section] = dict(inner) if isinstance(inner, dict) else {}
        data = data[section]
    data[last] = value


def _without_empty_sections(cls: type, data: dict[str, Any]) -> dict[str, Any]:
    """A section whose lines are all commented out reads as null, and means its defaults."""
    hints = typing.get_type_hints(cls)
    return {
        key: _without_empty_sections(hints[key], value or {})
        if dataclasses.is_dataclass(hints.get(key)) and isinstance(value, dict | None)
        else value
        for key, value in data.items()
    }


@dataclass(frozen=True)
class _Problem:
    field: str
    what: str
    mend: str


def _build(cls: type[T], data: dict[str, Any], *, where: str, set_by: Mapping[str, Any]) -> T:
    problems: list[_Problem] = []
    while True:
        try:
            text = json.dumps(data)  # strict JSON, unlike strict Python, has tuples and takes 1 for 1.0
            made = TypeAdapter(cls).validate_json(text, strict=True, extra="forbid")
            break
        except RecipeError as error:  # a class's own check
            found = [_own_problem(cls, data) or _Problem(error.where, error.what, error.mend)]
        except ValidationError as error:
            found = [_problem(cls, detail) for detail in error.errors()]
        except (TypeError, ValueError, RecursionError) as error:
            found = [_Problem("", f"holds what no setting can be: {error}", "Use plain text, numbers and lists.")]
        problems += [problem for problem in found if problem.field not in {told.field for told in problems}]
        # A class checks its ranges only when its types are right: look on without what is wrong.
        if not any([_take_out(data, problem.field) for problem in found]):  # noqa: C419 take out all, not the first
            break
    if problems:
        raise _joined(problems, where, set_by)
    return made


def _own_problem(cls: type, data: Mapping[str, Any]) -> _Problem | None:
    """What a section's own check finds. A section knows its place in the recipe that it is made for, and not where
    that recipe stands inside another: the sections above it are put before its fields."""
    for section, kind, values in _sections(cls, data):
        try:
            TypeAdapter(kind).validate_json(json.dumps(values), strict=True, extra="forbid")
        except RecipeError as error:
            found = _own_problem(kind, values) or _Problem(error.where, error.what, error.mend)
            if found.field.partition(".")[0] == section:
                return found
            return dataclasses.replace(found, field=f"{section}.{found.field}")
        except (ValidationError, TypeError, ValueError, RecursionError):
            continue  # told by the whole's own validation
    return None


def _sections(cls: type, data: Mapping[str, Any]) -> Iterator[tuple[str, type, dict[str, Any]]]:
    """Name, class and values of each section that is given; those of a mapping of sections as ``mapping.key``."""
    hints = typing.get_type_hints(cls)
    for name, values in data.items():
        kind = hints.get(name)
        given = {name: values}
        if typing.get_origin(kind) is dict and isinstance(values, dict):
            kind = typing.get_args(kind)[1]
            given = {f"{name}.{key}": value for key, value in values.items()}
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from ((place, kind, own) for place, own in given.items() if isinstance(own, dict))


def _joined(problems: list[_Problem], where: str, set_by: Mapping[str, Any]) -> RecipeError:
    if all(problem.field in set_by for problem in problems):
        where = "--set"
    what = "; ".join(f"{p.field}: {p.what}" if p.field else p.what for p in problems)
    return RecipeError(what, where=where, mend=" ".join(dict.fromkeys(p.mend for p in problems if p.mend)))


def _take_out(data: dict[str, Any], name: str) -> bool:
    inner: Any = data
    for piece in name.split("."):
        if isinstance(inner.get(piece), list):
            # One wrong item spoils its list: without it, the next would stand in its place.
            return inner.pop(piece) is not data
        if not isinstance(inner.get(piece), dict):
            return inner.pop(piece, data) is not data
        outer, inner = inner, inner[piece]
    return outer.pop(piece) is not data


def _problem(cls: type, detail: ErrorDetails) -> _Problem:
    path = [str(piece) for piece in detail["loc"]]
    name, kind = ".".join(path), detail["type"]
    if kind == "unexpected_keyword_argument":
        return _Problem(name, "no such field", _nearest(_section(cls, path[:-1]), path))
    if kind == "missing":
        return _Problem(name, "is needed and not given", f"Give {name}.")
    expected = _EXPECTED.get(kind, "")
    if kind == "literal_error":
        expected = f"one of {detail['ctx']['expected'].replace(' or ', ', ')}"
        near = meant(str(detail["input"]), re.findall("'([^']+)'", expected))
        return _Problem(name, f"{detail['input']!r} is not {expected}", f"{near}Give {expected}.")
    if not expected:
        return _Problem(name, f"{detail['msg']}, not {detail['input']!r}", "")
    return _Problem(name, f"{detail['input']!r} is not {expected}", f"Give {expected}.")


def _section(cls: type, path: Sequence[str]) -> type:
    for piece in path:
        if typing.get_origin(cls) is dict:
            cls = typing.get_args(cls)[1]  # whatever the key, all of a mapping's sections are alike
        elif piece.isdigit():
            cls = typing.get_args(cls)[0]  # an item's place in a list of sections
        else:
            cls = typing.get_type_hints(cls)[piece]
    return cls


def _nearest(section: type, path: Sequence[str]) -> str:
    names = [f.name for f in dataclasses.fields(section)]
    prefix = ".".join([*path[:-1], ""])
    close = meant(path[-1], names, before=prefix)
    return f"{close}The fields{f' of {prefix[:-1]}' if prefix else ''} are {', '.join(names)}."

"""The schema is what the classes check: every shipped recipe passes, and each bound is the class's own."""

import json
import typing

import jsonschema
import pytest
import yaml

from capfilt import catalog
from capfilt.cli.main import call
from capfilt.cli.schema import Kind, of
from capfilt.errors import RecipeError
from capfilt.fetch.config import FetchConfig
from capfilt.images import ImageLimits
from capfilt.recipe import Recipe, load_config
from capfilt.rounds.config import HeldOutConfig
from capfilt.schema import Range, docs, ranges
from capfilt.service.config import JobsConfig, LimitsConfig, ServiceConfig
from capfilt.stages.config import CapFiltConfig
from capfilt.train.config import DataConfig, MixConfig, ObjectiveConfig, OptimConfig, TrainConfig


def kind_of(recipe):
    if "bootstrap" in recipe:
        return Kind.ROUNDS
    task = recipe.get("task")
    return Kind.BOOTSTRAP if task is None else Kind.PRETRAIN if task == "pretrain" else Kind.FINETUNE


def wrong(kind, recipe):
    """What the schema has against a recipe: the place, and the rule."""
    found = jsonschema.Draft202012Validator(of(kind)).iter_errors(recipe)
    return {(".".join(map(str, error.absolute_path)), error.validator) for error in found}


@pytest.mark.parametrize("kind", Kind)
def test_it_is_a_schema_and_tells_of_each_field(kind):
    told = of(kind)
    jsonschema.Draft202012Validator.check_schema(told)
    for section in (told, *told["$defs"].values()):
        assert section["additionalProperties"] is False
        assert section["description"]
        assert all(field["description"] for field in section["properties"].values())


@pytest.mark.parametrize("name", catalog.recipes())
def test_every_shipped_recipe_passes(name):
    recipe = yaml.safe_load(catalog.recipe_file(name).read_text())
    assert wrong(kind_of(recipe), recipe) == set()


@pytest.mark.parametrize(
    ("recipe", "found"),
    [
        ({"capfilt": {"threshold": 2}}, {("capfilt", "anyOf")}),
        ({"capfilt": {"treshold": 0.5}}, {("capfilt", "anyOf")}),
        ({"sink": {"format": "zip"}}, {("sink", "anyOf")}),
        ({"sunk": {}}, {("", "additionalProperties")}),
        ({"source": {"also": [{"path": 3}]}}, {("source", "anyOf")}),
        ({"plan": None, "capfilt": {"batch_size": None, "threshold": -1}}, set()),
    ],
)
def test_mistakes_are_found(recipe, found):
    assert wrong(Kind.BOOTSTRAP, recipe) == found


def test_a_task_of_another_command_is_found():
    assert wrong(Kind.PRETRAIN, {"task": "filter"}) == {("task", "enum")}
    assert wrong(Kind.FINETUNE, {"task": "pretrain"}) == {("task", "enum")}


CHECKED = [CapFiltConfig, FetchConfig, ImageLimits, DataConfig, MixConfig, OptimConfig, ObjectiveConfig, TrainConfig]
CHECKED += [HeldOutConfig, LimitsConfig, JobsConfig, ServiceConfig]
TOGETHER = {"threshold": {"judge_by": "itc"}, "max_length": {"min_length": 0}, "lr": {"min_lr": 0.0, "warmup_lr": 0.0}}
TOGETHER["body_bytes"] = {"bodies_bytes": 2**45}
UNBOUNDED = {"seed"}


@pytest.mark.parametrize("config", CHECKED)
def test_each_bound_is_where_the_class_refuses(config):
    """Just beyond each bound the class refuses and names the field; at it, the field is not what it complains of."""
    hints = typing.get_type_hints(config)
    numbers = {name for name, hint in hints.items() if hint in (int, float, int | None, float | None)}
    found = ranges(config)
    assert numbers - set(found) <= UNBOUNDED
    for name, (low, high, open_low, open_high) in found.items():
        more = TOGETHER.get(name, {})
        for bound, step, is_open in ((low, -1, open_low), (high, 1, open_high)):
            if bound is None:
                continue
            whole = hints[name] in (int, int | None)
            beyond = bound if is_open else bound + step * (1 if whole else max(1e-9, abs(bound) * 1e-6))
            with pytest.raises(RecipeError) as refused:
                config(**{name: beyond, **more})
            assert refused.value.where.endswith(name)
            if not is_open and not complains(config, {name: bound, **more}, name):
                continue
            assert is_open, f"{name}: {bound}"


def complains(config, fields, name):
    try:
        config(**fields)
    except RecipeError as error:
        return error.where.endswith(name) and "is not within" in error.what
    return False


def test_a_choice_takes_the_wider_range_and_another_field_is_no_bound():
    assert ranges(CapFiltConfig)["threshold"] == Range(-1.0, 1.0)
    assert ranges(CapFiltConfig)["min_length"] == Range(0, None)
    assert ranges(FetchConfig)["timeout_read_s"] == Range(0, None, open_low=True)


def test_docs_are_those_of_the_source():
    assert docs(Recipe)["plan"] == "How the source is cut into parts."
    assert docs(TrainConfig)["compile"].endswith("and a C++ compiler on a CPU.")


def test_it_is_printed(capsys):
    assert call(["schema", "finetune"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["title"] == "A recipe of capfilt finetune"
    assert told["properties"]["task"]["enum"] == ["captioner", "filter"]
    loaded = load_config(TrainConfig, "finetune-filter")
    assert set(told["properties"]) == set(vars(loaded))

"""Recipes: the shipped ones are complete and true, and a mistake in one is named with its mend."""

import dataclasses
import json
import subprocess
import sys
import typing

import pytest
import yaml

from capfilt.catalog import recipe_file
from capfilt.errors import RecipeError
from capfilt.paper.config import Table
from capfilt.recipe import FREE_FIELDS, Recipe, load, load_config, resolved, to_json
from capfilt.train.config import TrainConfig


@pytest.fixture
def write(tmp_path):
    def to(text):
        file = tmp_path / "mine.yaml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return to


def dotted(cls, prefix=""):
    """Names of all fields of a config class and of its sections."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from dotted(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def leaves(data, prefix=""):
    for key, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_the_annotated_recipe_names_every_field_and_equals_the_defaults():
    text = recipe_file("bootstrap").read_text()
    named = set(leaves(yaml.safe_load(text)))
    assert named == set(dotted(Recipe)) - {"source.path"}
    assert load("bootstrap", source="x") == load(None, source="x")
    bare = [line for line in text.splitlines() if line.strip() and not line.rstrip().endswith(":") and "#" not in line]
    assert bare == [], "every field has its comment"


@pytest.mark.parametrize("name", ["bootstrap", "quickstart"])
def test_shipped_recipes_load(name):
    assert isinstance(load(name, source="x"), Recipe)


def test_the_file_is_overridden_by_settings_and_these_by_the_source(write):
    file = write("plan: {part_rows: 10}\ncapfilt: {threshold: 0.7}\nsource: {path: a}\n")
    recipe = load(file, ["plan.part_rows=20", "capfilt.captioner=null", "source.path=b"], source="c")
    assert (recipe.plan.part_rows, recipe.capfilt.threshold, recipe.source.path) == (20, 0.7, "c")
    assert recipe.capfilt.captioner is None


@pytest.mark.parametrize(
    ("text", "named", "mend"),
    [
        ("plan: {part_rows: abc}", "plan.part_rows: 'abc' is not a whole number", "Give a whole number."),
        ("plan: {part_rows: 1.5}", "plan.part_rows", "whole number"),
        ("plan: {part_rows: true}", "plan.part_rows", "whole number"),
        ("plan: {part_rows: '12'}", "plan.part_rows", "whole number"),
        ("plan: {part_rows: 0}", "plan.part_rows: 0 is not within [1, 1e+06]", "in that range"),
        ("plan: {part_row: 5}", "plan.part_row: no such field", "Did you mean plan.part_rows?"),
        ("plam: {part_rows: 5}", "plam: no such field", "Did you mean plan?"),
        ("plan: [1]", "plan: [1] is not a section of fields", ""),
        ("plan: 3", "plan: 3 is not a section", ""),
        ("capfilt: {threshold: .nan}", "capfilt.threshold: nan", "in that range"),
        ("capfilt: {threshold: high}", "capfilt.threshold: 'high' is not a number", "Give a number"),
        ("capfilt: {decoding: random}", "capfilt.decoding: 'random' is not one of 'nucleus', 'beam', 'greedy'", ""),
        ("capfilt: {decoding: greedy, captions_per_image: 2}", "greedy decoding cannot give 2 captions", "nucleus"),
        ("capfilt: {decoding: beam, captions_per_image: 4}", "beam search with 3 beams cannot give 4 captions", ""),
        ("capfilt: {captioner: 12}", "capfilt.captioner: 12 is not text", "quotes"),
        ("capfilt: {captioner: null, filter: null}", "captioner and filter are both null", ""),
        ("capfilt: {skip_repeats: no}", "capfilt.skip_repeats: 'no' is not true or false", ""),
        ("fetch: {allow_addresses: 127.0.0.0/8}", "fetch.allow_addresses: '127.0.0.0/8' is not a list", "a list"),
        ("fetch: {allow_addresses: [nowhere]}", "fetch.allow_addresses", "CIDR"),
        ("fetch: {images: {max_sid: 3}}", "fetch.images.max_sid: no such field", "fetch.images.max_side"),
        ("fetch: {1: 2}", "fetch.1: no such field", ""),
        ("plan: {part_rows: 1}\nplan: {part_rows: 2}", "plan is there twice", ""),
        ("plan: {part_rows: 1", "line", ""),
        ("- a\n- b", "not a list of named fields", ""),
        ("just words", "not a list of named fields", ""),
        ("plan: {part_rows: !!binary aGk=}", "holds what no setting can be", ""),
        ("plan: !!python/object/apply:os.system ['true']", "not YAML", ""),
        ("a: &a [*a]", "", ""),
        ("\x00", "not YAML", ""),
    ],
)
def test_a_mistake_is_named_with_its_field_its_file_and_its_mend(write, text, named, mend):
    file = write(text)
    with pytest.raises(RecipeError) as caught:
        load(file, source="x")
    assert named in caught.value.what
    assert mend in caught.value.mend
    assert caught.value.where == file


def test_all_mistakes_are_told_at_once(write):
    with pytest.raises(RecipeError) as caught:
        load(write("plan: {part_rows: 0}\ncapfilt: {threshold: 7, top_pp: 1}\nfetch: {retries: x}\n"), source="x")
    for name in ("plan.part_rows", "capfilt.threshold", "capfilt.top_pp", "fetch.retries"):
        assert name in caught.value.what


@pytest.mark.parametrize("setting", ["plan.part_rows", "=3", "plan..part_rows=3", "plan.part_rows=[", ".=1"])
def test_a_setting_that_is_none(setting):
    with pytest.raises(RecipeError) as caught:
        load(None, [setting], source="x")
    assert caught.value.where == "--set"


def test_a_wrong_value_of_a_setting_is_told_of_the_command_line_and_not_of_the_file(write):
    with pytest.raises(RecipeError) as caught:
        load(write("plan: {part_rows: 5}"), ["plan.part_rows=many"], source="x")
    assert caught.value.where == "--set"


def test_a_setting_below_a_plain_value_is_refused():
    with pytest.raises(RecipeError, match=r"plan\.part_rows"):
        load(None, ["plan.part_rows.deep=1"], source="x")


def test_a_recipe_without_a_source():
    with pytest.raises(RecipeError, match="source"):
        load(None)


def test_a_file_that_is_no_text(tmp_path):
    file = tmp_path / "picture.yaml"
    file.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(RecipeError, match="cannot be read"):
        load(str(file), source="x")


def test_numbers_and_words_are_read_as_people_write_them():
    config = load_config(TrainConfig, None, ["optim.lr=1e-4", "out=2024-01-01", "model=no", "epochs=+3"])
    assert (config.optim.lr, config.out, config.model, config.epochs) == (1e-4, "2024-01-01", "no", 3)
    assert load(None, ["source.url_column=on"], source="x").source.url_column == "on"


def test_a_section_with_all_its_lines_commented_out_means_the_defaults(write):
    assert load(write("plan:\n  # part_rows: 3\ncapfilt:\nfetch:\n  images:\n"), source="x") == load(None, source="x")


def test_lists_of_a_training_recipe(write):
    file = write("data:\n  shards: [a, b]\n")
    assert load_config(TrainConfig, file).data.shards == ("a", "b")
    assert load_config(TrainConfig, file, given={"data.shards": ["c"]}).data.shards == ("c",)


JOINED = [("here", "human"), ("elsewhere", "human"), ("here", "web")]


def test_the_identity_holds_all_that_changes_a_result_and_nothing_else():
    recipe = load(None, source="x")
    named = set(leaves(resolved(recipe)))
    assert named == set(dotted(Recipe)) - FREE_FIELDS
    assert set(dotted(Recipe)) >= FREE_FIELDS
    faster = load(None, ["capfilt.device=cpu", "capfilt.cpus=2", "fetch.concurrency=3"], source="elsewhere")
    assert resolved(faster) == resolved(recipe)
    assert resolved(load(None, ["capfilt.threshold=0.6"], source="x")) != resolved(recipe)
    joined = [load(None, [f"source.also=[{{path: {p}, origin: {o}}}]"], source="x") for p, o in JOINED]
    assert resolved(joined[0]) == resolved(joined[1]) != resolved(joined[2])
    assert resolved(joined[0]) != resolved(recipe)


def test_a_mistake_in_a_joined_source_is_told_by_its_place(write):
    file = write("source:\n  also:\n  - {path: a}\n  - {path: b, origine: human}\n  - {path: c, kind: movie}\n")
    with pytest.raises(RecipeError) as caught:
        load(file, source="x")
    assert "source.also.1.origine: no such field" in caught.value.what
    assert "source.also.2.kind" in caught.value.what
    assert "Did you mean source.also.1.origin?" in caught.value.mend
    with pytest.raises(RecipeError, match="has others that join it"):
        load(write("source: {also: [{path: a, also: [{path: b}]}]}"), source="x")


@pytest.mark.parametrize(
    ("arm", "named", "mend"),
    [
        ("two: {title: b, captionr: true}", "arms.two.captionr: no such field", "Did you mean arms.two.captioner?"),
        ("7: {title: b, captionr: true}", "arms.7.captionr: no such field", "Did you mean arms.7.captioner?"),
        ("two: {title: b, captions: many}", "arms.two.captions: 'many' is not a whole number", "whole number"),
        ("two: {title: b, captions: 65}", "arms.two.captions: 65 is not within [1, 64]", "in that range"),
        ("captions: {title: b, captions: 65}", "arms.captions.captions: 65 is not within [1, 64]", "in that range"),
        ("two: {title: b, rounds: 2}", "arms.two.rounds: nothing is bootstrapped", "captioner: true"),
        ("two: {captioner: true}", "arms.two.title: is needed", "Give arms.two.title."),
        ("two: 3", "arms.two: 3 is not a section", ""),
    ],
)
def test_a_mistake_in_one_of_several_named_sections_is_told_by_its_name(write, arm, named, mend):
    with pytest.raises(RecipeError) as caught:
        load_config(Table, write(f"title: t\nsection: s\narms:\n  one: {{title: a}}\n  {arm}\n"))
    assert named in caught.value.what
    assert mend in caught.value.mend


def test_the_identity_is_a_recipe_again(write):
    recipe = load(None, ["capfilt.threshold=0.6", "fetch.allow_addresses=[127.0.0.0/8]"], source="x")
    assert load(write(yaml.safe_dump(resolved(recipe))), source="x") == recipe
    assert json.loads(json.dumps(to_json(recipe))) == to_json(recipe)


def test_reading_a_recipe_loads_neither_torch_nor_ray():
    code = (
        "import sys; from capfilt.recipe import load; load(None, source='x'); print({'torch','ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

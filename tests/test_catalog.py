"""Names of the catalogue, in this checkout and in a made-up installation."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from capfilt import catalog
from capfilt.errors import ModelError, RecipeError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def installed(tmp_path):
    """A copy of the package as a wheel lays it out, with two models, one recipe and the sample."""
    package = tmp_path / "site" / "capfilt"
    package.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "catalog.py"):
        shutil.copy(ROOT / "capfilt" / name, package / name)
    shipped = package / "_shipped"
    for part in ("captioner", "filter"):
        (shipped / "models" / "tiny" / part).mkdir(parents=True)
        (shipped / "models" / "tiny" / part / "model.yaml").write_text("vision: {}\n")
    (shipped / "pipelines" / "sample").mkdir(parents=True)
    (shipped / "pipelines" / "small.yaml").write_text("plan: {}\n")

    def ask(expression: str) -> str:
        code = f"from capfilt import catalog; print({expression})"
        run = [sys.executable, "-c", code]
        return subprocess.run(run, cwd=package.parent, capture_output=True, text=True, check=True).stdout.strip()

    return ask


def test_an_installed_wheel_carries_its_catalogue_inside(installed):
    assert installed("catalog.models()") == "['tiny/captioner', 'tiny/filter']"
    assert installed("catalog.recipes()") == "['small']"
    assert installed("catalog.model_folder('tiny/filter').name") == "filter"
    assert installed("catalog.model_folder('tiny').name") == "tiny"
    assert installed("catalog.recipe_file('small').name") == "small.yaml"
    assert installed("catalog.sample().name") == "sample"


def test_a_checkout_has_its_catalogue_beside_the_package():
    assert "bootstrap" in catalog.recipes()
    assert (
        catalog.recipe_file("bootstrap") == catalog.recipe_file("bootstrap.yaml") == ROOT / "pipelines/bootstrap.yaml"
    )


def test_paths_win_over_names(tmp_path):
    (tmp_path / "mine").mkdir()
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("")
    assert catalog.model_folder(str(tmp_path / "mine")) == tmp_path / "mine"
    assert catalog.recipe_file(str(recipe)) == recipe


@pytest.mark.parametrize("name", ["nothing-like-it", "", "../capfilt", "/etc/nothing", "a//b", "med-mini\\x"])
def test_an_unknown_model_is_an_error_that_lists_the_known(name):
    with pytest.raises(ModelError) as caught:
        catalog.model_folder(name)
    assert "The catalogue has" in caught.value.mend


def test_an_unknown_recipe_is_an_error_with_the_nearest_name():
    with pytest.raises(RecipeError) as caught:
        catalog.recipe_file("bootstrp")
    assert "Did you mean bootstrap?" in caught.value.mend


def test_a_recipe_name_does_not_reach_other_files():
    with pytest.raises(RecipeError):
        catalog.recipe_file("../pyproject")

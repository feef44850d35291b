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


@pytest.mark.parametrize(
    ("name", "image", "text"),
    [
        ("base-224", 86e6, 166e6),
        ("base-384", 86e6, 166e6),
        ("large-224", 304e6, 170e6),
        ("large-384", 304e6, 170e6),
    ],
)
def test_the_papers_sizes_are_in_the_catalogue_and_can_be_built(name, image, text):
    """ViT-B has 86M and ViT-L 304M parameters; both with BERT-base make 252M with ViT-B (paper, Table 3)."""
    import torch

    from capfilt.med.config import MEDConfig
    from capfilt.med.model import MED
    from capfilt.med.tokenizer import MEDTokenizer

    folder = catalog.model_folder(f"blip/{name}")
    with torch.device("meta"):
        med = MED(MEDConfig.load(folder), MEDTokenizer.load(folder))
    counts = [sum(p.numel() for p in part.parameters()) for part in (med.vision, med.text)]
    assert counts == [pytest.approx(image, rel=0.01), pytest.approx(text, rel=0.01)]
    assert (med.tokenizer.dec, med.tokenizer.enc, med.tokenizer.sep) == (30522, 30523, 102)


@pytest.mark.parametrize("name", [name for name in catalog.recipes() if "/" not in name and "sample" not in name])
def test_the_recipe_of_each_training_names_a_model_with_words(name):
    import yaml

    from capfilt.med.config import vocabulary

    recipe = yaml.safe_load(catalog.recipe_file(name).read_text())
    model = recipe.get("model") if "task" in recipe else None
    assert model is None or vocabulary(catalog.model_folder(model)).is_file()

"""The public face: what a user imports is there, typed, documented, light to load, and does what its examples show."""

import doctest
import inspect
import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import capfilt
from capfilt import catalog

FEW = [
    "animals-birds-new-penguin-charles-mcco-01.jpg",
    "recreation-music-guitar-jarno-vasamaa1.jpg",
    "animals-bugs-butterfly-jonvdveen-01.jpg",
    "recreation-music-violin-colour-ganson.jpg",
    "computer-hardware-laptop.jpg",
    "education-scissors.jpg",
    "food-desserts-cone-soft-chocolate.jpg",
    "animals-fish-dolphin-enrique-meza-c-01.jpg",
    "people-clothing-hats-pimp-hat-james-birkett-01.jpg",
]
NAMED = {FEW[0]: "penguin.jpg", FEW[1]: "guitar.jpg", FEW[5]: "scissors.jpg"}


def python(code, *args, cwd=None):
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_loads_nothing_heavy():
    loaded = python("import sys, capfilt; print([m for m in sys.modules if m.startswith('capfilt')], len(sys.modules))")
    assert loaded.startswith("['capfilt'] ")
    assert int(loaded.rpartition(" ")[2]) < 120


def test_every_name_is_there_and_documented():
    assert dir(capfilt) == sorted(capfilt.__all__)
    for name in capfilt.__all__:
        thing = getattr(capfilt, name)
        assert callable(thing), name
        assert inspect.getdoc(thing), name
        assert thing.__module__.startswith("capfilt."), name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'capfilt' has no attribute 'bootstrapp'"):
        capfilt.bootstrapp  # noqa: B018


@pytest.mark.parametrize("name", ["bootstrap", "evaluate", "dedup", "refilter"])
def test_a_room_of_a_function_s_name_does_not_take_its_place(name):
    told = python(f"""
import sys, types
import capfilt.{name}
from capfilt import {name}
assert callable({name}) and not isinstance({name}, types.ModuleType), {name}
assert isinstance(sys.modules["capfilt.{name}"], types.ModuleType)
from importlib import import_module
assert import_module("capfilt.{name}") is sys.modules["capfilt.{name}"]
import capfilt
assert capfilt.{name} is {name}
print("good")
""")
    assert told == "good"


def test_the_light_names_load_no_torch():
    told = python(
        "import sys; from capfilt import Recipe, RunConfig, bootstrap, read, load_recipe; print('torch' in sys.modules)"
    )
    assert told == "False"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with ``pictures``, nine of the sample with a text each, and ``clean``, made of them."""
    if not {"med-mini/captioner", "med-mini/filter"} <= set(catalog.models()):
        pytest.skip("models/med-mini has no weights: make med-mini")
    root = tmp_path_factory.mktemp("place")
    (root / "pictures").mkdir()
    for name in FEW:
        target = root / "pictures" / NAMED.get(name, name)
        shutil.copy(catalog.sample() / "images" / name, target)
        target.with_suffix(".txt").write_text(target.stem.replace("-", " "), encoding="utf-8")
    recipe = capfilt.load_recipe(source=str(root / "pictures"))
    capfilt.bootstrap(str(root / "pictures"), str(root / "clean"), recipe=recipe, run=capfilt.RunConfig(runner="local"))
    return root


def examples():
    """Doctests of the face and of all it names, each once."""
    finder = doctest.DocTestFinder(recurse=True, exclude_empty=True)
    found = [doctest.DocTestParser().get_doctest(capfilt.__doc__, {}, "capfilt", None, 0)]
    for name in capfilt.__all__:
        thing = getattr(capfilt, name)
        found += [
            test
            for test in finder.find(thing, f"capfilt.{name}", module=import_module(thing.__module__))
            if test.examples
        ]
    return found


def test_there_are_examples_of_each_function():
    without = {n for n in capfilt.__all__ if n.islower()} - {test.name.removeprefix("capfilt.") for test in examples()}
    assert without == set()
    assert {"capfilt.Captioner", "capfilt.Filter", "capfilt.MED", "capfilt"} <= {test.name for test in examples()}


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_the_example_shows_what_happens(test, place, monkeypatch):
    monkeypatch.chdir(place)
    told = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(test, out=told.append, clear_globs=False)
    assert tried
    assert not failed, "".join(told)


def test_captions_are_those_of_any_batch_and_another_seed_gives_others(place):
    captioner = capfilt.Captioner.load(catalog.model_folder("med-mini/captioner"))
    files = sorted(p for p in (place / "pictures").iterdir() if p.suffix != ".txt")
    whole = captioner.write(files, captions=2)
    assert captioner.write(files[::-1], captions=2, batch_size=2)[::-1] == whole
    assert captioner.write([file.read_bytes() for file in files], captions=2, batch_size=4) == whole
    assert captioner.write(files, captions=2, seed=1) != whole


def test_mistakes_are_told_as_everywhere(place):
    with pytest.raises(capfilt.CapfiltError, match="Did you mean med-mini/filter"):
        capfilt.Filter.load("med-mini/filtre")
    judge = capfilt.Filter.load("med-mini/filter", device="cpu")
    with pytest.raises(capfilt.CapfiltError, match="there is no such file"):
        judge.score([place / "nowhere.png"], [["a"]])
    with pytest.raises(capfilt.CapfiltError, match="it cannot be decoded"):
        judge.score([b"no picture"], [["a"]])
    with pytest.raises(capfilt.CapfiltError, match="2 lists of texts for 1 pictures"):
        judge.score([place / "pictures/penguin.jpg"], [["a"], ["b"]])
    beam = capfilt.Captioner.load("med-mini/captioner", decoding="beam", device="cpu")
    with pytest.raises(capfilt.CapfiltError, match="beam search with 3 beams cannot give 5 captions"):
        beam.write([place / "pictures/penguin.jpg"], captions=5)
    with pytest.raises(capfilt.CapfiltError, match="a model and its checkpoints are written to a folder"):
        capfilt.pretrain(str(place / "clean"), "s3://bucket/model")
    with pytest.raises(capfilt.CapfiltError, match="the recipe's task is pretrain, and captioner was asked for"):
        capfilt.finetune("captioner", str(place / "clean"), place / "x", recipe="pretrain")


TYPED = """
from collections.abc import Iterator
from typing import Any
import capfilt
from capfilt import Sample, Score
captioner: capfilt.Captioner = capfilt.Captioner.load("med-mini/captioner")
captions: list[list[str]] = captioner.write(["a.png"])
scores: list[list[Score]] = capfilt.Filter.load("med-mini/filter").score(["a.png"], captions)
samples: Iterator[Sample] = capfilt.read("clean")
model: capfilt.MED
figures: dict[str, Any] = capfilt.evaluate("med-mini/filter", "clean", measures=["filtering"])
capfilt.bootstrap(1, "clean")
capfilt.nothing
"""


@pytest.mark.slow
def test_a_type_checker_sees_the_types(tmp_path):
    (tmp_path / "mine.py").write_text(TYPED)
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(root / "pyproject.toml"), "--output=json"]
    done = subprocess.run([*command, tmp_path / "mine.py"], cwd=root, capture_output=True, text=True, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [(t["line"], t["code"]) for t in told] == [(12, "arg-type"), (13, "attr-defined")], done.stdout + done.stderr
    assert (root / "capfilt/py.typed").is_file()

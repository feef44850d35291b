"""The rules of the house that a machine can check."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "capfilt").rglob("*.py"))
BIN = Path(sys.executable).parent


def test_each_floor_imports_only_floors_below():
    done = subprocess.run([BIN / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_unpickles():
    loads = re.compile(r"^\s*(import|from) (pickle|cloudpickle|dill|marshal|shelve|joblib)\b", re.M)
    assert [str(f) for f in SOURCES if loads.search(f.read_text())] == []


def test_torch_load_reads_weights_only():
    calls = re.compile(r"\btorch\.load\((?P<args>[^()]*(\([^()]*\)[^()]*)*)\)")
    bad = [f for f in SOURCES for c in calls.finditer(f.read_text()) if "weights_only=True" not in c["args"]]
    assert bad == []


def test_no_shell():
    shells = re.compile(r"shell=True|os\.system\(|os\.popen\(|\bpipe:")
    assert [str(f) for f in SOURCES if shells.search(f.read_text())] == []


def test_no_drawer_of_odds_and_ends():
    assert [f for f in SOURCES if f.stem in {"utils", "util", "helpers", "common", "misc"}] == []


def test_package_inits_only_describe():
    busy = [f for f in SOURCES if f.name == "__init__.py" and re.search(r"^(import|from) ", f.read_text(), re.M)]
    assert busy == [ROOT / "capfilt/__init__.py"], "the one public face"


HEAVY = ("torch", "torchvision", "timm", "transformers", "ray", "pyarrow", "numpy", "PIL", "pandas", "aiohttp")


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["bootstrap", "--help"],
        ["pretrain", "--help"],
        ["rounds", "--help"],
        ["paper", "--help"],
        ["inspect", "--help"],
        ["serve", "--help"],
    ],
)
def test_help_loads_nothing_heavy(args):
    probe = (
        "import sys; from capfilt.cli.main import call; code = call(sys.argv[1:]); "
        f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules]); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", probe, *args], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


LIGHT = [
    "capfilt.recipe",
    "capfilt.bootstrap",
    "capfilt.train.config",
    "capfilt.sources.opening",
    "capfilt.sources.inspect",
    "capfilt.fetch.client",
    "capfilt.shards.commit",
    "capfilt.report.page",
    "capfilt.rounds.config",
]


@pytest.mark.parametrize("module", LIGHT)
def test_planning_and_reporting_load_no_torch(module):
    probe = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'timm', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_wheel_carries_recipes_and_models(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("capfilt-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    outside = {n.split("/")[0] for n in names} - {"capfilt"}
    assert all(n.endswith(".dist-info") for n in outside)
    for folder in ("pipelines", "models"):
        tracked = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
        missing = [n for n in tracked.stdout.split() if f"capfilt/_shipped/{n}" not in names]
        assert missing == []

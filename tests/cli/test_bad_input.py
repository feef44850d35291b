"""What a user can get wrong: always two lines on stderr, exit 2, no traceback, and nothing written."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = Path(sys.executable).with_name("capfilt")
ROWS = {"url": ["http://127.0.0.1:9/a.png", "http://127.0.0.1:9/b.png"], "caption": ["a cat", "a dog"]}


class Case(NamedTuple):
    name: str
    arguments: Callable[[Path], list[object]]
    told: tuple[str, ...]


def good(folder: Path) -> Path:
    pq.write_table(pa.table(ROWS), folder / "good.parquet")
    return folder / "good.parquet"


def written(file: Path, data: str | bytes) -> Path:
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


def table(file: Path, columns: dict[str, list[object]]) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def with_recipe(folder: Path, text: str) -> list[object]:
    return [good(folder), folder / "dest", "--recipe", written(folder / "mine.yaml", text)]


def with_set(folder: Path, *settings: str) -> list[object]:
    return [good(folder), folder / "dest", *(piece for setting in settings for piece in ("--set", setting))]


SOURCES = [
    Case("missing file", lambda f: [f / "none.parquet", f / "dest"], ("none.parquet",)),
    Case("missing folder", lambda f: [f / "none/", f / "dest"], ("none",)),
    Case("glob of nothing", lambda f: [f / "*.csv", f / "dest"], ("*.csv",)),
    Case(
        "missing column",
        lambda f: [table(f / "t.parquet", {"address": ["x"], "words": ["y"]}), f / "dest"],
        ("t.parquet", "url", "address", "words"),
    ),
    Case(
        "missing named column",
        lambda f: [good(f), f / "dest", "--set", "source.caption_column=words"],
        ("good.parquet", "words", "caption"),
    ),
    Case("missing column of a csv", lambda f: [written(f / "t.csv", "a,b\n1,2\n"), f / "dest"], ("t.csv", "url")),
    Case("empty table", lambda f: [table(f / "t.parquet", {"url": [], "caption": []}), f / "dest"], ("t.parquet",)),
    Case("empty csv", lambda f: [written(f / "t.csv", "url,caption\n"), f / "dest"], ("t.csv",)),
    Case("empty file", lambda f: [written(f / "t.csv", ""), f / "dest"], ("t.csv",)),
    Case("text named parquet", lambda f: [written(f / "t.parquet", "hello\n"), f / "dest"], ("t.parquet",)),
    Case("text named tar", lambda f: [written(f / "t.tar", "hello\n"), f / "dest"], ("t.tar",)),
    Case("text named gz", lambda f: [written(f / "t.csv.gz", "url,caption\n"), f / "dest"], ("t.csv.gz",)),
    Case(
        "gzip cut short",
        lambda f: [written(f / "t.csv.gz", gzip.compress(b"url,caption\n" + b"x,y\n" * 9999)[:60]), f / "dest"],
        ("t.csv.gz",),
    ),
    Case("a type nobody knows", lambda f: [written(f / "t.docx", "hello\n"), f / "dest"], ("t.docx", ".parquet")),
]

RECIPES = [
    Case("unknown field", lambda f: with_recipe(f, "capfilt:\n  treshold: 0.5\n"), ("treshold", "capfilt.threshold")),
    Case("unknown section", lambda f: with_recipe(f, "filter:\n  threshold: 0.5\n"), ("filter",)),
    Case("unknown set", lambda f: with_set(f, "capfilt.treshold=0.5"), ("treshold", "capfilt.threshold")),
    Case("out of range", lambda f: with_recipe(f, "capfilt:\n  threshold: 1.5\n"), ("capfilt.threshold", "1.5")),
    Case("set out of range", lambda f: with_set(f, "plan.part_rows=0"), ("plan.part_rows", "0")),
    Case("wrong type", lambda f: with_set(f, "capfilt.threshold=high"), ("capfilt.threshold", "high", "number")),
    Case("two mistakes", lambda f: with_set(f, "capfilt.threshold=2", "plan.part_rows=0"), ("threshold", "part_rows")),
    Case("no setting", lambda f: with_set(f, "threshold"), ("threshold",)),
    Case("not yaml", lambda f: with_recipe(f, "capfilt: [1,\n"), ("mine.yaml",)),
    Case("a list", lambda f: with_recipe(f, "- 1\n- 2\n"), ("mine.yaml",)),
    Case("no recipe file", lambda f: [good(f), f / "dest", "--recipe", f / "none.yaml"], ("none.yaml",)),
    Case("contradiction", lambda f: with_set(f, "capfilt.captioner=null", "capfilt.filter=null"), ("captioner",)),
]


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def half(folder: Path) -> Path:
    """What transformers saved, with weights that were cut off."""
    (folder / "half").mkdir()
    written(folder / "half" / "config.json", '{"model_type": "blip"}')
    written(folder / "half" / "model.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    return folder / "half"


MODELS = [
    Case("unknown captioner", lambda f: with_set(f, "capfilt.captioner=blip-9000"), ("blip-9000",)),
    Case("unknown filter", lambda f: with_set(f, "capfilt.filter=blip-9000"), ("blip-9000",)),
    Case("a folder without a model", lambda f: with_set(f, f"capfilt.filter={empty(f)}"), ("empty", "safetensors")),
    Case("half a model", lambda f: with_set(f, f"capfilt.captioner={half(f)}"), ("half", "model.safetensors")),
]


def below_a_file(folder: Path) -> list[object]:
    return [good(folder), written(folder / "plain.txt", "a file") / "dest"]


def in_a_strangers_folder(folder: Path) -> list[object]:
    (folder / "mine").mkdir()
    written(folder / "mine" / "thesis.txt", "chapter one")
    return [good(folder), folder / "mine"]


DESTINATIONS = [
    Case("not writable", below_a_file, ("plain.txt",)),
    Case("a file", lambda f: [good(f), written(f / "plain.txt", "a file")], ("plain.txt",)),
    Case("a stranger's folder", in_a_strangers_folder, ("mine",)),
    Case("an unknown scheme", lambda f: [good(f), "nosuch://bucket/dest"], ("nosuch",)),
]


def known_models(folder: Path) -> list[str]:
    """Settings that name two good models; a later ``--set`` wins over them."""
    return [piece for role in ("captioner", "filter") for piece in ("--set", f"capfilt.{role}={folder / role}")]


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def assert_two_lines(code: int, out: str, err: str, told: tuple[str, ...]) -> None:
    assert code == 2, err
    assert out == ""
    assert len(err.splitlines()) == 2, err
    what, mend = err.splitlines()
    assert what.startswith("error: ")
    assert mend.startswith("  mend: ")
    assert "--help to see what it takes" not in mend, "an error of ours must say its own mend"
    assert [word for word in told if word not in err] == []


@pytest.mark.parametrize("case", [*SOURCES, *RECIPES, *MODELS, *DESTINATIONS], ids=lambda case: case.name)
def test_bootstrap_refuses(case, capfilt, tiny_models, tmp_path):
    arguments = case.arguments(tmp_path)
    before = everything(tmp_path)
    said = capfilt("bootstrap", "--runner", "local", *known_models(tiny_models), *arguments)
    assert_two_lines(said.code, said.out, said.err, case.told)
    assert everything(tmp_path) == before


def test_a_destination_of_another_recipe_is_refused_and_left_alone(capfilt, tiny_models, tmp_path):
    line = ["bootstrap", "--runner", "local", *known_models(tiny_models), good(tmp_path), tmp_path / "dest"]
    first = capfilt(*line)
    assert first.code == 0, first.err
    before = everything(tmp_path)
    said = capfilt(*line, "--set", "capfilt.threshold=0.7", "--set", "capfilt.seed=3")
    assert_two_lines(said.code, said.out, said.err, ("dest", "capfilt.threshold", "0.5", "0.7", "capfilt.seed"))
    assert everything(tmp_path) == before


@pytest.mark.parametrize("case", [SOURCES[0], SOURCES[9], RECIPES[0], DESTINATIONS[0]], ids=lambda case: case.name)
def test_the_console_script_refuses_too(case, tiny_models, tmp_path):
    arguments = case.arguments(tmp_path)
    before = everything(tmp_path)
    args = [SCRIPT, "bootstrap", *known_models(tiny_models), *arguments]
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    assert_two_lines(done.returncode, done.stdout, done.stderr, case.told)
    assert everything(tmp_path) == before


def shard(folder: Path) -> Path:
    return written(folder / "junk.tar", b"not a tar" * 100)


def set_model(folder: Path) -> list[str]:
    return ["--set", f"model={folder / 'architecture'}"]


TRAINING = [
    Case("no shards", lambda f: ["pretrain", f / "none", f / "out", *set_model(f)], ("none",)),
    Case("shards of junk", lambda f: ["pretrain", shard(f), f / "out", *set_model(f)], ("junk.tar",)),
    Case("unknown field", lambda f: ["pretrain", shard(f), f / "out", "--set", "optim.rate=1"], ("rate",)),
    Case("out of range", lambda f: ["pretrain", shard(f), f / "out", "--set", "batch_size=1"], ("batch_size",)),
    Case("unknown model", lambda f: ["pretrain", shard(f), f / "out", "--set", "model=blip-9000"], ("blip-9000",)),
    Case("unknown recipe", lambda f: ["pretrain", shard(f), f / "out", "--recipe", "mine"], ("mine",)),
    Case(
        "another task's recipe",
        lambda f: ["pretrain", shard(f), f / "out", "--set", "task=captioner"],
        ("captioner", "pretrain"),
    ),
    Case("unknown start", lambda f: ["finetune", "filter", shard(f), f / "out", "--set", "init=nil"], ("nil",)),
    Case("no data to evaluate on", lambda f: ["evaluate", f / "architecture", f / "none"], ("none",)),
    Case(
        "no annotations",
        lambda f: ["evaluate", f / "architecture", written(f / "a.json", b"[]")],
        ("a.json", "no picture"),
    ),
    Case("unknown model to evaluate", lambda f: ["evaluate", "blip-9000", f / "none"], ("blip-9000",)),
    Case("unknown measure", lambda f: ["evaluate", "med-mini/filter", f, "--measure", "speed"], ("speed",)),
    Case("no data set to report", lambda f: ["report", f / "none"], ("none",)),
    Case("no data set to verify", lambda f: ["verify", f / "none"], ("none",)),
    Case("no such recipe to show", lambda f: ["recipes", "show", "none"], ("none",)),
]


@pytest.mark.parametrize("case", TRAINING, ids=lambda case: case.name)
def test_the_other_commands_refuse(case, capfilt, tiny_architecture, tmp_path):
    shutil.copytree(tiny_architecture, tmp_path / "architecture")
    arguments = case.arguments(tmp_path)
    before = everything(tmp_path)
    said = capfilt(*arguments)
    assert_two_lines(said.code, said.out, said.err, case.told)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "asked",
    [
        ["pretrain", "none", "out"],
        ["finetune", "filter", "none", "out"],
        ["evaluate", "med-mini/filter", "none"],
        ["finetune", "filter", "shapes-00000.tar", "out", "--set", "data.boilerplate=none"],
    ],
    ids=["pretrain", "finetune", "evaluate", "boilerplate"],
)
def test_a_path_that_is_missing_is_told_of_before_torch_loads(asked, shape_shard, tmp_path):
    shutil.copy(shape_shard, tmp_path)
    probe = (
        "import sys; from capfilt.cli.main import call; code = call(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *asked], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "False"]
    assert "none: there is no such file" in done.stderr
    assert not (tmp_path / "out").exists()

"""docs/cli.md tells the truth: the tree is that of the parser, and each command of its table fails as it says."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from PIL import Image

from capfilt import errors, inputs
from capfilt.cli.errors import ExitCode, two_lines
from capfilt.cli.main import app
from capfilt.cli.tree import tree
from tests.flaky import ROOM, WEATHER, Flaky

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| `\w+Error`", line)
]


def test_the_tree_is_that_of_the_parser(capfilt):
    told = capfilt("--tree").out.strip()
    assert told == tree(typer.main.get_command(app))
    assert f"```text\n{told}\n```" in PAGE, "put what `capfilt --tree` prints into docs/cli.md"


def test_every_class_is_in_the_table():
    tree_ = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert {row[0].strip("`") for row in ROWS} == tree_ - {"CapfiltError"}


def test_every_exit_code_is_on_the_page():
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.M)] == sorted(ExitCode)


@pytest.mark.ray
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("`"))
def test_each_command_fails_as_the_table_says(row, tmp_path, monkeypatch, shape_shard):
    kind, _, command, message, mend = row
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (256, 256)).save(tmp_path / "pictures" / "black.png")
    (tmp_path / "broken.tar").write_text("no tar")
    if kind == "`StoreError`":
        busy(monkeypatch)
    (tmp_path / "shapes").mkdir()
    shutil.copy(shape_shard, tmp_path / "shapes")
    with pytest.raises(errors.CapfiltError) as caught:
        app(shlex.split(command.strip("`"))[1:], standalone_mode=False)
    assert type(caught.value).__name__ == kind.strip("`")
    first, second = two_lines(caught.value).splitlines()
    assert re.fullmatch(pattern(message), first.removeprefix("error: "))
    assert re.fullmatch(pattern(mend), second.removeprefix("  mend: "))


def busy(monkeypatch) -> None:
    """In place of S3 a store of this process, which answers as S3 does when it is asked too much."""
    monkeypatch.setitem(
        importlib.import_module("fsspec.registry")._registry, "s3", type("Busy", (Flaky,), {"protocol": "s3"})
    )
    monkeypatch.setitem(ROOM, "bucket/table.csv", b"url,text\n")
    monkeypatch.setattr(inputs, "_WAITS_S", (0.0,))
    WEATHER.storm(2)


def pattern(text: str) -> str:
    return ".*".join(map(re.escape, text.split("...")))

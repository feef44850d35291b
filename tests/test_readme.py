"""README.md tells the truth: each command of its console blocks runs, in order, and prints what stands below it.

A line ``...`` in the expected output stands for any lines, ``...`` within a line for any text.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from capfilt import catalog

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPT = Path(sys.executable).with_name("capfilt")


class Shown(NamedTuple):
    command: str
    output: str


def shown(text: str) -> list[Shown]:
    """The commands of all console and bash blocks, each with the output shown below it."""
    blocks = re.findall(r"^```(?:console|bash)\n(.*?)^```", text, re.M | re.S)
    found = [re.split(r"^\$ ", block, flags=re.M)[1:] for block in blocks]
    assert all(found), "a block without a command"
    return [Shown(*(piece.partition("\n")[::2])) for pieces in found for piece in pieces]


def pattern(output: str) -> re.Pattern[str]:
    lines = (".*" if line == "..." else ".*".join(map(re.escape, line.split("..."))) for line in output.splitlines())
    # A whole line of dots may stand for no line at all, or for many.
    joined = "\n".join(lines).replace("\n.*\n", "\n(?s:.*?)").replace("\n.*", "(?s:.*)")
    return re.compile(joined + r"\s*")


def test_there_are_commands():
    assert len(shown(README)) > 5


@pytest.mark.parametrize("item", [s for s in shown(README) if s.command.startswith("make ")], ids=lambda s: s.command)
def test_make_knows_the_target(item):
    done = subprocess.run(["make", "-n", *shlex.split(item.command)[1:]], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.timeout(600)
def test_each_command_runs_and_prints_what_is_shown(tmp_path):
    if "med-mini/captioner" not in catalog.models():
        pytest.skip("models/med-mini has no weights: make med-mini")
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines")
    for item in shown(README):
        if item.command.startswith("make "):
            continue
        name, *args = shlex.split(item.command)
        assert name == "capfilt", f"the README may only show capfilt and make: {item.command}"
        done = subprocess.run([SCRIPT, *args], cwd=tmp_path, capture_output=True, text=True, check=False)
        failing = item.output.startswith("error: ")
        assert done.returncode == (2 if failing else 0), done.stdout + done.stderr
        told = done.stderr if failing else done.stdout
        assert pattern(item.output).fullmatch(told), f"$ {item.command}\n{told}\n--- the README shows:\n{item.output}"


def test_links_lead_somewhere():
    for file in [ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "CONTRIBUTING.md", ROOT / "deploy/README.md"]:
        for link in re.findall(r"\]\((?!https?://)([^)#]+)", file.read_text(encoding="utf-8")):
            assert (file.parent / link).exists(), f"{file.name}: {link}"


@pytest.mark.parametrize(
    ("output", "told"), [("a\n...", "a\nb\nc\n"), ("a\n...\nc", "a\nb\nc\n"), ("x ... z", "x y z\n")]
)
def test_the_pattern_matches(output, told):
    assert pattern(output).fullmatch(told)
    assert not pattern(output).fullmatch("q" + told)

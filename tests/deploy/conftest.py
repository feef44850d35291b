"""What the tests of deploy/ share: where it is, and capfilt's command line as a judge of commands."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
import typer

BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def deploy() -> Path:
    return Path(__file__).resolve().parents[2] / "deploy"


@pytest.fixture(scope="session")
def tool():
    """A program that the dev extra brings."""
    return lambda name: str(BIN / name)


@pytest.fixture(scope="session")
def understood():
    """Parses `capfilt ...` as the command line does and runs nothing; gives the values, or raises."""
    from capfilt.cli.main import app

    def parse(command: str | list[str]) -> dict[str, object]:
        words = shlex.split(command, comments=True) if isinstance(command, str) else list(command)
        assert words.pop(0) == "capfilt"
        found = typer.main.get_command(app)
        while hasattr(found, "commands"):
            found = found.commands[words.pop(0)]
        return found.make_context(found.name, words).params

    return parse

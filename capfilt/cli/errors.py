"""How errors are shown: which exit code, and the two lines a user's mistake takes.

Knows the error tree and the terminal's stderr; knows no command.
"""

from __future__ import annotations

import sys
from enum import IntEnum

import typer

from capfilt.errors import CapfiltError

FAULT = "unexpected: this is a fault of capfilt, not yours; please report it with the lines above."
INTERRUPTED = "interrupted: what was committed stays; run the same command again to continue."

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""The parser's own error: typer has taken it from click and, lately, from a copy of its own."""


class ExitCode(IntEnum):
    """What the shell sees."""

    OK = 0
    UNEXPECTED = 1
    MISTAKE = 2
    INTERRUPTED = 130


def two_lines(error: CapfiltError) -> str:
    """What is wrong and where; below it, how to mend it. Always two lines, whatever the error carries."""
    place = f"{_one_line(error.where)}: " if error.where else ""
    mend = _one_line(error.mend) or "Run the command with --help to see what it takes."
    return f"error: {place}{_one_line(error.what)}\n  mend: {mend}"


def usage_lines(error: Exception, command: str) -> str:
    """The same two lines for an unknown option, a missing argument and the like."""
    worded = getattr(error, "format_message", error.__str__)
    return f"error: {_one_line(worded())}\n  mend: Run `{command} --help` to see what it takes."


def say(text: str) -> None:
    """Writes to stderr, where it is in the way of neither results nor pipes."""
    typer.echo(text, file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())

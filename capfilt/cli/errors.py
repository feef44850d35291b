"""How errors are shown: which exit code, and the two lines a user's mistake takes.

Knows the error tree and the terminal's stderr; knows no command.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from enum import IntEnum

import typer

from capfilt.cli.terminal import coloured, plain
from capfilt.errors import CapfiltError, meant

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
    message = str(getattr(error, "message", "")) or str(error)
    if not hasattr(error, "possibilities"):
        # With the name of the argument or option; an unknown option's own words list all that is remotely like it.
        message = getattr(error, "format_message", error.__str__)()
    # The parser's own guess is not always made, and is told with the mend here.
    message = _one_line(message).partition(" Did you mean")[0].replace("Value error, ", "")
    return f"error: {message}\n  mend: {_near(error, message)}Run `{command} --help` to see what it takes."


def _near(error: Exception, message: str) -> str:
    """The command, option or value that is nearest to what was written."""
    context = getattr(error, "ctx", None)
    command = getattr(context, "command", None)
    if unknown := re.search(r"No such command '([^']*)'", message):
        return meant(unknown[1], getattr(command, "commands", {}))
    if unknown := re.search(r"No such option:? '?(-[^\s']*)", message):
        options = [name for param in getattr(command, "params", ()) for name in param.opts]
        return meant(unknown[1], options) or _field(unknown[1], options)
    if choice := re.search(r"'([^']*)' is not one of (.*)", message):
        return meant(choice[1], re.findall("'([^']*)'", choice[2]))
    return ""


def _field(option: str, options: Sequence[str]) -> str:
    """The field of a recipe that somebody took for an option."""
    if "--set" not in options:
        return ""
    from capfilt.cli.completing import names
    from capfilt.recipe import Recipe

    fields = {name.rpartition(".")[2]: name for name in names(Recipe)}
    near = get_close_matches(option.lstrip("-").replace("-", "_"), fields, n=1, cutoff=0.75)
    return f"A field of the recipe is set with --set {fields[near[0]]}=... " if near else ""


def say(text: str) -> None:
    """Writes to stderr, where it is in the way of neither results nor pipes; in a terminal its first word in red."""
    first, colon, rest = text.partition(":")
    typer.echo(f"{coloured(first, 'red', sys.stderr)}{colon}{rest}", file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(plain(text).split())

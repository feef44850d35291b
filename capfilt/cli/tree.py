"""All commands on one page: what each takes, and what it does. Knows the parser's commands; runs none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_WIDTH = 100


def tree(root: Any) -> str:
    """The commands below ``root`` by heading, each with its arguments, what it does and its options."""
    lines: list[str] = []
    for heading, name, command in _by_heading(root):
        if heading:
            lines += ["", heading]
        lines += _told(command, name, "  ")
        for _, below, sub in _by_heading(command):
            lines += _told(sub, f"{name} {below}", "    ")
    return "\n".join(lines).strip("\n")


def _by_heading(group: Any) -> Iterator[tuple[str, str, Any]]:
    """(its heading if it is the first below it, its name, the command)."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for name in group.list_commands(None) if hasattr(group, "list_commands") else ():
        command = group.commands[name]
        heading = getattr(command, "rich_help_panel", None)
        found.setdefault(heading if isinstance(heading, str) else "", []).append((name, command))
    for heading, commands in found.items():
        for at, (name, command) in enumerate(commands):
            yield "" if at else heading, name, command


def _told(command: Any, name: str, indent: str) -> Iterator[str]:
    arguments = [str(p.metavar or p.name.upper()) for p in command.params if p.param_type_name == "argument"]
    yield f"{indent}{' '.join([name, *arguments])}: {command.get_short_help_str(_WIDTH)}"
    options = [max(p.opts, key=len) for p in command.params if p.param_type_name == "option"]
    if options:
        line = f"{indent}    "
        for option in options:
            if len(line) + len(option) > _WIDTH:
                yield line.rstrip()
                line = f"{indent}    "
            line += f"{option} "
        yield line.rstrip()

"""How help looks: commands in groups, and at its end examples and what exit codes mean.

Knows how the parser lays out help; knows no command.
"""

from __future__ import annotations

from typing import Any, ClassVar

from typer.core import TyperGroup

from capfilt.cli.examples import EXAMPLES

EXIT_CODES = (
    "Exit codes: 0 done; 1 unexpected, or verify or doctor found something broken; 2 a mistake you can mend (two "
    "lines on stderr say how); 130 interrupted (run the same command again to continue)."
)
_AS_IT_STANDS = "\b"
"""Before a paragraph that the parser must not wrap."""


def epilog(command: str = "") -> str:
    """What stands below the help of a command: its examples, then the exit codes."""
    lines = EXAMPLES.get(command, ())
    if not lines:
        return EXIT_CODES
    return "\n".join([_AS_IT_STANDS, "Examples:", *(f"  {line}" for line in lines), "", EXIT_CODES])


class Grouped(TyperGroup):
    """Its help lists commands below the headings that they are registered with (``rich_help_panel``)."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes a section for each heading, in the order in which they first come."""
        sections: dict[str, list[tuple[str, str]]] = {}
        names = [name for name in self.list_commands(ctx) if not self.commands[name].hidden]
        room = formatter.width - 6 - max(map(len, names), default=0)
        for name in names:
            command = self.commands[name]
            heading = getattr(command, "rich_help_panel", None)
            rows = sections.setdefault(heading if isinstance(heading, str) else "Commands", [])
            rows.append((name.ljust(max(map(len, names))), command.get_short_help_str(room)))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


class InOrder(Grouped):
    """Commands and groups in the order in which they were registered; the parser lists all groups last."""

    ORDER: ClassVar[list[str]] = []

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, the first registered first."""
        return sorted(super().list_commands(ctx), key=self.ORDER.index)

"""``capfilt paper``: the paper's tables at a scale that fits the machine at hand.

Knows how a table is asked for and shown; the work is ``capfilt.paper``'s.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from capfilt.cli.options import QuietOption
from capfilt.cli.terminal import table as show


def command(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="One of docs/paper-tables.md, or a file.")],
    corpora: Annotated[str, typer.Option("--corpora", metavar="DIR", help="What `capfilt corpora build` wrote.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder for results; all tables may share it.")],
    scale: Annotated[str, typer.Option("--scale", metavar="NAME", help="How large: mini, or a file.")] = "mini",
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", min=1, help="Runs of each arm.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, and no progress.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Train and measure every arm of a table of the paper, several times, at equal steps.

    Run again with the same --out, it goes on where it stopped; what another table has done already is not done again.
    """
    from capfilt.paper.page import cells
    from capfilt.paper.run import run_table

    def tell(text: str) -> None:
        if not (quiet or as_json):
            typer.echo(text, err=True)

    told = run_table(table, out, corpora=corpora, scale=scale, seeds=seeds, tell=tell)
    if as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    head, rows = cells(told)
    show(f"{told['title']} ({told['section']}; {told['seeds']} seeds)", head, rows)
    typer.echo(f"results  {out}/{told['table']}.json")

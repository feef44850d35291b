"""``capfilt tokens``: who may ask the service. Knows how it is asked for; the file is ``capfilt.service.access``'s."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from capfilt.cli.help import epilog
from capfilt.cli.options import HELP_NAMES, JsonOption

app = typer.Typer(help="Tokens of the service.", no_args_is_help=True, context_settings=HELP_NAMES)

FileOption = Annotated[Path, typer.Option("--file", metavar="FILE", help="The file of tokens.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is.")]
_FILE = Path("capfilt-tokens.yaml")


@app.command("new", epilog=epilog("tokens new"))
def new(
    name: NameArgument,
    file: FileOption = _FILE,
    roles: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE", help="online, jobs, watch or admin; may be repeated. Default: online."),
    ] = None,
    sources: Annotated[
        list[str] | None, typer.Option("--source", metavar="PREFIX", help="What its jobs may read; may be repeated.")
    ] = None,
    dests: Annotated[
        list[str] | None, typer.Option("--dest", metavar="PREFIX", help="Where its jobs may write; may be repeated.")
    ] = None,
    max_jobs: Annotated[int, typer.Option(metavar="N", min=0, help="Its jobs that may wait or run at once.")] = 10,
) -> None:
    """Make a token and print it, once; the file keeps its SHA-256."""
    from capfilt.service import access

    given = {"roles": tuple(roles or ["online"]), "sources": tuple(sources or ()), "dests": tuple(dests or ())}
    typer.echo(access.new(file, name, max_jobs=max_jobs, **given))


@app.command("list", epilog=epilog("tokens list"))
def listed(file: FileOption = _FILE, as_json: JsonOption = False) -> None:
    """Whose there are, with their roles and what they open."""
    from capfilt.service import access

    tokens = access.read(file)
    if as_json:
        shown = ("name", "roles", "sources", "dests", "max_jobs")
        typer.echo(json.dumps([{name: getattr(token, name) for name in shown} for token in tokens], indent=1))
        return
    for token in tokens:
        opens = f"  reads {' '.join(token.sources) or '-'}  writes {' '.join(token.dests) or '-'}"
        typer.echo(f"{token.name:<16} {','.join(token.roles):<12}{opens}")


@app.command("revoke", epilog=epilog("tokens revoke"))
def revoke(name: NameArgument, file: FileOption = _FILE) -> None:
    """Take a token away; start the service anew afterwards."""
    from capfilt.service import access

    access.revoke(file, name)

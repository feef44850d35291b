"""``capfilt jobs``: data sets that a service makes. Knows how it is asked for; the client is ``capfilt.service``'s."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capfilt.cli.help import epilog
from capfilt.cli.options import HELP_NAMES, JsonOption, QuietOption, RecipeOption, SetOption
from capfilt.cli.serve import extra
from capfilt.cli.terminal import meter, plain, table
from capfilt.errors import CapfiltError

if TYPE_CHECKING:
    from capfilt.service.client import Client
    from capfilt.service.jobs.wire import Job

app = typer.Typer(help="Jobs of a service (`capfilt serve`).", no_args_is_help=True, context_settings=HELP_NAMES)

ServerOption = Annotated[
    str, typer.Option("--server", metavar="URL", envvar="CAPFILT_SERVER", help="Where the service is.")
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="File with the token. Default: the variable CAPFILT_TOKEN."),
]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
_SERVER = "http://127.0.0.1:8642"


@app.command("submit", epilog=epilog("jobs submit"))
def submit(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="As the service sees it: an absolute path or a URL.")],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="As the service sees it: an absolute path or a URL.")],
    recipe: RecipeOption = None,
    sets: SetOption = None,
    workers: Annotated[int | None, typer.Option(metavar="N", min=1, help="Workers that hold the models.")] = None,
    key: Annotated[str | None, typer.Option(metavar="TEXT", help="The same key gives the same job.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    server: ServerOption = _SERVER,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Submit a bootstrap and print its id."""
    from capfilt.recipe import load, to_json

    told = to_json(load(recipe, sets or (), source=source))
    with _client(server, token_file) as client:
        job = client.submit(told, dest, workers=workers, key=key)
        if watch:
            _follow(client, job.id, as_json=as_json, quiet=quiet)
        else:
            typer.echo(job.model_dump_json(indent=1) if as_json else job.id)


@app.command("list", epilog=epilog("jobs list"))
def listed(server: ServerOption = _SERVER, token_file: TokenOption = None, as_json: JsonOption = False) -> None:
    """List jobs, the newest first."""
    with _client(server, token_file) as client:
        jobs = list(client.jobs())
    if as_json:
        typer.echo(json.dumps([job.model_dump(mode="json") for job in jobs], indent=1))
    else:
        table("jobs", ["id", "state", "parts", "owner", "dest"], [_line(job) for job in jobs])


@app.command("watch", epilog=epilog("jobs watch"))
def watch(
    job: JobArgument,
    server: ServerOption = _SERVER,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Follow a job to its end, and say how it ended."""
    with _client(server, token_file) as client:
        _follow(client, job, as_json=as_json, quiet=quiet)


@app.command("cancel", epilog=epilog("jobs cancel"))
def cancel(
    job: JobArgument, server: ServerOption = _SERVER, token_file: TokenOption = None, as_json: JsonOption = False
) -> None:
    """Ask a job to end; what is committed stays."""
    with _client(server, token_file) as client:
        now = client.cancel(job)
    typer.echo(now.model_dump_json(indent=1) if as_json else now.state)


@app.command("retry", epilog=epilog("jobs retry"))
def retry(
    job: JobArgument,
    reasons: Annotated[
        str,
        typer.Option(metavar="REASONS", help="Try rows again that were dropped for these, as timed_out,unreachable."),
    ] = "",
    server: ServerOption = _SERVER,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Queue a job that has ended once more: it goes on where it stopped."""
    with _client(server, token_file) as client:
        now = client.retry(job, reasons.replace(",", " ").split())
    typer.echo(now.model_dump_json(indent=1) if as_json else now.state)


@contextmanager
def _client(server: str, token_file: Path | None) -> Iterator[Client]:
    try:
        from capfilt.service.client import Client
    except ImportError as error:  # an optional extra
        raise extra(error) from error
    try:
        token = os.environ.get("CAPFILT_TOKEN") if token_file is None else token_file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CapfiltError("cannot be read", where=str(token_file), mend="Give a file with the token in it.") from error
    with Client(server, token or None) as client:
        yield client


def _follow(client: Client, job: str, *, as_json: bool, quiet: bool) -> None:
    with meter("parts", quiet=quiet or as_json) as progress:
        for now in client.watch(job):
            if now.progress:
                note = f"{now.progress.rows:,} rows, {now.progress.kept:,} kept"
                progress.update(now.progress.done, now.progress.total, note)
    if as_json:
        typer.echo(now.model_dump_json(indent=1))
    else:
        kept = f"  {now.progress.rows:,} rows, {now.progress.kept:,} kept" if now.progress else ""
        typer.echo(f"{now.state}  {plain(now.dest)}{kept}")
    if now.error:
        raise CapfiltError(now.error.what, where=now.error.where, mend=now.error.mend)


def _line(job: Job) -> list[Any]:
    parts = f"{job.progress.done}/{job.progress.total}" if job.progress else "-"
    return [job.id, job.state, parts, job.owner, job.dest]

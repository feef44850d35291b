"""``capfilt push``: a finished data set onto the Hugging Face Hub. Knows how it is asked for and shown."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from capfilt.cli.options import JsonOption, QuietOption
from capfilt.cli.terminal import meter


def command(
    dest: Annotated[str, typer.Argument(metavar="DEST", help="A finished destination of `capfilt bootstrap`.")],
    repo: Annotated[
        str, typer.Argument(metavar="REPO", help="The repository, as owner/name; made if it is not there.")
    ],
    public: Annotated[bool, typer.Option("--public", help="Let all see it. Default: private.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put DEST onto the Hugging Face Hub as the data set REPO.

    Shards go first and the manifest and card last. Run again, it sends only what is not there yet, and takes away
    shards that DEST has no more. Log in with `hf auth login`, or set HF_TOKEN.
    """
    from capfilt.push import push

    with meter("files", quiet=quiet or as_json) as progress:
        done = push(dest, repo, public=public, on_file=progress.update)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(done), indent=1))
        return
    typer.echo(f"files   {done.files:,}, of which {done.sent:,} were sent; {done.removed:,} old ones removed")
    typer.echo(f"hub     {done.url} ({'private' if done.private else 'public'})")

"""``capfilt quickstart``: the bundled sample through the whole loop, in a few minutes on a laptop.

Serves the sample over loopback HTTP, cleans it as ``capfilt bootstrap`` would, shows what came of it, and trains
a small model on the result for a few steps. Every piece is a command of its own; the end says which.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from capfilt.cli import bootstrap, summary, train
from capfilt.cli.loopback import serving
from capfilt.cli.options import JsonOption, QuietOption, Runner, RunnerOption, SetOption, VerboseOption, WorkersOption
from capfilt.errors import SourceError

if TYPE_CHECKING:
    from capfilt.bootstrap import Result

TABLES = ("*.parquet", "*.csv", "*.tsv", "*.jsonl")
RECIPE = "quickstart"
TRAINING = "quickstart-pretrain"


def command(
    out: Annotated[str, typer.Argument(metavar="[OUT]", help="Folder for everything it makes.")] = "quickstart-out",
    sets: SetOption = None,
    runner: RunnerOption = Runner.RAY,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the bundled sample through the whole loop.

    Fetch, caption, filter, report, train: a few minutes on a laptop. Run again with the same OUT, it goes on where
    it stopped.
    """
    from capfilt import catalog

    data, still = Path(out) / "data", quiet or as_json
    sample = catalog.sample()
    with serving(sample, port=_port_of(data)) as base:
        if not as_json:
            typer.echo(f"1. Fetch, caption and filter the bundled sample, served at {base}")
        result = _clean(sample, base, data, sets or [], runner, workers, verbose=verbose, quiet=still)
    if not as_json:
        _look(result)
        typer.echo("\n3. Train a small model from scratch on the new shards, for a few steps")
    trained = train.run("pretrain", TRAINING, [str(data)], str(Path(out) / "model"), _same_size(result), quiet=still)
    if as_json:
        told = {"dest": result.dest, "manifest": result.manifest, "training": train.to_json(trained)}
        typer.echo(json.dumps(told, indent=1, sort_keys=True))
        return
    train.show(trained)
    _next(data, Path(out))


def _clean(
    sample: Path,
    base: str,
    data: Path,
    sets: list[str],
    runner: Runner,
    workers: int | None,
    *,
    verbose: bool,
    quiet: bool,
) -> Result:
    from capfilt.recipe import load

    table = str(_table(sample))
    recipe = load(RECIPE, [*sets, f"source.url_base={base}"], source=table)
    return bootstrap.run(table, str(data), recipe, runner=runner, workers=workers, verbose=verbose, quiet=quiet)


def _same_size(result: Result) -> list[str]:
    """The captioner's architecture and words: a model that can be had here, since it has just been used."""
    captioner = (result.manifest or {})["recipe"]["capfilt"]["captioner"]
    return [f"model={captioner}"] if captioner else []


def _look(result: Result) -> None:
    from capfilt.storage import Store

    typer.echo("\n2. What came of it")
    if result.manifest is None:
        return
    summary.show(result.manifest)
    typer.echo("Five pictures, chosen by their ids and not by their captions")
    for line in summary.examples(Store(result.dest), result.manifest):
        typer.echo(line)
    bootstrap.places(result)


def _next(data: Path, out: Path) -> None:
    typer.echo("\nWhat to type next")
    for line in (
        f"verify {data}",
        "recipes show bootstrap > mine.yaml",
        "bootstrap YOUR_TABLE.parquet DEST --recipe mine.yaml --dry-run",
        f"pretrain DEST {out}/next --recipe {TRAINING}",
    ):
        typer.echo(f"  {_program()} {line}")


def _program() -> str:
    """How the shell finds this program: not by its bare name where `make` has put it into .venv."""
    return "capfilt" if shutil.which("capfilt") else sys.argv[0]


def _table(folder: Path) -> Path:
    for pattern in TABLES:
        for file in sorted(folder.glob(pattern)):
            return file
    raise SourceError("the bundled sample has no table", where=str(folder), mend="Install capfilt again.")


def _port_of(data: Path) -> int | None:
    """The port that an earlier run served at: its rows' URLs, and so their ids, carry it."""
    import yaml

    try:
        recipe = yaml.safe_load((data / "recipe.yaml").read_text(encoding="utf-8"))
        return urlsplit(str(recipe["source"]["url_base"])).port
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return None  # a first run, or a folder of something else, which the claim of DEST refuses with its reason

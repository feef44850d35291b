"""The console script: all commands under one roof, and the one place where errors become exit codes.

Knows the names of the commands. What a command needs is imported when it runs, so that ``--help`` loads
neither torch nor ray.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

from capfilt.cli import (
    bootstrap,
    catalogue,
    corpora,
    doctor,
    evaluate,
    inspect,
    jobs,
    look,
    models,
    paper,
    preview,
    push,
    quickstart,
    refilter,
    rounds,
    schema,
    serve,
    tokens,
    train,
)
from capfilt.cli.errors import FAULT, INTERRUPTED, ExitCode, UsageError, say, two_lines, usage_lines
from capfilt.cli.help import Grouped, InOrder, epilog
from capfilt.cli.options import HELP_NAMES
from capfilt.errors import CapfiltError

HELP = """Turn a scraped, noisy image-text corpus into a clean one, and train the next model on it.

Start with: capfilt quickstart
"""

app = typer.Typer(
    name="capfilt",
    help=HELP,
    epilog=epilog(),
    cls=InOrder,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=HELP_NAMES,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    all_commands: Annotated[bool, typer.Option("--tree", help="Print all commands with their options.")] = False,
) -> None:
    """Options of capfilt itself; without a command, its help."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"capfilt {installed('capfilt')}")
        raise typer.Exit
    if all_commands:
        from capfilt.cli.tree import tree

        typer.echo(tree(context.command))
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


START, DATA, MODELS = "Start here", "Data sets", "Models"
SERVICE, SHIPPED = "Service", "What comes along"


def _add(heading: str, name: str, what: Callable[..., None], short: str) -> None:
    InOrder.ORDER.append(name)
    app.command(name, short_help=short, epilog=epilog(name), rich_help_panel=heading)(what)


def _add_group(heading: str, name: str, group: typer.Typer, short: str) -> None:
    InOrder.ORDER.append(name)
    app.add_typer(group, name=name, cls=Grouped, short_help=short, epilog=epilog(name), rich_help_panel=heading)


_add(START, "quickstart", quickstart.command, "Run the bundled sample through the whole loop.")
_add(START, "doctor", doctor.command, "Check this machine, and say what to mend.")
_add(START, "inspect", inspect.command, "Show what a source is understood to be.")
_add(START, "preview", preview.command, "Try a few rows, as a page with a threshold to move.")
_add(DATA, "bootstrap", bootstrap.command, "Turn a source into a clean, captioned data set.")
_add(DATA, "verify", look.verify, "Check a data set against its books.")
_add(DATA, "report", look.report, "Write a data set's report again, and compare thresholds.")
_add(DATA, "refilter", refilter.command, "Another data set from stored scores, with no model run.")
_add(DATA, "dedup", look.dedup, "Drop pictures that are there twice, or look alike.")
_add(DATA, "push", push.command, "Put a data set onto the Hugging Face Hub.")
_add(MODELS, "pretrain", train.pretrain, "Pretrain a model on shards (ITC, ITM and LM).")
_add_group(MODELS, "finetune", train.finetune, "Finetune a captioner or a filter on clean pairs.")
_add(MODELS, "evaluate", evaluate.command, "Measure a model on pictures with references.")
_add(MODELS, "rounds", rounds.command, "Finetune, bootstrap and pretrain anew, N times.")
_add(MODELS, "paper", paper.command, "Make the paper's tables again, small.")
_add_group(MODELS, "models", models.app, "List, show, average; BLIP's weights in and out.")
_add(SERVICE, "serve", serve.command, "Captions, scores, verdicts and jobs over HTTP.")
_add_group(SERVICE, "jobs", jobs.app, "Jobs of a service: submit, follow, cancel, retry.")
_add_group(SERVICE, "tokens", tokens.app, "Who may ask a service.")
_add_group(SHIPPED, "recipes", catalogue.recipes, "List the recipes, or print one to copy.")
_add(SHIPPED, "schema", schema.command, "Print a recipe's JSON Schema, for editors.")
_add_group(SHIPPED, "corpora", corpora.app, "Build the corpora of the embedded model, and train it.")


def run() -> NoReturn:
    """The console script's entry point."""
    # What a batch system sends before it kills: the run then ends as after Ctrl-C, and says how to go on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(call(sys.argv[1:]))


def call(args: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; prints what the user must know, raises nothing."""
    try:
        code = app(list(args), prog_name="capfilt", standalone_mode=False)
    except CapfiltError as error:
        say(two_lines(error))
        return ExitCode.MISTAKE
    except UsageError as error:
        context = getattr(error, "ctx", None)
        say(usage_lines(error, context.command_path if context else "capfilt"))
        return ExitCode.MISTAKE
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        return ExitCode.UNEXPECTED
    except Exception:  # noqa: BLE001 the process boundary: a fault of ours is shown whole and exits 1
        traceback.print_exc()
        say(FAULT)
        return ExitCode.UNEXPECTED
    if code == ExitCode.INTERRUPTED:
        say(INTERRUPTED)
    return code if isinstance(code, int) else ExitCode.OK

"""The console script: all commands under one roof, and the one place where errors become exit codes.

Knows the names of the commands. What a command needs is imported when it runs, so that ``--help`` loads
neither torch nor ray.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
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
    preview,
    quickstart,
    refilter,
    rounds,
    serve,
    tokens,
    train,
)
from capfilt.cli.errors import FAULT, INTERRUPTED, ExitCode, UsageError, say, two_lines, usage_lines
from capfilt.cli.options import HELP_NAMES
from capfilt.errors import CapfiltError

HELP = """Turn a scraped, noisy image-text corpus into a clean one, and train the next model on it.

Start with: capfilt quickstart
"""

EPILOG = (
    "Exit codes: 0 done; 1 unexpected, or verify or doctor found something broken; 2 a mistake you can mend (two "
    "lines on stderr say how); 130 interrupted (run the same command again to continue)."
)

app = typer.Typer(
    name="capfilt",
    help=HELP,
    epilog=EPILOG,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=HELP_NAMES,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Options of capfilt itself; without a command, its help."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"capfilt {installed('capfilt')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("bootstrap", epilog=EPILOG)(bootstrap.command)
app.command("inspect", epilog=EPILOG)(inspect.command)
app.command("doctor", epilog=EPILOG)(doctor.command)
app.command("preview", epilog=EPILOG)(preview.command)
app.command("quickstart", epilog=EPILOG)(quickstart.command)
app.command("pretrain", epilog=EPILOG)(train.pretrain)
app.add_typer(train.finetune, name="finetune")
app.command("rounds", epilog=EPILOG)(rounds.command)
app.command("serve", epilog=EPILOG)(serve.command)
app.command("evaluate", epilog=EPILOG)(evaluate.command)
app.command("report", epilog=EPILOG)(look.report)
app.command("refilter", epilog=EPILOG)(refilter.command)
app.command("dedup", epilog=EPILOG)(look.dedup)
app.command("verify", epilog=EPILOG)(look.verify)
app.add_typer(models.app, name="models", epilog=EPILOG)
app.add_typer(catalogue.recipes, name="recipes")
app.add_typer(jobs.app, name="jobs", epilog=EPILOG)
app.add_typer(tokens.app, name="tokens", epilog=EPILOG)
app.add_typer(corpora.app, name="corpora")


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

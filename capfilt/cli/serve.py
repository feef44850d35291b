"""``capfilt serve``: the service. Knows how it is asked for; the service itself is ``capfilt.service``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from capfilt.cli.options import Runner, ServiceSetOption, VerboseOption
from capfilt.errors import CapfiltError


def command(
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Settings of the service, as YAML (docs/service.md).")
    ] = None,
    sets: ServiceSetOption = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where to listen. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(metavar="N", help="The port. Default: 8642.")] = None,
    runner: Annotated[
        Runner | None,
        typer.Option("--runner", help="`ray` is Ray Serve (default); `local` is one process without Ray."),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="FILE", help="Who may ask; made by `capfilt tokens new`.")
    ] = None,
    state: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder for the books and logs of jobs. Default: no jobs.")
    ] = None,
    sources: Annotated[
        list[str] | None, typer.Option("--source", metavar="PREFIX", help="Without tokens: what jobs may read.")
    ] = None,
    dests: Annotated[
        list[str] | None, typer.Option("--dest", metavar="PREFIX", help="Without tokens: where jobs may write.")
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Answer over HTTP: captions, scores and verdicts for pictures and texts, and jobs that make data sets.

    Without tokens it listens to this machine alone. Needs the extra `service`.
    """
    from capfilt.recipe import load_config

    try:
        from capfilt.service.config import ServiceConfig
        from capfilt.service.logs import to_stderr
    except ImportError as error:  # an optional extra
        raise extra(error) from error
    told: dict[str, Any] = {"host": host, "port": port, "runner": runner and str(runner), "tokens": tokens}
    told |= {"jobs.state": state, "sources": sources or None, "dests": dests or None}
    given = {name: value for name, value in told.items() if value is not None}
    settings = load_config(ServiceConfig, config, sets or (), given=given)
    try:
        from capfilt.service.access import Access

        Access.of(settings)
        if settings.jobs.state is not None and (settings.runner == "local" or not _elsewhere(settings.address)):
            from capfilt.service.jobs.store import make_folder

            make_folder(settings.jobs.state)
        if settings.runner == "local":
            from capfilt.service.local import serve_local

            to_stderr()
            try:
                serve_local(settings)
            except KeyboardInterrupt:
                typer.echo("stopped", err=True)
        else:
            from capfilt.service.deployment import serve_ray

            to_stderr()
            serve_ray(settings, verbose=verbose)
    except ImportError as error:
        raise extra(error) from error


def _elsewhere(address: str | None) -> bool:
    """Whether the service runs on a cluster, whose machines have folders of their own."""
    from capfilt.flow.config import RunConfig

    return RunConfig(address=address).cluster is not None


def extra(error: ImportError) -> CapfiltError:
    """What is told where the extra is missing."""
    return CapfiltError(
        f"the service needs a package that is not installed: {error.name}", mend="Install capfilt[service]."
    )

"""``capfilt inspect``: what a source is understood to be, before anything is done with it.

Knows how the answer is asked for and shown; looking is ``capfilt.sources.inspect``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from capfilt.cli.options import RecipeOption, SetOption
from capfilt.cli.terminal import plain

if TYPE_CHECKING:
    from capfilt.sources.inspect import Inspection, Shown

WIDTH = 100


def command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="As `capfilt bootstrap` takes it.")],
    recipe: RecipeOption = None,
    sets: SetOption = None,
    rows: Annotated[int, typer.Option("-n", "--rows", metavar="N", min=0, help="Rows that are shown.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Show what SOURCE is understood to be: rows, columns, a sample, and likely problems with their mend.

    Reads metadata and the first rows of a few files; fetches and writes nothing.
    """
    from capfilt.recipe import load
    from capfilt.sources.inspect import inspect

    made = load(recipe, sets or (), source=source)
    found = inspect(made.source, part_rows=made.plan.part_rows, shown=rows)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1))
        return
    for line in lines(found):
        typer.echo(line)


def lines(found: Inspection) -> Iterator[str]:
    """What was found, a thing a line."""
    return map(plain, _lines(found))


def _lines(found: Inspection) -> Iterator[str]:
    yield f"kind      {found.kind} ({found.told_by})"
    yield f"files     {found.files:,}{'' if found.bytes is None else f', {size(found.bytes)}'}"
    yield f"rows      {_rows(found)}"
    yield f"parts     {'unknown until it is planned' if found.parts is None else _about(found.parts, found.exact)}"
    yield f"pictures  {'in the source' if found.carries else 'to be fetched'}"
    if found.columns:
        yield f"columns   {', '.join(found.columns)}"
        yield f"used      {', '.join(f'{role}: {name}' for role, name in found.used.items())}"
    yield f"looked at {found.looked_at:,} rows"
    yield f"  without address   {found.without_url:.0%}"
    yield f"  without caption   {found.without_caption:.0%}"
    yield f"  repeated          addresses {found.repeated_urls:,}, captions {found.repeated_captions:,}"
    if found.median_caption is not None:
        yield f"  median caption    {found.median_caption:g} characters"
    if found.hosts:
        yield f"  hosts             {', '.join(f'{host} {count:,}' for host, count in found.hosts.items())}"
    if found.dropped:
        yield f"  drops             {', '.join(f'{reason} {count:,}' for reason, count in found.dropped.items())}"
    if found.sample:
        yield "sample"
        for row in found.sample:
            yield from _row(row)
    if found.problems:
        yield "likely problems"
        for problem in found.problems:
            yield f"  {problem.what}"
            yield f"    mend: {problem.mend}"


def size(count: int) -> str:
    """Bytes in the largest unit of 1024 that leaves a digit before the point."""
    value, unit = float(count), 0
    while value >= 1024 and unit < 4:
        value, unit = value / 1024, unit + 1
    return f"{count:,} bytes" if not unit else f"{value:.1f} {('', 'KiB', 'MiB', 'GiB', 'TiB')[unit]}"


def _rows(found: Inspection) -> str:
    return (
        "unknown until it is planned: all of it must be read" if found.rows is None else _about(found.rows, found.exact)
    )


def _about(count: int, exact: bool) -> str:
    return f"{count:,}" if exact else f"about {count:,}"


def _row(row: Shown) -> Iterator[str]:
    told = [row.url or "no address", *([f"key {row.key}"] if row.key else [])]
    told += [size(row.bytes)] if row.bytes is not None else []
    yield f"  {_cut('  '.join(told))}"
    if row.drop:
        yield f"    {row.drop}: {_cut(row.detail or '')}"
    for text in row.texts:
        yield f"    {_cut(text)}"


def _cut(text: str) -> str:
    return f"{text[:WIDTH]}..." if len(text) > WIDTH else plain(text).strip()

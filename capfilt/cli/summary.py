"""What a finished run came to, as a reader of a terminal wants it: the books, the noise, a few captions.

Reads a manifest and a ledger; runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from capfilt.cli.terminal import table

if TYPE_CHECKING:
    from capfilt.flow.pace import Pace
    from capfilt.storage import Store

COLUMNS = ["id", "url", "drop", "captions"]


def show(manifest: Mapping[str, Any]) -> None:
    """The books by reason, and the noise ratio by origin."""
    totals = manifest["totals"]
    table("Books", ["", "rows", "share"], list(_books(totals)))
    scored = {origin: ratio for origin, ratio in manifest["noise_ratio"].items() if ratio is not None}
    if scored:
        rows = [
            [origin, f"{totals['texts'][origin]:,}", f"{totals['texts_kept'].get(origin, 0):,}", f"{ratio:.1%}"]
            for origin, ratio in scored.items()
        ]
        table("Texts, as the filter judged them", ["origin", "scored", "kept", "noise ratio"], rows)


def speed(pace: Pace) -> None:
    """How fast the run was, which stage held it up and what would help; nothing where nothing was done."""
    rate = pace.images_s
    if rate is None or pace.first is None:
        return
    told = f"{pace.images:,} pictures in {pace.wall:.0f} s, {pace.first:.0f} s of them until the first part"
    steady = f", then {pace.steady:.3g} images/s" if pace.steady else ""
    typer.echo(f"Speed\n  {rate:.3g} images/s: {told}{steady}")
    typer.echo("  seconds of work: " + ", ".join(f"{name} {one.seconds:.1f}" for name, one in pace.stages.items()))
    busy = f" (busy {pace.busy:.0%} of the time)" if pace.limits == "capfilt" else ""
    typer.echo(f"  {pace.limits} limits it{busy}; faster: {pace.advice}")


def examples(store: Store, manifest: Mapping[str, Any], count: int = 5) -> list[str]:
    """A few judged pictures, each with its texts, scores and verdicts.

    Chosen by their ids, which are hashes: neither the best nor the worst.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for ledger in manifest["ledgers"]:
        rows = pq.read_table(pa.BufferReader(store.read(ledger["name"])), columns=COLUMNS).to_pylist()
        found += [row for row in rows if row["drop"] in {None, "no_caption_kept"} and len(row["captions"]) > 1]
    lines: list[str] = []
    for row in sorted(found, key=lambda row: str(row["id"]))[:count]:
        lines += [f"  {row['url']}", *(_caption(caption) for caption in row["captions"])]
    return lines


def _books(totals: Mapping[str, Any]) -> Iterator[list[str]]:
    whole = max(1, totals["rows"])
    lines = {"rows in": totals["rows"], "kept": totals["kept"]}
    lines |= {f"dropped: {reason}": count for reason, count in totals["dropped"].items()}
    for name, count in lines.items():
        yield [name, f"{count:,}", f"{count / whole:.1%}"]


def _caption(caption: Mapping[str, Any]) -> str:
    score = " " * 4 if caption["itm"] is None else f"{caption['itm']:.2f}"
    verdict = "kept" if caption["kept"] else "rejected"
    return f"    {caption['origin']:<9} {score}  {verdict:<8}  {' '.join(caption['text'].split())[:90]}"

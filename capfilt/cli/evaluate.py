"""``capfilt evaluate``: how good a model's captions, verdicts and rankings are.

Knows how an evaluation is asked for and shown; the measures are ``capfilt.evaluate``'s.
"""

from __future__ import annotations

import json
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capfilt.cli import completing
from capfilt.cli.options import QuietOption
from capfilt.cli.terminal import table
from capfilt.errors import DestinationError

if TYPE_CHECKING:
    from capfilt.evaluate.run import Results


class MeasureName(StrEnum):
    """What can be measured."""

    CAPTIONING = "captioning"
    FILTERING = "filtering"
    RETRIEVAL = "retrieval"
    LABELS = "labels"


class Decoding(StrEnum):
    """How captions are written."""

    BEAM = "beam"
    NUCLEUS = "nucleus"
    GREEDY = "greedy"


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A name of `capfilt models`, or a model folder.", autocompletion=completing.models
        ),
    ],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...", help="Shards, data sets, or .json annotations (COCO, Karpathy, NoCaps, BLIP)."
        ),
    ],
    measure: Annotated[
        list[MeasureName] | None, typer.Option("--measure", help="Only this; may be repeated. Default: what it can.")
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", metavar="DIR", help="Where file names in annotations start from.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Of Karpathy's files: test, val or train.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", metavar="FILE", help="CSV of judged pairs (id, text, label): measures the filter on them."
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", min=1, metavar="N", help="So many pictures at most; of labels alone, so many judged ones."
        ),
    ] = 5000,
    decoding: Annotated[Decoding, typer.Option("--decoding", help="How captions are written.")] = Decoding.BEAM,
    prompt: Annotated[str | None, typer.Option("--prompt", help="What a captioner of others is asked.")] = None,
    rerank: Annotated[int, typer.Option("--rerank", min=0, metavar="K", help="Candidates that ITM ranks again.")] = 256,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Pictures at once.")] = 64,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for JSON, captions and plots, written after each measure."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Measure a model on pictures with references.

    Captioning: BLEU, ROUGE-L, CIDEr, with Java METEOR and SPICE, and diversity. Filtering: true against shuffled
    captions. Retrieval: recall by ITC, and with the first candidates ranked again by ITM. Labels: right against wrong
    texts, as a person judged them.
    """
    from capfilt.catalog import model_folder
    from capfilt.evaluate.labels import of_labels, read_labels
    from capfilt.evaluate.references import read

    folder = model_folder(model)
    if out is not None:
        _check_out(out)
    found = read(data, images=images, split=split)
    # A mistake in the table is told of at once, and not after what is measured before.
    table_of_labels = () if labels is None else read_labels(labels)
    if table_of_labels and set(measure or ()) == {MeasureName.LABELS}:
        found = of_labels(found, table_of_labels)
    items = list(islice(found, limit))
    # Torch only now: a mistake is told of at once.
    from capfilt.evaluate.run import ROWS, Asked, Results, evaluate
    from capfilt.med.device import device_of
    from capfilt.roles import Writing

    beams = {Decoding.BEAM: 3, Decoding.GREEDY: 1, Decoding.NUCLEUS: None}[decoding]
    asked = Asked(
        measures=tuple(m.value for m in measure) if measure else None,
        writing=Writing(beams=beams),
        prompt=prompt,
        labels=labels,
        rerank=rerank,
        batch_size=batch_size,
        device=device_of(device),
    )
    about = {"model": model, "data": list(data), "split": split, "limit": limit}
    if labels is not None:
        # Of a label that is not found: whether its picture may be among those that were not read.
        about["cut"] = next(found, None) is not None
    results = None if out is None else Results(out)
    try:
        told = evaluate(
            folder,
            items,
            asked,
            on_measure=None if quiet else lambda m: typer.echo(f"{m} ...", err=True),
            on_told=None if results is None else lambda told: results.save({**about, **told}),
        )
    except BaseException:
        # Hours of an earlier measure are there, whatever ended this one.
        _tell_files(results, err=True)
        raise
    told = {**about, **told}
    if as_json:
        typer.echo(json.dumps({name: value for name, value in told.items() if name not in ROWS}, indent=1))
    else:
        show(told)
    _tell_files(results, err=as_json)


def _tell_files(results: Results | None, *, err: bool) -> None:
    for file in results.files if results else ():
        typer.echo(f"wrote  {file}", err=err)


def _check_out(out: Path) -> None:
    """Before hours of computing."""
    if "://" in str(out) or ":/" in str(out):
        raise DestinationError("figures are written to a folder of this machine", where=str(out), mend="Name one.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".capfilt").touch()
        (out / ".capfilt").unlink()
    except OSError as error:
        raise DestinationError(f"cannot be written to: {error}", where=str(out), mend="Name another folder.") from error


def show(told: dict[str, Any]) -> None:
    """The figures as small tables."""
    typer.echo(f"{told['pictures']:,} pictures, {told['texts']:,} texts")
    if "captioning" in told:
        _show_captioning(told["captioning"])
    if "filtering" in told:
        _show_filtering(told["filtering"])
    if "retrieval" in told:
        _show_retrieval(told["retrieval"])
    if "labels" in told:
        _show_labels(told["labels"], told["limit"] if told["cut"] else None)


def _show_captioning(part: dict[str, Any]) -> None:
    rows = [[name, f"{100 * value:.1f}"] for name, value in part["scores"].items()]
    if rows:
        table(f"Captioning, {part['tokenizer']} tokenizer, times 100", ["metric", ""], rows)
    for name, why in part["left_out"].items():
        typer.echo(f"left out: {name} ({why})")
    names = {"vocabulary": "different words", "unique": "different captions", "distinct_2": "different pairs of words"}
    d = part["diversity"]
    shown = [[names[name], f"{d[name]:,}" if name == "vocabulary" else f"{100 * d[name]:.1f}%"] for name in names]
    table("Diversity", ["measure", ""], [*shown, ["words a caption", f"{d['words']:.1f}"]])


def _show_filtering(part: dict[str, Any]) -> None:
    table(
        "Filtering: true against shuffled captions",
        ["AUC", ""],
        [
            ["by ITM", _number(part["auc_itm"])],
            ["by ITC", _number(part["auc_itc"])],
        ],
    )
    if part["noise_ratio"] is not None:
        typer.echo(
            f"noise ratio at P(match) 0.5: {_percent(part['noise_ratio'])} of the {part['texts']:,} texts "
            "of these pictures, rejected ones too"
        )
    shown = ("precision", "recall", "kept_false", "noise_ratio")
    rows = [[f"{row['threshold']:.2f}", *(_percent(row[name]) for name in shown)] for row in part["thresholds"][::2]]
    table("By threshold", ["threshold", "precision", "recall", "false kept", "noise ratio"], rows)


def _show_retrieval(part: dict[str, Any]) -> None:
    rows = []
    for name, key in (
        ("texts, by ITC", "text_by_itc"),
        ("pictures, by ITC", "image_by_itc"),
        (f"texts, first {part['reranked_texts']} by ITM", "text"),
        (f"pictures, first {part['reranked_pictures']} by ITM", "image"),
    ):
        if part[key] is not None:
            rows.append([name, *(f"{100 * part[key][at]:.1f}" for at in ("at_1", "at_5", "at_10"))])
    table("Retrieval, recall in %", ["of", "R@1", "R@5", "R@10"], rows)


def _show_labels(part: dict[str, Any], limit: int | None) -> None:
    rows = []
    for name, own in part["sets"].items():
        rule = own["rule"] or dict.fromkeys(("precision", "recall", "kept_wrong"))
        shares = [_interval(rule[key], 100) for key in ("precision", "recall", "kept_wrong")]
        rows.append(
            [
                name or "all",
                f"{own['right']:,}",
                f"{own['wrong']:,}",
                _interval(own["auc_itm"], 1),
                _interval(own["auc_itc"], 1),
                *shares,
            ]
        )
    head = ["set", "right", "wrong", "AUC by ITM", "AUC by ITC", "precision, %", "recall, %", "wrong kept, %"]
    table("Judged pairs, with 95% intervals; shares at P(match) 0.5", head, rows)
    if part["not_found"]:
        where = "in the data" if limit is None else f"among the first {limit:,} pictures (--limit)"
        typer.echo(f"{part['not_found']:,} labels are of pictures that are not {where}")


def _interval(found: dict[str, float] | None, times: int) -> str:
    if found is None:
        return "-"
    digits = 2 if times == 1 else 0
    value, low, high = (f"{times * found[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"

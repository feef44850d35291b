"""How med-mini's filter does on pairs that were judged by eye, and what docs/results.md says of it.

    python -P benchmarks/labels.py --shards DIR [--out FILE]
    python -P benchmarks/labels.py --page

DIR is what `capfilt corpora build` wrote. The first command scores the pairs of models/med-mini/labels.csv (seconds on
one core) and draws the contact sheet; the second puts the committed figures into the page's tables. With -P, since a
file beside this one has the package's name.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import random
import re
import statistics
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from capfilt.captions import clean
from capfilt.catalog import model_folder
from capfilt.embedded import HELD_OUT, NAME
from capfilt.evaluate.references import Referenced, read
from capfilt.evaluate.run import Asked, evaluate

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "labels.json"
PAGE = ROOT / "docs" / "results.md"
SHEET = ROOT / "docs" / "results-labels.webp"
LABELS = model_folder(NAME) / "labels.csv"
SECOND = model_folder(NAME) / "labels-second.csv"
"""Of a second judge, who knew neither the first one's labels nor any score."""
CLIP_ART = HELD_OUT["clip art never seen"]
AT = (0.1, 0.3, 0.5, 0.7)
"""Thresholds on the page."""
DRAWN, WORST = 12, 3
"""Pairs of each set on the sheet: drawn by a fixed seed; and the worst of its right and of its wrong texts."""


def measure(
    shards: Path, *, labels: Path = LABELS, second: Path = SECOND, judge: Path | None = None, device: str = "cpu"
) -> dict[str, Any]:
    """The figures, and under ``judgements`` the pairs with their scores."""
    folder = judge or model_folder(f"{NAME}/filter")
    items = list(read([str(shards / CLIP_ART)]))
    told = evaluate(folder, items, Asked(measures=("labels",), labels=str(labels), device=device))
    return {
        "filter": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "labels": hashlib.sha256(labels.read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "device": device,
        "judgements": told["judgements"],
        **told["labels"],
        "boilerplate": beside_list(shards, items, folder, labels, device),
        "second": beside_second(items, folder, labels, second, device),
    }


def beside_second(items: Sequence[Referenced], judge: Path, first: Path, second: Path, device: str) -> dict[str, Any]:
    """The figures by a second judge's labels and by those on which both agree, and how often they do."""
    verdicts = {(row["set"], row["id"]): row["label"] for row in rows_of(second)}
    rows = [{**row, "again": verdicts[row["set"], row["id"]]} for row in rows_of(first)]
    agreed = [row for row in rows if row["label"] == row["again"]]
    figures = [by_labels(items, judge, some, device) for some in (rows_of(second), rows, agreed)]
    told: dict[str, Any] = {"labels": hashlib.sha256(second.read_bytes()).hexdigest(), "sets": {}}
    for name, own in figures[0].items():
        told["sets"][name] = {
            **{key: own[key] for key in ("right", "wrong", "unsure", "auc_itm")},
            "agreement": figures[1][name]["agreement"],
            "both": {key: figures[2][name][key] for key in ("right", "wrong", "auc_itm")},
        }
    return told


def rows_of(labels: Path) -> list[dict[str, str]]:
    with labels.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def by_labels(
    items: Sequence[Referenced], judge: Path, rows: Sequence[Mapping[str, str]], device: str
) -> dict[str, Any]:
    """Each set's figures by these labels."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        out.flush()
        found = evaluate(judge, items, Asked(measures=("labels",), labels=out.name, device=device))
    sets: dict[str, Any] = found["labels"]["sets"]
    return sets


def beside_list(
    shards: Path, items: Sequence[Referenced], judge: Path, labels: Path, device: str
) -> dict[str, Any] | None:
    """What the list of boilerplate does that the filter was finetuned with: the titles without those that stand in it,
    and how a plain look into the list would judge all of them."""
    listed = shards / "boilerplate.txt"
    if not listed.exists():
        return None
    known = {clean(line) for line in listed.read_text(encoding="utf-8").splitlines()}
    rows = [row for row in rows_of(labels) if row["set"] == "titles"]
    others = [row for row in rows if clean(row["text"]) not in known]
    share = {
        label: statistics.mean(clean(row["text"]) in known for row in rows if row["label"] == label)
        for label in ("right", "wrong")
    }
    # The AUC of a judgement that knows two values only.
    return {
        "listed": share,
        "auc": (1 + share["wrong"] - share["right"]) / 2,
        "titles": by_labels(items, judge, others, device)["titles"],
    }


def worst(rows: Sequence[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """Of each set the wrong texts of the highest P(match) and the right ones of the lowest, no text twice."""
    found: list[dict[str, Any]] = []
    for name in dict.fromkeys(row["set"] for row in rows):
        for label, sign in (("wrong", -1), ("right", 1)):
            own = [row for row in rows if (row["set"], row["label"]) == (name, label)]
            unlike = {
                re.sub(r"\d+", "#", clean(row["text"])): row
                for row in sorted(own, key=lambda row: -sign * row["itm"])  # of equal texts the worst comes last
            }
            found += [dict(row) for row in sorted(unlike.values(), key=lambda row: sign * row["itm"])[:count]]
    return found


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page by name, in Markdown."""
    sets = results["sets"]
    shown = sets | ({"titles not listed": results["boilerplate"]["titles"]} if results["boilerplate"] else {})
    figures = [
        [
            name,
            *(own[key] for key in ("right", "wrong", "unsure", "right_texts", "wrong_texts")),
            *(_number(own[key]) for key in ("auc_itm", "auc_itc", "auc_each_text")),
        ]
        for name, own in shown.items()
    ]
    kept = [
        [name, f"{row['threshold']:.1f}", *(_percent(row[key]) for key in ("precision", "recall", "kept_wrong"))]
        for name, own in sets.items()
        for row in own["thresholds"]
        if row["threshold"] in AT
    ]
    kinds = [
        [name, kind, own["wrong"], _number(own["auc"])]
        for name, told in shown.items()
        for kind, own in told["kinds"].items()
    ]
    twice = [
        [name, own["agreement"]["pairs"], f"{100 * own['agreement']['same']:.0f}%", _kappa(own["agreement"])]
        for name, own in sets.items()
        if own["agreement"]
    ]
    other = [
        [
            name,
            *(own[key] for key in ("right", "wrong", "unsure")),
            f"{100 * own['agreement']['same']:.0f}%",
            _kappa(own["agreement"]),
            _number(own["auc_itm"]),
            own["both"]["right"] + own["both"]["wrong"],
            _number(own["both"]["auc_itm"]),
        ]
        for name, own in results["second"]["sets"].items()
    ]
    head = ["set", "right", "wrong", "unsure", "different right", "different wrong", "AUC by ITM", "AUC by ITC"]
    return {
        "labels": _table([*head, "AUC by ITM, each text once"], figures),
        "labels by threshold": _table(["set", "P(match) from", "precision", "recall", "wrong kept"], kept),
        "labels by kind": _table(["set", "the wrong text names", "wrong", "AUC by ITM"], kinds),
        "labels twice": _table(["set", "judged twice", "the same label", "kappa"], twice),
        "second labels": _table(
            [
                "set",
                "right",
                "wrong",
                "unsure",
                "as the first judge",
                "kappa",
                "AUC by ITM",
                "agreed",
                "AUC by ITM, agreed",
            ],
            other,
        ),
    }


def filled(page: str, results: Mapping[str, Any]) -> str:
    """The page with the tables of these results between its marks."""
    for name, table in tables(results).items():
        begin, end = f"<!-- {name}, from benchmarks/results/labels.json -->\n", "<!-- end -->"
        found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
        if len(found.findall(page)) != 1:
            raise ValueError(f"the page has no place, or two, for {name}")
        page = found.sub(lambda _, text=begin + table + end: text, page)  # type: ignore[misc]
    return page


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(map(str, line))} |\n" for line in (head, *rows)]
    return "".join([lines[0], f"|{'---|' * len(head)}\n", *lines[1:]])


def _kappa(found: Mapping[str, Any]) -> str:
    return "" if found["kappa"] is None else f"{found['kappa']:.2f}"


def _number(found: Mapping[str, float] | None) -> str:
    return "" if found is None else f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _percent(found: Mapping[str, float] | None) -> str:
    return (
        "" if found is None else f"{100 * found['value']:.0f}% ({100 * found['low']:.0f} to {100 * found['high']:.0f})"
    )


def sheet(rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Referenced], file: Path, *, seed: int = 0) -> None:
    """Pairs of each set drawn by a seed above, the filter's worst below: the text, the label and P(match)."""
    names = list(dict.fromkeys(row["set"] for row in rows))
    drawn = []
    for name in names:
        own = sorted((row for row in rows if row["set"] == name), key=lambda row: row["id"])
        drawn += random.Random(seed).sample(own, min(DRAWN, len(own)))
    shown = [*drawn, *worst(rows, WORST)]
    columns, side, lines = 6, 112, 4
    width, height = 190, side + 6 + 15 * (lines + 1)
    bands = [("drawn by a fixed seed", drawn), ("the filter's worst", shown[len(drawn) :])]
    total = sum(24 + height * -(-len(own) // columns) for _, own in bands)
    canvas = Image.new("RGB", (width * columns, total), "white")
    pen, font, top = ImageDraw.Draw(canvas), ImageFont.load_default(12), 0
    for title, own in bands:
        pen.text((6, top + 5), title, fill="black", font=ImageFont.load_default(14))
        top += 24
        for at, row in enumerate(own):
            x, y = at % columns * width, top + at // columns * height
            picture = Image.open(io.BytesIO(pictures[row["id"]].image())).convert("RGB")
            picture.thumbnail((side, side))
            canvas.paste(picture, (x + (width - picture.width) // 2, y))
            text = textwrap.wrap(row["text"].encode("ascii", "replace").decode(), 29)[:lines]
            pen.multiline_text((x + 6, y + side + 4), "\n".join(text), fill="black", font=font, spacing=2)
            colour = {"right": "#1a7f37", "wrong": "#b42318"}.get(row["label"], "#666666")
            said = f"{row['set'].removesuffix('s')}: {row['label']}, {row['itm']:.2f}"
            pen.text((x + 6, y + side + 4 + 15 * len(text)), said, fill=colour, font=font)
        top += height * -(-len(own) // columns)
    canvas.save(file, "WEBP", quality=70, method=6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    if asked.shards is not None:
        torch.set_num_threads(1)
        told = measure(asked.shards)
        rows = told.pop("judgements")
        pictures = {item.id: item for item in read([str(asked.shards / CLIP_ART)])}
        sheet(rows, pictures, SHEET)
        asked.out.write_text(json.dumps({**told, "worst": worst(rows, WORST)}, indent=1) + "\n", encoding="utf-8")
    if asked.page:
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    main()

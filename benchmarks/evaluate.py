"""How good med-mini is on what was held out: captioning, filtering and retrieval, and the page that tells it.

    python -P benchmarks/evaluate.py --shards DIR [--limit 500] [--rerank 64] [--out FILE]
    python -P benchmarks/evaluate.py --page

DIR is what `capfilt corpora build` wrote. The first command measures, on one CPU core in about half an hour; with
--filter-only the captioner's figures in FILE stay, if they are of the same captioner. The second puts the committed
figures into the tables of docs/results.md and draws its plot. With -P, since a file beside this one has the package's
name.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from capfilt.catalog import model_folder
from capfilt.embedded import HELD_OUT, NAME
from capfilt.evaluate.references import Referenced, read
from capfilt.evaluate.run import Asked, draw_scores, draw_thresholds, evaluate
from capfilt.roles import Writing

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "evaluate.json"
PAGE = ROOT / "docs" / "results.md"
PLOT = ROOT / "docs" / "results-filter.webp"
WRITINGS = {"beam": Writing(beams=3), "nucleus": Writing()}
RECALLS = ("text_by_itc", "text", "image_by_itc", "image")
AT = ("at_1", "at_5", "at_10")


def measured(items: Sequence[Referenced], *, rerank: int, device: str) -> dict[str, Any]:
    """Figures of one set, as `capfilt evaluate` gives them."""
    return judged(items, rerank=rerank, device=device) | {"captioning": written(items, device=device)}


def judged(items: Sequence[Referenced], *, rerank: int, device: str) -> dict[str, Any]:
    """The filter's figures."""
    told = evaluate(model_folder(f"{NAME}/filter"), items, Asked(rerank=rerank, device=device))
    return {name: value for name, value in told.items() if name != "unfinished"}


def written(items: Sequence[Referenced], *, device: str) -> dict[str, Any]:
    """The captioner's figures by decoding."""
    writer = model_folder(f"{NAME}/captioner")
    return {
        name: evaluate(writer, items, Asked(writing=writing, device=device))["captioning"]
        for name, writing in WRITINGS.items()
    }


def digest(part: str) -> str:
    return hashlib.sha256((model_folder(f"{NAME}/{part}") / "model.safetensors").read_bytes()).hexdigest()


def measure(
    shards: Path, *, limit: int, rerank: int, device: str, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Figures of all sets; those of the captioner are taken from ``known`` if it is the same and was asked the same."""
    sets: dict[str, Any] = {}
    asked = {"limit": limit, "torch": torch.__version__, "device": device}
    same = known and known["models"]["captioner"] == digest("captioner") and asked.items() <= known.items()
    for name, files in HELD_OUT.items():
        start = time.perf_counter()
        items = list(islice(read([str(shards / files)]), limit))
        if same and known:
            told = known["sets"][name]["captioning"]
            sets[name] = judged(items, rerank=rerank, device=device) | {"captioning": told}
        else:
            sets[name] = measured(items, rerank=rerank, device=device)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return {
        "models": {part: digest(part) for part in ("captioner", "filter")},
        **asked,
        "sets": sets,
    }


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page by name, in Markdown."""
    sets = results["sets"]
    return {
        "captioning": _captioning(sets),
        "filtering": _filtering(sets),
        "retrieval": _retrieval(sets),
    }


def filled(page: str, results: Mapping[str, Any]) -> str:
    """The page with the tables of these results between its marks."""
    for name, table in tables(results).items():
        begin, end = f"<!-- {name}, from benchmarks/results/evaluate.json -->\n", "<!-- end -->"
        found = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
        if len(found.findall(page)) != 1:
            raise ValueError(f"the page has no place, or two, for {name}")
        page = found.sub(lambda _, text=begin + table + end: text, page)  # type: ignore[misc]
    return page


def _captioning(sets: Mapping[str, Any]) -> str:
    metrics = ["BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr"]
    rows = []
    for name, told in sets.items():
        for writing in WRITINGS:
            part = told["captioning"][writing]
            scores = [_times_100(part["scores"].get(metric)) for metric in metrics]
            rows.append(
                [name, writing, *scores, _percent(part["diversity"]["unique"]), part["diversity"]["vocabulary"]]
            )
    return _table(["set", "decoding", *metrics, "different captions", "different words"], rows)


def _filtering(sets: Mapping[str, Any]) -> str:
    rows = []
    for name, told in sets.items():
        part = told["filtering"]
        at = next(row for row in part["thresholds"] if row["threshold"] == 0.5)
        shares = [_percent(at[key]) for key in ("precision", "recall", "kept_false", "noise_ratio")]
        rows.append([name, part["pairs"], f"{part['auc_itm']:.3f}", f"{part['auc_itc']:.3f}", *shares, part["texts"]])
    head = [
        "set",
        "pictures",
        "AUC by ITM",
        "AUC by ITC",
        "precision",
        "recall",
        "false kept",
        "noise ratio",
        "of texts",
    ]
    return _table(head, rows)


def _retrieval(sets: Mapping[str, Any]) -> str:
    rows = []
    for name, told in sets.items():
        part = told["retrieval"]
        cells = [" / ".join(_times_100(part[key][at]) for at in AT) for key in RECALLS]
        rows.append([name, part["pictures"], part["texts"], *cells])
    head = ["set", "pictures", "texts", "TR by ITC", f"TR, first {part['reranked_texts']} by ITM", "IR by ITC"]
    return _table([*head, f"IR, first {part['reranked_pictures']} by ITM"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return (
        "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
        .replace("| --- ", "|---")
        .replace("--- |", "---|")
    )


def _times_100(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}%"


def plot(results: Mapping[str, Any], file: Path) -> None:
    """Scores of true and false captions above, what each threshold keeps below, a column for each set."""
    from matplotlib.figure import Figure

    sets = results["sets"]
    figure = Figure(figsize=(3 * len(sets), 5), layout="constrained")
    axes = figure.subplots(2, len(sets), sharey="row", squeeze=False)
    for column, (name, told) in enumerate(sets.items()):
        above, below = axes[:, column]
        draw_scores(above, told["filtering"])
        draw_thresholds(below, told["filtering"])
        above.set_title(name.replace(", ", ",\n"), fontsize="small")
        for one in (above, below):
            one.grid(alpha=0.3)
            one.label_outer()
    shown = [artist for row in axes for artist in row[0].get_legend_handles_labels()[0]]
    figure.legend(handles=shown, loc="outside lower center", ncols=len(shown), fontsize="small", frameon=False)
    figure.savefig(file, dpi=80, format="webp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--limit", type=int, default=500, help="pictures of each set")
    parser.add_argument("--rerank", type=int, default=64, help="candidates that ITM ranks again")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--filter-only", action="store_true", help="keep the captioner's figures of --out")
    parser.add_argument("--page", action="store_true", help="write the page's tables and plot from --out")
    options = parser.parse_args()
    if not options.shards and not options.page:
        parser.error("give --shards DIR to measure, or --page to write the page")
    if options.shards:
        known = json.loads(options.out.read_text(encoding="utf-8")) if options.filter_only else None
        asked = {"limit": options.limit, "rerank": options.rerank, "device": options.device}
        results = measure(options.shards, **asked, known=known)
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.page:
        results = json.loads(options.out.read_text(encoding="utf-8"))
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
        plot(results, PLOT)


if __name__ == "__main__":
    main()

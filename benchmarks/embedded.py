"""How fast the capfilt stage runs on this machine: images/s of the embedded model on the bundled sample.

    python -P benchmarks/embedded.py [--images 128] [--rounds 3] [--out FILE]

The variants take turns within each round, so that a machine whose speed drifts drifts for all; figures are medians
of the rounds, and what is worth quoting are the ratios.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from capfilt import records
from capfilt.catalog import sample
from capfilt.images import ImageLimits, Picture, normalise
from capfilt.records import web_caption
from capfilt.stages.capfilt import CapFilt
from capfilt.stages.config import CapFiltConfig

BASE = CapFiltConfig(device="cpu", cpus=float(torch.get_num_threads()))
VARIANTS = {
    "captioner and filter, float32, batch 32": BASE,
    "captioner and filter, bfloat16, batch 32": replace(BASE, dtype="bfloat16"),
    "captioner and filter, float32, batch 1": replace(BASE, batch_size=1),
    "captioner alone": replace(BASE, filter=None),
    "filter alone": replace(BASE, captioner=None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    files = sorted((sample() / "images").glob("*.[jp][pn]g"))[: options.images]
    pictures = [p for f in files if isinstance(p := normalise(f.read_bytes(), ImageLimits()), Picture)]
    rows = records.table_of(
        {"id": p.sha256, "part": 0, "row": i, "image": p.data, "captions": [web_caption("a picture")]}
        for i, p in enumerate(pictures)
    )
    works = {name: CapFilt(capfilt=config).open() for name, config in VARIANTS.items()}
    rates: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(options.rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work(rows)
            if round_:  # the first round warms up
                rates[name].append(len(pictures) / (time.perf_counter() - start))
    first = statistics.median(next(iter(rates.values())))
    result = {
        "images": len(pictures),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "images_per_s": {
            name: {"median": round(statistics.median(r), 1), "min": round(min(r), 1), "max": round(max(r), 1)}
            for name, r in rates.items()
        },
        "ratio_to_first": {name: round(statistics.median(r) / first, 2) for name, r in rates.items()},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

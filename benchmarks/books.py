"""How long the books of a large data set take, and how much memory: to resume it, to close it, to verify it.

    python -P benchmarks/books.py [--rows 100000000] [--part-rows 1000] [--kept 4] [--folder DIR] [--out FILE]

The source is a real table of Parquet files with as many rows as they say. The destination has as many parts as the
plan, each with a ledger of rows that differ, a tar of ``--kept`` small pictures, and its marker, in the formats of the
main job; but nothing was fetched or captioned, and all other rows are dropped. First half of the parts are there, and
``capfilt bootstrap --dry-run`` says what is left; then all are, and the manifest is written and the whole verified.
Each measure is the real command, or call, in a process of its own. ``--folder`` is where some 80 bytes a row go.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capfilt.flow.plan import Plan
    from capfilt.recipe import Recipe

WORDS = ["a", "the", "of", "on", "with", "under", "red", "green", "small", "old", "city", "river", "dog", "photo"]
HOSTS = [f"img{n}.example.org" for n in range(500)]
MEASURES = {
    "left": "what is left of a run that is half done (`capfilt bootstrap --dry-run`)",
    "finish": "reading all markers and writing the manifest",
    "done": "the same command on the finished data set (`capfilt bootstrap`)",
    "verify": "`capfilt verify`",
}


def write_source(folder: Path, rows: int, files: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    group = min(1_000_000, rows // files)
    for number in range(files):
        url = pa.DictionaryArray.from_arrays(pa.array([0] * group, pa.int32()), [f"http://host{number}.example/a.jpg"])
        table = pa.table({"url": url, "caption": pa.DictionaryArray.from_arrays(url.indices, ["a picture"])})
        with pq.ParquetWriter(folder / f"{number:05d}.parquet", table.schema) as writer:
            for _ in range(rows // files // group):
                writer.write_table(table)


def planned_of(source: str, part_rows: int) -> Plan:
    from capfilt.flow.config import PlanConfig
    from capfilt.flow.plan import plan
    from capfilt.sources.base import SourceConfig
    from capfilt.sources.opening import open_source

    return plan(open_source(SourceConfig(path=source)), PlanConfig(part_rows=part_rows))


def write_parts(source: str, dest: str, part_rows: int, kept: int, numbers: range) -> None:
    """Parts as the main job commits them, but for the waiting for the disk after each file."""
    import hashlib

    import pyarrow as pa
    from PIL import Image

    from capfilt.records import CAPTION, LEDGER_SCHEMA, META, Tally
    from capfilt.shards.marker import PartMarker, StoredFile
    from capfilt.shards.parquet import write_ledger
    from capfilt.shards.sample import Sample, key_of
    from capfilt.shards.tar import write_tar

    parts = planned_of(source, part_rows).parts
    draw = random.Random(numbers.start)
    out = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(out, "JPEG")
    picture, sha = out.getvalue(), hashlib.sha256(out.getvalue()).hexdigest()

    def stored(name: str, data: bytes, rows: int) -> StoredFile:
        Path(dest, name).write_bytes(data)
        return StoredFile(name=name, sha256=hashlib.sha256(data).hexdigest(), size=len(data), rows=rows)

    for number in numbers:
        part = parts[number]
        count = part.stop - part.start
        ids = [f"{draw.getrandbits(128):032x}" for _ in range(count)]
        urls = [f"https://{HOSTS[draw.getrandbits(20) % 500]}/{draw.getrandbits(48):x}.jpg" for _ in range(count)]
        text = [" ".join(WORDS[draw.getrandbits(16) % len(WORDS)] for _ in range(6)) for _ in range(count)]
        whole = [at < kept for at in range(count)]
        captions = [
            [{"text": words, "origin": "web", "itm": 0.75 if good else None, "itc": None, "kept": good}]
            for words, good in zip(text, whole, strict=True)
        ]
        columns = {
            "id": ids,
            "part": [number] * count,
            "row": list(range(part.start, part.stop)),
            "url": urls,
            "source_key": [None] * count,
            "width": [32 if good else None for good in whole],
            "height": [32 if good else None for good in whole],
            "sha256": [sha if good else None for good in whole],
            "phash": ["0" * 16 if good else None for good in whole],
            "captions": pa.array(captions, pa.list_(CAPTION)),
            "drop": [None if good else "unreachable" for good in whole],
            "detail": [None if good else "The host did not answer." for good in whole],
        }
        ledger = pa.table(columns, schema=LEDGER_SCHEMA)
        samples = []
        for row in ledger.slice(0, kept).to_pylist():
            meta = {name: row[name] for name in META}
            samples.append(Sample(key_of(row["part"], row["row"]), picture, row["captions"], meta))
        pairs, tar = io.BytesIO(), io.BytesIO()
        write_ledger(pairs, ledger)
        write_tar(tar, samples)
        shards = (stored(f"shards/{number:05d}.tar", tar.getvalue(), kept),) if kept else ()
        made = stored(f"pairs/{number:05d}.parquet", pairs.getvalue(), count)
        marker = PartMarker(part=number, digest=part.digest, tally=Tally.of(ledger), ledger=made, shards=shards)
        told = json.dumps(marker.to_json(), sort_keys=True, indent=1)
        Path(dest, f"parts/{number:05d}.json").write_text(told + "\n")


def peak_kib() -> int:
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def measure(what: str, source: str, dest: str, part_rows: int) -> None:
    """Runs in its own process; the last line it prints is JSON."""
    sets = ["--set", f"plan.part_rows={part_rows}", "--set", "capfilt.captioner=null", "--set", "capfilt.threshold=0.5"]
    command = {
        "left": ["bootstrap", source, dest, "--dry-run", *sets],
        "done": ["bootstrap", source, dest, "-q", *sets],
        "verify": ["verify", dest],
    }.get(what)
    started, base = time.perf_counter(), peak_kib()
    if command is None:
        finish(source, dest, part_rows)
    else:
        from capfilt.cli.main import call

        if code := call(command):
            raise SystemExit(code)
    took = time.perf_counter() - started
    print(json.dumps({"seconds": round(took, 2), "mib": round((peak_kib() - base) / 1024, 1)}))


def settings(source: str, part_rows: int) -> Recipe:
    from dataclasses import replace

    from capfilt.recipe import load

    recipe = load(source=source)
    return replace(
        recipe,
        plan=replace(recipe.plan, part_rows=part_rows),
        capfilt=replace(recipe.capfilt, captioner=None, threshold=0.5),
    )


def claim_it(source: str, dest: str, part_rows: int) -> None:
    from capfilt.bootstrap import claim_models, digests
    from capfilt.recipe import resolved
    from capfilt.shards.claim import claim
    from capfilt.storage import Store

    recipe = settings(source, part_rows)
    store = Store(dest)
    claim(store, resolved(recipe), planned_of(source, part_rows).digest)
    claim_models(store, digests({"filter": recipe.capfilt.filter}))


def finish(source: str, dest: str, part_rows: int) -> None:
    from capfilt.recipe import resolved
    from capfilt.shards.commit import write_manifest
    from capfilt.storage import Store

    parts = len(planned_of(source, part_rows).parts)
    books = resolved(settings(source, part_rows))
    write_manifest(Store(dest), recipe=books, source={}, models={}, parts_planned=parts)


def fill(source: Path, dest: Path, part_rows: int, kept: int, numbers: range, pool: ProcessPoolExecutor) -> None:
    step = max(1, len(numbers) // 64)
    jobs = [
        pool.submit(write_parts, str(source), str(dest), part_rows, kept, range(at, min(at + step, numbers.stop)))
        for at in range(numbers.start, numbers.stop, step)
    ]
    for job in jobs:
        job.result()


def measured(what: str, source: Path, dest: Path, part_rows: int) -> dict[str, float]:
    asked = ["--measure", what, str(source), str(dest), "--part-rows", str(part_rows)]
    command = [sys.executable, "-P", __file__, *asked]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"{what}: {ran.stdout}{ran.stderr}")
    told = json.loads(ran.stdout.strip().splitlines()[-1])
    print(f"{what:8} {told['seconds']:9.2f} s {told['mib']:9.1f} MiB  {MEASURES[what]}", flush=True)
    return told


def run(folder: Path, rows: int, part_rows: int, kept: int) -> dict:
    source, dest = folder / "source", folder / "dest"
    write_source(source, rows, max(1, rows // 1_000_000))
    claim_it(str(source), str(dest), part_rows)
    for name in ("parts", "pairs", "shards"):
        (dest / name).mkdir()
    parts = len(planned_of(str(source), part_rows).parts)
    results: dict = {"rows": rows, "part_rows": part_rows, "parts": parts, "kept_a_part": kept}
    print(json.dumps(results), flush=True)
    with ProcessPoolExecutor() as pool:
        fill(source, dest, part_rows, kept, range(parts // 2), pool)
        results["left"] = measured("left", source, dest, part_rows)
        fill(source, dest, part_rows, kept, range(parts // 2, parts), pool)
    results["finish"] = measured("finish", source, dest, part_rows)
    for name in ("README.md", "report.html"):
        (dest / name).write_text("not measured\n")
    results["done"] = measured("done", source, dest, part_rows)
    results["verify"] = measured("verify", source, dest, part_rows)
    results["manifest_mib"] = round((dest / "manifest.json").stat().st_size / 2**20, 1)
    results["on_disk_mib"] = {
        name: round(sum(file.stat().st_size for file in (dest / name).iterdir()) / 2**20, 1)
        for name in ("parts", "pairs", "shards")
    }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--part-rows", type=int, default=1000)
    parser.add_argument("--kept", type=int, default=4, help="pictures a part")
    parser.add_argument("--folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure, options.part_rows)
        return
    results = []
    for rows in (options.rows // 10, options.rows):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            results.append(run(Path(name), rows, options.part_rows, options.kept))
    report = {"cores": os.cpu_count(), "python": platform.python_version(), "results": results}
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How long it takes, and how much memory, to plan a table of a billion rows and to find out what is left of it.

    python -P benchmarks/plan.py [--rows 1000000000] [--files 1000] [--done 0.5] [--out FILE]

The table is real: Parquet files with as many rows as they say, whose columns hold one value each so that they are
small on disk. Planning reads their footers and what tells them apart. What is left is asked with markers of ``--done``
of all parts. Each measure runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace


def write(folder: Path, rows: int, files: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    group = min(1_000_000, rows // files)
    for number in range(files):
        url = pa.DictionaryArray.from_arrays(pa.array([0] * group, pa.int32()), [f"http://host{number}.example/a.jpg"])
        table = pa.table(
            {"url": url, "caption": pa.DictionaryArray.from_arrays(url.indices, ["a picture of something"])}
        )
        with pq.ParquetWriter(folder / f"{number:05d}.parquet", table.schema) as writer:
            for _ in range(rows // files // group):
                writer.write_table(table)


def peak_kib() -> int:
    """Most memory this process has held; getrusage would tell of the one that started it, too."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def measure(folder: str, part_rows: int, done: float) -> dict[str, float]:
    from capfilt.flow.config import PlanConfig
    from capfilt.flow.plan import plan, todo
    from capfilt.sources.base import SourceConfig
    from capfilt.sources.opening import open_source

    base = peak_kib()
    started = time.perf_counter()
    made = plan(open_source(SourceConfig(path=folder)), PlanConfig(part_rows=part_rows))
    digest = made.digest
    planned = time.perf_counter()
    after_plan = peak_kib()
    told = {
        "rows": made.rows,
        "parts": len(made.parts),
        "plan_s": planned - started,
        "plan_mib": (after_plan - base) / 1024,
        "digest": digest,
    }
    if done:
        markers = {at: SimpleNamespace(digest=made.parts[at].digest) for at in range(int(len(made.parts) * done))}
        before, started = peak_kib(), time.perf_counter()
        left = todo(made, markers)
        told |= {
            "left": len(left),
            "left_s": time.perf_counter() - started,
            "left_mib": (peak_kib() - before) / 1024,
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000_000)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--part-rows", type=int, default=1000)
    parser.add_argument("--done", type=float, default=0.5)
    parser.add_argument("--out")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.part_rows, args.done)))
        return
    results = []
    for rows, files in ((args.rows // 100, max(1, args.files // 100)), (args.rows, args.files)):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), rows, files)
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
            asked = ["--measure", folder, "--part-rows", str(args.part_rows), "--done", str(args.done)]
            command = [sys.executable, "-P", __file__, *asked]
            ran = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append({"files": files, "on_disk_mib": round(size / 2**20, 1)} | json.loads(ran.stdout))
            print(json.dumps(results[-1]))
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

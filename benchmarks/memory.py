"""How much memory the main job's driver and workers hold at most, as the number of rows grows.

    python -P benchmarks/memory.py [--rows 10000 100000] [--part-rows 250] [--workers 2] [--out FILE]

Each run is the real ``capfilt bootstrap`` on Ray, with the corpus and the small models of chaos.py: half of its rows
are addresses of a server on loopback, half are in tars. All processes of the run are looked at twice a second. What is
told is their own memory (``RssAnon``): shared memory is Ray's object store, which has a bound of its own and is told
apart.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from types import ModuleType

KINDS = {
    "driver": "the process of the command",
    "worker": "the largest of Ray's worker processes",
    "workers": "all of Ray's worker processes together",
    "ray": "Ray's own processes together",
    "object store": "shared memory of Ray's node process",
}


def beside(name: str) -> ModuleType:
    """Another file of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def processes(root: int) -> dict[int, str]:
    """The process and all its descendants, each with its command line."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            children[int((folder / "stat").read_text().rpartition(")")[2].split()[1])].append(int(folder.name))
        except OSError:
            continue  # it has ended
    found, waiting = {}, [root]
    while waiting:
        pid = waiting.pop()
        try:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        waiting += children[pid]
    return found


def kib(pid: int, field: str) -> int:
    try:
        told = re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(told[1]) if told else 0


def look(root: int) -> dict[str, float]:
    """MiB of each kind at this moment."""
    now = dict.fromkeys(KINDS, 0.0)
    for pid, command in processes(root).items():
        own = kib(pid, "RssAnon") / 1024
        if pid == root:
            now["driver"] = own
        elif command.startswith("ray::"):
            now["worker"] = max(now["worker"], own)
            now["workers"] += own
        else:
            now["ray"] += own
        if "raylet/raylet" in command:
            now["object store"] = kib(pid, "RssShmem") / 1024
    return now


def run(rows: int, part_rows: int, workers: int) -> dict:
    chaos = beside("chaos")
    chaos.PART_ROWS = part_rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chaos.models(folder)
        (folder / "web").mkdir()
        with chaos.served(folder) as url:
            (folder / "web").rmdir()
            chaos.corpus(folder, rows, url)
            started, peaks, curve = time.perf_counter(), dict.fromkeys(KINDS, 0.0), []
            running = chaos.start(folder, str(folder / "dest"), "ray", "--workers", str(workers))
            while running.poll() is None:
                now = look(running.pid)
                peaks = {kind: max(peak, now[kind]) for kind, peak in peaks.items()}
                curve.append(now["driver"])
                time.sleep(0.5)
            if running.returncode:
                raise SystemExit(running.stderr.read().decode())
            took = time.perf_counter() - started
            running.stderr.close()
            books = json.loads((folder / "dest" / "manifest.json").read_text())
        if books["totals"]["rows"] != rows:
            raise SystemExit(f"{books['totals']['rows']} rows came out of {rows}")
    step = max(1, len(curve) // 20)
    return {
        "rows": rows,
        "parts": books["parts"],
        "took_s": round(took, 1),
        "peak_mib": {kind: round(peak, 1) for kind, peak in peaks.items()},
        "driver_mib_over_time": [round(value) for value in curve[::step]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--part-rows", type=int, default=250)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for rows in options.rows:
        results.append(run(rows, options.part_rows, options.workers))
        print(json.dumps(results[-1]), flush=True)
    first, last = results[0]["peak_mib"], results[-1]["peak_mib"]
    report = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "part_rows": options.part_rows,
        "workers": options.workers,
        "runs": results,
        "last_to_first": {kind: round(last[kind] / first[kind], 3) for kind in KINDS if first[kind]},
    }
    print(json.dumps(report["last_to_first"]))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

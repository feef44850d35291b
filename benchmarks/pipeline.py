"""The whole of ``capfilt bootstrap`` on Ray beside its engine alone, and how its speed changes as work grows.

    python -P benchmarks/pipeline.py [--images 2000] [--rounds 2] [--workers 2] [--rows 1000 10000 100000]
                                     [--captions 1 2 4 8] [--steps end rows workers captions] [--out FILE] [--plot FILE]

``end``: the same pictures through the stage alone, in as many processes as there are workers, one thread each, pictures
in memory; and through the command on Ray, which reads them from tars, checks them, captions and filters them, and
writes shards, ledger, manifest, card and report. The two take turns. ``workers`` and ``captions`` are the command with
one worker and more, and with more captions a picture. All three with med-mini and the bundled sample's pictures, again
and again under other names.

``rows``: the command as rows grow, with the small models and drawings of chaos.py, whose captioning costs next to
nothing: what is seen is the pipeline itself.

Rates are pictures a second once the first part is done; what comes before it is told apart. CPU seconds are those of
all processes of a run, Ray's own counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

TAR_ROWS = 1000
PART_ROWS = 100


def beside(name: str) -> ModuleType:
    """Another file of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


memory, chaos = beside("memory"), beside("chaos")


def pictures() -> list[tuple[bytes, str]]:
    """The sample's pictures, as the fetch stage leaves them, with a text each."""
    from capfilt.catalog import sample
    from capfilt.images import ImageLimits, Picture, normalise

    files = sorted((sample() / "images").glob("*.[jp][pn]g"))
    found = [(normalise(file.read_bytes(), ImageLimits()), file.stem.replace("-", " ")) for file in files]
    return [(picture.data, text) for picture, text in found if isinstance(picture, Picture)]


def tars(folder: Path, count: int) -> None:
    folder.mkdir()
    shown = pictures()
    for first in range(0, count, TAR_ROWS):
        with tarfile.open(folder / f"{first:07d}.tar", "w") as tar:
            for n in range(first, min(first + TAR_ROWS, count)):
                data, text = shown[n % len(shown)]
                ending = "png" if data[:4] == b"\x89PNG" else "jpg"
                for name, body in ((f"{n:07d}.{ending}", data), (f"{n:07d}.txt", text.encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(body)
                    tar.addfile(member, io.BytesIO(body))


def alone(images: int, workers: int) -> dict[str, float]:
    """The stage in ``workers`` processes; each begins when all are warm."""
    context = multiprocessing.get_context("spawn")
    ready, told = context.Barrier(workers), context.Queue()
    share = [len(range(at, images, workers)) for at in range(workers)]
    running = [context.Process(target=_alone, args=(count, ready, told)) for count in share]
    for one in running:
        one.start()
    ends = [told.get(timeout=3600) for _ in running]
    for one in running:
        one.join()
    seconds = max(end for _, end, _ in ends) - min(start for start, _, _ in ends)
    return {"images_s": images / seconds, "cpu_s": sum(cpu for *_, cpu in ends)}


def _alone(count: int, ready: Any, told: Any) -> None:
    from capfilt import records
    from capfilt.records import web_caption
    from capfilt.stages.capfilt import CapFilt
    from capfilt.stages.config import CapFiltConfig

    shown = pictures()

    def part(first: int, rows: int) -> Any:
        return records.table_of(
            {"id": f"{n:032x}", "part": 0, "row": n, "image": shown[n % len(shown)][0],
             "captions": [web_caption(shown[n % len(shown)][1])]}
            for n in range(first, first + rows)
        )  # fmt: skip

    parts = [part(first, min(PART_ROWS, count - first)) for first in range(0, count, PART_ROWS)]
    work = CapFilt(capfilt=CapFiltConfig(device="cpu", cpus=1.0)).open()
    work(parts[0])
    ready.wait(600)
    start, cpu = time.time(), time.process_time()
    for one in parts:
        work(one)
    told.put((start, time.time(), time.process_time() - cpu))


def ticks(root: int) -> dict[int, int]:
    """Clock ticks that each process of a run has had."""
    had = {}
    for pid in memory.processes(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        had[pid] = int(fields[11]) + int(fields[12])
    return had


def bootstrap(command: Sequence[str], env: dict[str, str] | None = None) -> dict[str, Any]:
    """One run of the command: its pace, and its CPU seconds."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        started, had = time.perf_counter(), {}
        running = subprocess.Popen([*command, "--json"], stdout=out, stderr=errors, text=True, env=env)
        while running.poll() is None:
            had |= ticks(running.pid)
            time.sleep(0.5)
        took = time.perf_counter() - started
        out.seek(0)
        errors.seek(0)
        if running.returncode:
            raise SystemExit(errors.read())
        pace = json.load(out)["pace"]
    return pace | {"took_s": round(took, 2), "cpu_s": round(sum(had.values()) / os.sysconf("SC_CLK_TCK"), 2)}


def ours(source: Path, dest: Path, workers: int, *settings: str) -> dict[str, Any]:
    capfilt = str(Path(sys.executable).with_name("capfilt"))
    sets = [f"plan.part_rows={PART_ROWS}", "fetch.same_picture_max=0", "source.origin=web", *settings]
    asked = [piece for one in sets for piece in ("--set", one)]
    return bootstrap([capfilt, "bootstrap", str(source), str(dest), "--workers", str(workers), *asked])


def end(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    tars(folder / "tars", options.images)
    sides: dict[str, list[dict[str, Any]]] = {"engine alone": [], "bootstrap on Ray": []}
    for turn in range(options.rounds):
        sides["engine alone"].append(alone(options.images, options.workers))
        sides["bootstrap on Ray"].append(ours(folder / "tars", folder / f"end-{turn}", options.workers))
        print(json.dumps({name: found[-1] for name, found in sides.items()}), flush=True)
    engine = statistics.median(one["images_s"] for one in sides["engine alone"])
    runs = sides["bootstrap on Ray"]
    whole = statistics.median(one["steady_images_s"] for one in runs)
    books = [(one["stages"]["sink"]["seconds"] + one["finish_s"] * options.workers) for one in runs]
    work = [
        sum(stage["seconds"] for stage in one["stages"].values()) + one["finish_s"] * options.workers for one in runs
    ]
    return {
        "images": options.images,
        "workers": options.workers,
        "sides": sides,
        "engine_images_s": round(engine, 2),
        "bootstrap_images_s": round(whole, 2),
        "share_of_engine": round(whole / engine, 3),
        "share_of_books": round(statistics.median(b / w for b, w in zip(books, work, strict=True)), 4),
        "start_s": {
            "until Ray is up": statistics.median(one["ready_s"] for one in runs),
            "until the first part is done": statistics.median(one["first_part_s"] for one in runs),
        },
    }


def by_workers(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    tars(folder / "tars-workers", options.images)
    found = []
    for workers in sorted({1, options.workers}):
        found.append({"workers": workers} | ours(folder / "tars-workers", folder / f"workers-{workers}", workers))
        print(json.dumps(found[-1]), flush=True)
    return found


def by_captions(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    tars(folder / "tars-captions", options.images)
    found = []
    for count in options.captions:
        dest, setting = folder / f"captions-{count}", f"capfilt.captions_per_image={count}"
        found.append({"captions": count} | ours(folder / "tars-captions", dest, options.workers, setting))
        print(json.dumps(found[-1]), flush=True)
    return found


def by_rows(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    chaos.PART_ROWS = 250
    chaos.models(folder)
    found = []
    for rows in options.rows:
        here = folder / f"rows-{rows}"
        here.mkdir()
        for model in ("captioner", "filter"):
            (here / model).symlink_to(folder / model)
        (here / "web").mkdir()
        with chaos.served(here) as url:
            (here / "web").rmdir()
            chaos.corpus(here, rows, url)
            command = [piece for piece in chaos.command(here, str(here / "dest"), "ray") if piece != "-q"]
            found.append({"rows": rows} | bootstrap([*command, "--workers", str(options.workers)]))
        print(json.dumps(found[-1]), flush=True)
    return found


def plot(report: dict[str, Any], file: Path) -> None:
    from matplotlib.figure import Figure

    curves = [
        ("rows", "rows", "small models: the pipeline itself"),
        ("workers", "workers", "med-mini"),
        ("captions", "captions", "captions a picture, med-mini"),
    ]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (name, key, title) in zip(figure.subplots(1, 3), curves, strict=True):
        runs = report.get(name, [])
        places = range(len(runs))
        axes.plot(places, [run["steady_images_s"] for run in runs], "o-", label="after the first part")
        axes.plot(places, [run["images_s"] for run in runs], "o--", label="whole run")
        axes.set_xticks(places, [f"{run[key]:,}" for run in runs])
        axes.set(title=title, xlabel=key, ylabel="pictures a second", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--captions", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", nargs="+", default=["end", "rows", "workers", "captions"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {"cores": os.cpu_count(), "python": platform.python_version()}
    if options.out and options.out.exists():
        report = json.loads(options.out.read_text())  # a step may be done again by itself
    steps = {"end": end, "rows": by_rows, "workers": by_workers, "captions": by_captions}
    with tempfile.TemporaryDirectory() as name:
        for step in options.steps:
            report[step] = steps[step](options, Path(name))
            if options.out:
                options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.get("end", {}).items() if key != "sides"}, indent=1))
    if options.plot:
        plot(report, options.plot)


if __name__ == "__main__":
    main()

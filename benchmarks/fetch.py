"""How fast pictures are fetched, beside img2dataset: the same files, server, cores and resizing, taking turns.

    python -P benchmarks/fetch.py --peer PYTHON [--rounds 3] [--images 2000] [--out FILE]

PYTHON is an interpreter whose environment has img2dataset (which cannot share ours). nginx, one worker on loopback,
serves photo-like JPEGs of about 64 kB and 300 kB. Both sides write WebDataset shards with a sha256 for each picture,
quality 92, the longer side at most so many pixels; ours writes its ledger and perceptual hashes too, and decodes what
it keeps. Loading of libraries and starting of processes is not counted, for neither.

The second table has hosts among the good ones that drip, fall silent, refuse, or answer 404 and 503. What is worth
quoting are the ratios of rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PORT, SILENT, DRIP, REFUSING = 18080, 18081, 18082, 18083
KINDS = {"64 kB": ((640, 480), 64_000), "300 kB": ((1280, 960), 300_000)}
SHARD = 250
TIMEOUT_S = 5
NGINX = """\
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; types {{ image/jpeg jpg; }} keepalive_requests 100000;
  client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
  uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
  server {{ listen {port} backlog=4096; root {folder}/files;
    allow 127.0.0.0/8; deny all; location /503/ {{ return 503; }} }}
}}
"""


def photos(folder: Path, count: int, size: tuple[int, int], length: int) -> None:
    """Seeded pictures with a photo's statistics (1/f in frequency, correlated channels), of about ``length`` bytes."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    width, height = size
    falloff = 1 / np.maximum(np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)), 1 / width)
    bases = []
    for _ in range(12):
        planes = [np.fft.irfft2(np.fft.rfft2(draw.standard_normal((height, width))) * falloff) for _ in range(3)]
        planes = [plane / plane.std() for plane in planes]
        mixed = np.stack([planes[0] + 0.4 * plane for plane in planes], axis=-1)
        bases.append(np.clip(128 + 45 * mixed, 0, 255).astype(np.uint8))

    def encoded(pixels: np.ndarray, quality: int) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=quality)
        return out.getvalue()

    quality = min(range(30, 96), key=lambda q: abs(len(encoded(bases[0], q)) - length))
    for number in range(count):
        moved = np.roll(bases[number % 12], (draw.integers(height), draw.integers(width)), axis=(0, 1))
        (folder / f"{number:05d}.jpg").write_bytes(encoded(moved, quality))


@contextmanager
def nginx(folder: Path) -> Iterator[None]:
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=PORT))
    folder.chmod(0o755)
    server = subprocess.Popen([program, "-c", folder / "nginx.conf", "-p", folder], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def misbehaving(body: bytes) -> Iterator[None]:
    """Servers on every loopback address: one that never answers, and one that takes 30 s for a picture."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()  # until the other side gives up
        finally:
            writer.close()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
            for n in range(30):
                writer.write(body[len(body) * n // 30 : len(body) * (n + 1) // 30])
                await writer.drain()
                await asyncio.sleep(1)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def end() -> None:
        for server in servers:
            server.close()
        open_ = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    servers = [
        loop.run_until_complete(asyncio.start_server(h, "0.0.0.0", p)) for h, p in ((silent, SILENT), (drip, DRIP))
    ]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def addresses(kind: str, count: int, *, mixed: bool) -> list[str]:
    """URLs over many hosts, which are addresses of this machine; in a mixed table an eighth of them goes wrong."""
    chance = random.Random(1)
    urls = [f"http://127.0.{1 + n % 40}.1:{PORT}/{kind.replace(' ', '')}/{n:05d}.jpg" for n in range(count)]
    if mixed:
        bad = [
            lambda n: f"http://127.1.{n % 200}.1:{SILENT}/a.jpg",
            lambda n: f"http://127.2.{n % 200}.1:{DRIP}/a.jpg",
            lambda n: f"http://127.3.{n % 200}.1:{REFUSING}/a.jpg",
            lambda n: f"http://127.4.{n % 200}.1:{PORT}/gone.jpg",
            lambda n: f"http://127.5.{n % 200}.1:{PORT}/503/{n}.jpg",
        ]
        for number in chance.sample(range(count), count // 8):
            urls[number] = bad[number % 5](number)
    return urls


class KeepAll:
    """In place of the models: keeps every text."""

    name = "keep"

    def open(self) -> Callable:
        from capfilt.records import replace

        def work(table: object) -> object:
            texts = table.column("captions").to_pylist()
            return replace(table, {"captions": [[{**text, "kept": True} for text in row] for row in texts]})

        return work


def ours(options: argparse.Namespace) -> dict:
    """One run of the pipeline: fetch, keep every text, write shards. Processes share the parts, as on Ray."""
    context = multiprocessing.get_context("spawn")
    ready, told = context.Barrier(options.processes + 1), context.Queue()
    told_by = [context.Process(target=process, args=(options, at, ready, told)) for at in range(options.processes)]
    for one in told_by:
        one.start()
    ready.wait()
    started = time.monotonic()
    found = [told.get() for _ in told_by]
    took = time.monotonic() - started
    for one in told_by:
        one.join()
    return {
        "kept": sum(one["kept"] for one in found),
        "took_s": took,
        "cpu_s": sum(one["cpu_s"] for one in found),
        "dropped": dict(sum((Counter(one["dropped"]) for one in found), Counter())),
        "parts_s": sorted(end for one in found for end in one["parts_s"]),
    }


def process(options: argparse.Namespace, number: int, ready: object, told: object) -> None:
    """What one process does of a run."""
    from capfilt.fetch.config import FetchConfig
    from capfilt.flow.config import PlanConfig
    from capfilt.flow.local import run_local
    from capfilt.flow.part import Finished
    from capfilt.flow.plan import plan
    from capfilt.images import ImageLimits
    from capfilt.sources.base import SourceConfig
    from capfilt.sources.opening import open_source
    from capfilt.stages.fetch import FetchImages
    from capfilt.stages.sink import WriteShards

    fetch = FetchConfig(
        engine=options.engine,
        allow_addresses=("127.0.0.0/8",),
        timeout_connect_s=TIMEOUT_S,
        timeout_read_s=TIMEOUT_S,
        timeout_total_s=2 * TIMEOUT_S,
        retries=0,  # img2dataset's default, and what the other side does
        images=ImageLimits(max_side=options.side),
    )
    source = open_source(SourceConfig(path=options.table))
    parts = plan(source, PlanConfig(part_rows=SHARD)).parts
    stages = [FetchImages(fetch=fetch), KeepAll(), WriteShards(dest=options.dest, parts=parts)]
    tallies, ends = [], []
    # A part to warm up on, written elsewhere: libraries load when they are first used.
    aside = [*stages[:2], WriteShards(dest=f"{options.dest}-aside-{number}", parts=parts)]
    run_local(source, parts[:1], aside, lambda part: None)
    ready.wait()
    started, cpu = time.monotonic(), time.process_time()

    def done(part: Finished) -> None:
        tallies.append(part.tally)
        ends.append(round(time.monotonic() - started, 2))

    run_local(source, parts[number :: options.processes], stages, done, workers=options.workers)
    total = sum(tallies[1:], start=tallies[0])
    cpu = time.process_time() - cpu
    told.put({"kept": total.kept, "cpu_s": cpu, "dropped": dict(total.dropped), "parts_s": ends})


def theirs(options: argparse.Namespace) -> dict:
    """One run of img2dataset; its own clock says when the first shard began and the last one ended."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from img2dataset import download

    download(
        url_list=options.table,
        input_format="csv",
        url_col="url",
        caption_col="caption",
        output_folder=options.dest,
        output_format="webdataset",
        image_size=options.side,
        resize_mode="keep_ratio_largest",
        resize_only_if_bigger=True,
        encode_quality=92,
        number_sample_per_shard=SHARD,
        processes_count=options.processes,
        thread_count=options.threads,
        timeout=TIMEOUT_S,
        retries=0,
        extract_exif=False,
        compute_hash="sha256",
        enable_wandb=False,
        distributor="multiprocessing",
    )
    stats = [json.loads(file.read_text()) for file in sorted(Path(options.dest).glob("*_stats.json"))]
    start = min(s["start_time"] for s in stats)
    return {
        "kept": sum(s["successes"] for s in stats),
        "took_s": max(s["end_time"] for s in stats) - start,
        "failed": {name: n for s in stats for name, n in s["status_dict"].items()},
        "parts_s": sorted(round(s["end_time"] - start, 2) for s in stats),
    }


def side(name: str, python: str, table: Path, pixels: int, *extra: str) -> dict:
    """One run of one side, in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as dest:
        out = Path(dest) / "result.json"
        command = [
            python,
            "-P",
            __file__,
            "--side-of",
            name,
            "--table",
            table,
            "--side",
            pixels,
            "--dest",
            f"{dest}/out",
        ]
        done = subprocess.run(
            [*map(str, command), "--out", str(out), *extra], capture_output=True, text=True, check=False, timeout=900
        )
        if not out.exists():
            raise SystemExit(done.stderr[-4000:])
        return json.loads(out.read_text())


def table_of(folder: Path, name: str, urls: list[str]) -> Path:
    file = folder / f"{name}.csv"
    file.write_text("url,caption\n" + "".join(f"{url},picture {n}\n" for n, url in enumerate(urls)))
    return file


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 2), "min": round(min(values), 2), "max": round(max(values), 2)}


def compare(options: argparse.Namespace, folder: Path) -> dict:
    sides = {
        "capfilt": (sys.executable, ("--workers", str(options.workers), "--processes", str(options.processes))),
        "img2dataset": (options.peer, ("--processes", str(options.processes), "--threads", str(options.threads))),
    }
    scenarios = [(f"{kind}, {pixels} px", kind, pixels, False) for kind in KINDS for pixels in (256, 512)]
    scenarios.append(("64 kB, 256 px, an eighth of the hosts fail", "64 kB", 256, True))
    results = {}
    for title, kind, pixels, mixed in scenarios:
        if options.only and options.only not in title:
            continue
        count = options.images if kind == "64 kB" else options.images // 2
        table = table_of(folder, f"{kind}-{mixed}".replace(" ", ""), addresses(kind, count, mixed=mixed))
        runs: dict[str, list[dict]] = {name: [] for name in sides}
        for round_ in range(options.rounds):
            order = list(sides) if round_ % 2 == 0 else list(sides)[::-1]
            for name in order:
                python, extra = sides[name]
                found = side(name, python, table, pixels, *extra)
                found["rate"] = found["kept"] / found["took_s"]
                runs[name].append(found)
                print(title, name, {k: v for k, v in found.items() if k != "parts_s"}, flush=True)
        ratios = [a["rate"] / b["rate"] for a, b in zip(*runs.values(), strict=True)]
        results[title] = {
            "images": count,
            "images_per_s": {name: spread([run["rate"] for run in found]) for name, found in runs.items()},
            "kept": {name: found[-1]["kept"] for name, found in runs.items()},
            "ratio": spread(ratios),
            "parts_end_s": {name: found[-1]["parts_s"] for name, found in runs.items()},
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="a Python whose environment has img2dataset")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="parts that each of our processes has under way at once")
    parser.add_argument("--processes", type=int, default=2, help="processes of either side")
    parser.add_argument("--threads", type=int, default=32, help="img2dataset's threads of each process")
    parser.add_argument("--only", default="", help="scenarios whose title has this")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side-of", choices=("capfilt", "img2dataset"), help=argparse.SUPPRESS)
    parser.add_argument("--engine", default="native", help=argparse.SUPPRESS)
    parser.add_argument("--table", help=argparse.SUPPRESS)
    parser.add_argument("--dest", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side_of:
        result = ours(options) if options.side_of == "capfilt" else theirs(options)
        options.out.write_text(json.dumps(result))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, (size, length) in KINDS.items():
            photos(folder / "files" / kind.replace(" ", ""), options.images, size, length)
        sizes = {
            kind: round(statistics.mean(f.stat().st_size for f in (folder / "files" / kind.replace(" ", "")).iterdir()))
            for kind in KINDS
        }
        load = os.getloadavg()
        with nginx(folder), misbehaving(next((folder / "files" / "64kB").iterdir()).read_bytes()):
            results = compare(options, folder)
    report = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in load],
        "bytes_a_file": sizes,
        "rounds": options.rounds,
        "settings": {"workers": options.workers, "processes": options.processes, "threads": options.threads},
        "scenarios": results,
    }
    text = json.dumps(report, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

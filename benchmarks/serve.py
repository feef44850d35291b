"""The service under load beside its engine alone: requests a second and latency as more ask at once, and too many.

    python -P benchmarks/serve.py [--runner local] [--models med-mini] [--cpus 2] [--seconds 20] [--pictures 8]
                                  [--clients 1 2 4 8 16 32] [--crowd 96] [--out FILE]

The engine is the CapFilt stage in one process, its pictures in memory, as many threads as the service's models have.
The service is ``capfilt serve`` as a user starts it; clients on the same cores send encoded pictures with a text each
in base64, each client its next request when the last one is answered. Both have the same pictures and texts, over and
over, in the same order, and take turns.

Then a crowd asks for more than may wait (``limits.queue``): each request is sent again when its 429 says so, until it
is answered. Counted are answers of each status, refusals without Retry-After, connections that broke, and requests
never answered; and each picture's captions must be those that it had alone, in whatever batch it was.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import multiprocessing
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BODIES = 24
"""Different requests; what each is answered alone is learnt first. The engine's part has the pictures of all."""


def config(options: argparse.Namespace) -> dict[str, Any]:
    told: dict[str, Any] = {"device": "cpu", "cpus": float(options.cpus), "dtype": options.dtype}
    for role in ("captioner", "filter"):
        told[role] = f"{options.models}/{role}" if options.models == "med-mini" else options.models
    return told


def files(count: int) -> list[tuple[bytes, str]]:
    """The first ``count`` of the sample's pictures that can be read, as they are on the web, with a text each."""
    from capfilt.catalog import sample
    from capfilt.images import ImageLimits, Picture, normalise

    found: list[tuple[bytes, str]] = []
    for file in sorted((sample() / "images").glob("*.[jp][pn]g")):
        data = file.read_bytes()
        if len(found) < count and isinstance(normalise(data, ImageLimits()), Picture):
            found.append((data, file.stem.replace("-", " ")))
    if len(found) < count:
        raise SystemExit(f"the sample has {len(found)} pictures, and {count} are needed")
    return found


def _stage(told: dict[str, Any], pictures: int, seconds: float, out: Any) -> None:
    from capfilt import records
    from capfilt.images import ImageLimits, Picture, normalise
    from capfilt.records import web_caption
    from capfilt.stages.capfilt import CapFilt
    from capfilt.stages.config import CapFiltConfig

    shown = [(normalise(data, ImageLimits()), text) for data, text in files(pictures)]
    ready = [(picture.data, text) for picture, text in shown if isinstance(picture, Picture)]

    def part(at: int) -> Any:
        return records.table_of(
            {"id": f"{at:016x}{n:016x}", "part": 0, "row": n, "image": data, "captions": [web_caption(text)]}
            for n, (data, text) in enumerate(ready)
        )

    work = CapFilt(capfilt=CapFiltConfig(**told)).open()
    work(part(0))
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work(part(1 + done))
        done += 1
    out.put(done * pictures / (time.perf_counter() - start))


def engine(options: argparse.Namespace) -> float:
    """Pictures a second of the stage alone."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    alone = context.Process(target=_stage, args=(config(options), BODIES * options.pictures, options.seconds, out))
    alone.start()
    while alone.is_alive() and out.empty():
        time.sleep(0.1)
    if out.empty():
        raise SystemExit("the engine alone ended without a figure: see above")
    rate: float = out.get()
    alone.join()
    return rate


@contextmanager
def service(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """``capfilt serve``, ready; ended with SIGTERM."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    sets = [f"capfilt.{key}={value}" for key, value in config(options).items()] + [f"limits.queue={options.queue}"]
    command = [str(Path(sys.executable).with_name("capfilt")), "serve", "--runner", options.runner, "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        asked = [piece for one in sets for piece in ("--set", one)]
        running = subprocess.Popen([*command, *asked], stdout=log, stderr=log)
        try:
            until = time.monotonic() + 300
            while status(port) != 200:
                if running.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise SystemExit(log.read().decode())
                time.sleep(0.2)
            yield "127.0.0.1", port
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(60)


def status(port: int) -> int:
    try:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        link.request("GET", "/readyz")
        return link.getresponse().status
    except OSError:
        return 0


class Crowd:
    """Clients that ask at once, each its next when the last is answered."""

    def __init__(self, where: tuple[str, int], bodies: list[bytes]) -> None:
        self.where, self.bodies = where, bodies
        self.first: dict[int, list[Any]] = {}
        """What each body was answered when it was asked alone."""
        self.lock = threading.Lock()

    def learn(self) -> None:
        link = http.client.HTTPConnection(*self.where, timeout=300)
        for at in range(len(self.bodies)):
            code, said, _ = self.ask(link, at)
            assert code == 200, said
            self.first[at] = self.texts(said)

    def ask(self, link: http.client.HTTPConnection, at: int) -> tuple[int, bytes, str | None]:
        link.request("POST", "/v1/capfilt", self.bodies[at], {"Content-Type": "application/json"})
        answer = link.getresponse()
        return answer.status, answer.read(), answer.getheader("Retry-After")

    @staticmethod
    def texts(said: bytes) -> list[Any]:
        return [[caption["text"] for caption in result["captions"]] for result in json.loads(said)["results"]]

    def run(self, clients: int, *, seconds: float = 0.0, each: int = 0) -> dict[str, Any]:
        """``seconds`` long, or ``each`` requests of every client, however long that takes."""
        found: Counter[str] = Counter()
        latencies: list[float] = []
        kept: list[tuple[int, bytes]] = []
        begun, cpu = time.perf_counter(), time.process_time()

        def client(number: int) -> None:
            link = http.client.HTTPConnection(*self.where, timeout=300)
            turn = 0
            while turn < each if each else time.perf_counter() - begun < seconds:
                at = (number + turn) % len(self.bodies)
                asked = time.perf_counter()
                try:
                    code, said, again = self.ask(link, at)
                except (OSError, http.client.HTTPException):
                    with self.lock:
                        found["broken"] += 1
                    link.close()
                    continue
                with self.lock:
                    found[str(code)] += 1
                    if code == 429 and not (again or "").isdigit():
                        found["429 without Retry-After"] += 1
                if code == 429:
                    time.sleep(float(again or 1))
                    continue
                with self.lock:
                    latencies.append(time.perf_counter() - asked)
                    kept.append((at, said))
                turn += 1

        threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took, own = time.perf_counter() - begun, time.process_time() - cpu
        # Compared afterwards, so that the clients take no more of the cores than asking does.
        other = sum(self.texts(said) != self.first[at] for at, said in kept)
        pictures = sum(len(self.first[at]) for at, _ in kept)
        cuts = statistics.quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else latencies * 99
        return {
            "clients": clients,
            "requests_s": round(len(kept) / took, 2),
            "pictures_s": round(pictures / took, 2),
            "latency_ms": {f"p{at}": round(1000 * cuts[at - 1]) for at in (50, 95, 99)},
            "answers": dict(sorted(found.items())),
            "answered": len(kept),
            "asked": clients * each or len(kept),
            "other captions": other,
            "client_cpu_share": round(own / took, 3),
        }


def bodies(pictures: int) -> list[bytes]:
    shown, found = files(BODIES * pictures), []
    for first in range(0, len(shown), pictures):
        chosen = shown[first : first + pictures]
        asked = [{"image": base64.b64encode(data).decode(), "texts": [text]} for data, text in chosen]
        found.append(json.dumps({"pictures": asked}).encode())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runner", choices=["local", "ray"], default="local")
    parser.add_argument("--models", default="med-mini", help="med-mini, or a folder of a MED for both roles")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cpus", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=8, help="pictures a request")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--crowd", type=int, default=96)
    parser.add_argument("--each", type=int, default=6, help="requests of each client of the crowd")
    parser.add_argument("--queue", type=int, default=256)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    engines, tables, crowds = [], [], []
    for _ in range(options.rounds):
        engines.append(engine(options))
        print(f"engine alone {engines[-1]:.1f} pictures/s", flush=True)
        with service(options) as where:
            crowd = Crowd(where, bodies(options.pictures))
            crowd.learn()
            crowd.run(4, seconds=options.seconds / 4)  # warm
            tables.append([])
            for count in options.clients:
                tables[-1].append(crowd.run(count, seconds=options.seconds))
                print(json.dumps(tables[-1][-1]), flush=True)
            crowds.append(crowd.run(options.crowd, each=options.each))
            print(json.dumps(crowds[-1]), flush=True)
    alone = statistics.median(engines)
    most = statistics.median(max(line["pictures_s"] for line in table) for table in tables)
    report = {
        "runner": options.runner,
        "models": Path(options.models).name,
        "cores": os.cpu_count(),
        "cpus": options.cpus,
        "python": platform.python_version(),
        "pictures_a_request": options.pictures,
        "queue": options.queue,
        "engine_images_s": [round(rate, 2) for rate in engines],
        "rounds": tables,
        "too_many": crowds,
        "share_of_engine": round(most / alone, 3),
    }
    print(f"share of the engine at saturation {report['share_of_engine']}")
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

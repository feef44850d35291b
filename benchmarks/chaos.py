"""Runs of the main job that are killed again and again, and what their data sets are in the end.

    python -P benchmarks/chaos.py [--runs 50] [--ray 8] [--s3 4] [--pictures 2000] [--parallel 2] [--seed 0]
                                  [--out FILE]

Each run fetches, captions and filters the same source (half of it a table of addresses on loopback, some dead; half
tars) with two small models. It is disturbed one to three times: killed with SIGKILL at a random moment or while a file
is being written; on Ray, a worker of it or Ray's node process is killed; its disk is full from some moment on; the S3
service it writes to is killed under it (OpenStack Swift, see tests/s3/service.py). Then the same command brings it to
its end, and its ledger and shards are compared with those of a run that nothing disturbed, row by row and picture by
picture.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import importlib.util
import io
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["a", "picture", "of", "red", "green", "blue", "circle", "square", "triangle", "on", "white"]
PART_ROWS = 50
TAR_ROWS = 500


def models(folder: Path) -> None:
    import torch

    from capfilt.med.config import MEDConfig, TextConfig, VisionConfig
    from capfilt.med.model import MED
    from capfilt.med.tokenizer import MEDTokenizer

    shape = folder / "architecture"
    shape.mkdir()
    tokenizer = MEDTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    tokenizer.save(shape)
    MEDConfig(
        vision=VisionConfig(image_size=32, patch_size=8, width=64, depth=2, heads=2),
        text=TextConfig(vocab_size=tokenizer.size, width=64, depth=2, heads=2, ffn_width=128, max_positions=32),
        embed_dim=32,
    ).save(shape)
    for seed, name in enumerate(("captioner", "filter")):
        torch.manual_seed(seed)
        model = MED.new(shape)
        if name == "filter":
            torch.nn.init.normal_(model.itm_head.weight, std=2.0)  # else every score is near one half
        model.save(folder / name)


def corpus(folder: Path, count: int, url: str) -> None:
    """``count`` pictures: the first half at addresses, every twelfth of them missing, the others in tars."""
    from PIL import Image, ImageDraw

    draw = random.Random(0)
    (folder / "web").mkdir()
    (folder / "tars").mkdir()
    rows, tar = ["url,caption"], None
    for n in range(count):
        image = Image.new("RGB", (64, 48), "white")
        box = sorted(draw.choices(range(60), k=2)), sorted(draw.choices(range(44), k=2))
        corners = (box[0][0], box[1][0], box[0][1] + 2, box[1][1] + 2)
        ImageDraw.Draw(image).rectangle(corners, fill=tuple(draw.choices(range(256), k=3)))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=80)
        text = " ".join(draw.choices(WORDS, k=6))
        if n < count // 2:
            if n % 12:
                (folder / "web" / f"{n}.jpg").write_bytes(out.getvalue())
            rows.append(f"{url}/{n}.jpg,{text}")
            continue
        if (n - count // 2) % TAR_ROWS == 0:
            tar = tarfile.open(folder / "tars" / f"{n:06d}.tar", "w")  # noqa: SIM115 closed by the next, or by the end
        for ending, data in (("jpg", out.getvalue()), ("txt", text.encode())):
            member = tarfile.TarInfo(f"{n:06d}.{ending}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        if (n - count // 2) % TAR_ROWS == TAR_ROWS - 1 or n == count - 1:
            tar.close()
    (folder / "table.csv").write_text("\n".join(rows) + "\n")


class Silent(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    http.server.ThreadingHTTPServer.handle_error = lambda *_: None  # who is killed hangs up
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=folder / "web"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def command(folder: Path, dest: str, runner: str) -> list[str]:
    joined = json.dumps([{"path": str(folder / "tars"), "kind": "webdataset", "origin": "human"}])
    settings = {
        "source.also": joined,
        "capfilt.captioner": folder / "captioner",
        "capfilt.filter": folder / "filter",
        "capfilt.max_length": 10,
        "capfilt.cpus": 0.5,
        "capfilt.threshold": 0.988,
        "plan.part_rows": PART_ROWS,
        "fetch.allow_addresses": "[127.0.0.0/8]",
        "fetch.same_picture_max": 0,
        "fetch.images.min_side": 8,
    }
    sets = [piece for name, value in settings.items() for piece in ("--set", f"{name}={value}")]
    capfilt = Path(sys.executable).with_name("capfilt")
    return [str(capfilt), "bootstrap", str(folder / "table.csv"), dest, "--runner", runner, "-q", *sets]


def start(folder: Path, dest: str, runner: str, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*command(folder, dest, runner), *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def parts_of(dest: str) -> int:
    from capfilt.storage import Store

    return len(Store(dest).names("parts"))


def disturb(run: subprocess.Popen, dest: str, how: str, draw: random.Random, service: Any) -> str | None:
    """Does it harm in its own way; what was done, or None if it ended before."""
    # First let it come to its work: most of a short run is the loading of libraries.
    begun = parts_of(dest)
    until = begun + draw.randrange(1, 12)
    while run.poll() is None and parts_of(dest) < until and not (how == "early" and draw.random() < 0.002):
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 0.3))
    if how == "mid-write":
        ends = time.monotonic() + 5
        while run.poll() is None and not list(Path(dest).glob("*/.*.tmp")) and time.monotonic() < ends:
            time.sleep(0.0005)
    if run.poll() is not None:
        return None
    done = f"{how}, {parts_of(dest)} parts done"
    if how == "disk full":
        # No file of this process may grow beyond that: each write then fails as on a full disk.
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (4096, 4096))
    elif how == "store dies":
        service.kill()
        ended(run, how)
        service.start()
    else:
        victims = {"worker": r"^ray::(?!\w+Agent)", "node": "raylet/raylet"}
        found = found_in_session(run.pid, victims[how]) if how in victims else [run.pid]
        if not found:
            return None
        os.kill(draw.choice(found), signal.SIGKILL)
    ended(run, how)
    return done


def found_in_session(pid: int, pattern: str) -> list[int]:
    """The processes of a session whose command line holds the pattern."""
    listed = subprocess.run(["pgrep", "-a", "-s", str(os.getsid(pid))], capture_output=True, text=True, check=False)
    pairs = (line.split(" ", 1) for line in listed.stdout.splitlines())
    return [int(one) for one, *command in pairs if command and re.search(pattern, command[0])]


def ended(run: subprocess.Popen, how: str) -> None:
    """Waits for its end: it may go on without a worker, and it may stop with two lines; a traceback is neither.

    When Ray's own node process is gone, Ray ends the driver, which then has no say.
    """
    _, said = run.communicate(timeout=300)
    fitting = (0, 1, 2) if how == "node" else (0, 2, -signal.SIGKILL)
    if run.returncode not in fitting or b"Traceback" in said:
        raise SystemExit(f"after {how} it ended with {run.returncode}:\n{said.decode()}")


WAYS = {
    "local": ("driver", "mid-write", "early", "disk full"),
    "ray": ("driver", "worker", "worker", "node"),
    "s3": ("store dies", "driver"),
}


def one(folder: Path, number: int, kind: str, seed: int, dest: str, service: Any) -> dict:
    draw, runner = random.Random(f"{seed}:{number}"), "ray" if kind == "ray" else "local"
    hits, starts = [], 0
    for _ in range(draw.randrange(1, 4)):
        run = start(folder, dest, runner)
        starts += 1
        hit = disturb(run, dest, draw.choice(WAYS[kind]), draw, service)
        if hit is None:
            ended(run, "nothing")
        else:
            hits.append(hit)
    done = start(folder, dest, runner)
    _, said = done.communicate(timeout=600)
    if done.returncode:
        return {"run": number, "kind": kind, "hits": hits, "failed": said.decode()[-2000:]}
    return {"run": number, "kind": kind, "hits": hits, "starts": starts + 1}


def content(dest: str) -> tuple[list[dict], dict]:
    import pyarrow.parquet as pq

    from capfilt.shards.read import samples, shards_of
    from capfilt.storage import Store

    ledgers = (pq.read_table(io.BytesIO(data)) for _, data in Store(dest).read_all("pairs"))
    rows = [row for ledger in ledgers for row in ledger.to_pylist()]
    return rows, {one.key: (one.image, one.captions, dict(one.meta)) for one in samples(shards_of(dest))}


def compare(dest: str, reference: tuple[list[dict], dict]) -> dict[str, int]:
    from capfilt.shards.verify import verify
    from capfilt.storage import Store

    leftovers = [] if dest.startswith("s3:") else list(Path(dest).rglob(".*"))
    rows, pictures = content(dest)
    places = Counter((row["part"], row["row"]) for row in rows)
    expected = {(row["part"], row["row"]): row for row in reference[0]}
    return {
        "lost": len(expected.keys() - places.keys()),
        "twice": sum(count - 1 for count in places.values()) + len(places.keys() - expected.keys()),
        "different": sum(row != expected.get((row["part"], row["row"])) for row in rows)
        + sum(pictures.get(key) != value for key, value in reference[1].items())
        + len(pictures.keys() - reference[1].keys()),
        "problems": len(verify(Store(dest))) + len(leftovers),
    }


@contextmanager
def object_store(folder: Path) -> Iterator[Any]:
    """A running S3 service with a bucket ``chaos``, which the environment tells this process and those it starts."""
    import s3fs

    spec = importlib.util.spec_from_file_location("service", ROOT / "tests" / "s3" / "service.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    service = module.Service(folder)
    os.environ.update(service.environment())
    service.start()
    try:
        s3fs.S3FileSystem().mkdir("chaos")
        yield service
    finally:
        service.kill()
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--ray", type=int, default=8, help="how many of them are on Ray")
    parser.add_argument("--s3", type=int, default=4, help="how many of them write to S3")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    started, results = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models(folder)
        (folder / "web").mkdir()
        with served(folder) as url:
            (folder / "web").rmdir()
            corpus(folder, options.pictures, url)
            whole = start(folder, str(folder / "whole"), "local")
            _, said = whole.communicate()
            if whole.returncode:
                raise SystemExit(said.decode())
            reference = content(str(folder / "whole"))

            def work(number: int, kind: str, service: Any = None) -> None:
                dest = f"s3://chaos/run-{number}" if kind == "s3" else str(folder / f"run-{number}")
                found = one(folder, number, kind, options.seed, dest, service)
                if "failed" not in found:
                    found |= compare(dest, reference)
                results.append(found)
                print(json.dumps(found), flush=True)

            # Those that disturb more than themselves, and those on Ray, which takes both cores, come one by one.
            if options.s3:
                with object_store(folder / "swift") as service:
                    for number in range(options.s3):
                        work(number, "s3", service)
            for number in range(options.s3, options.s3 + options.ray):
                work(number, "ray")
            with ThreadPoolExecutor(options.parallel) as pool:
                list(pool.map(lambda number: work(number, "local"), range(options.s3 + options.ray, options.runs)))
    totals = Counter()
    for found in results:
        totals.update({name: found.get(name, 0) for name in ("lost", "twice", "different", "problems")})
    report = {
        "runs": len(results),
        "rows": len(reference[0]),
        "pictures_kept": len(reference[1]),
        "harms": sum(len(found["hits"]) for found in results),
        "kinds": dict(Counter(hit.partition(",")[0] for found in results for hit in found["hits"])),
        "failed": [found for found in results if "failed" in found],
        **totals,
        "took_s": round(time.monotonic() - started),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "each": sorted(results, key=lambda found: found["run"]),
    }
    print(json.dumps({name: value for name, value in report.items() if name != "each"}, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

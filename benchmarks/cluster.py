"""The main job on several Ray nodes, one of which is killed under it and another added, and what is left in the end.

    python -P benchmarks/cluster.py [--pictures 2000] [--out FILE]

The nodes are processes of Ray on this machine: a head without CPUs and two workers of two each. Corpus, models and
comparison are those of chaos.py. The real command joins them; after some parts a node is killed with SIGKILL, all its
workers with it, and after some more another joins. Then ledger and shards are compared with those of an undisturbed run
in one process, row by row and picture by picture. A second run has its head killed: what it says is kept, and another
cluster brings it to its end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

NODE = {"num_cpus": 2, "object_store_memory": 150 * 2**20}
MANAGED = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "100000",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
    "OMP_NUM_THREADS": "1",
}


def chaos() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chaos", Path(__file__).with_name("chaos.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def cluster() -> Iterator[Any]:
    """A head without CPUs, and two nodes."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            nodes.add_node(**NODE)
        yield nodes
    finally:
        nodes.shutdown()


def wait_for(run: subprocess.Popen, dest: Path, count: int) -> int:
    """Until so many parts are committed; how many there are."""
    ends = time.monotonic() + 300
    while len(list(dest.glob("parts/*.json"))) < count:
        if run.poll() is not None or time.monotonic() > ends:
            raise SystemExit(f"it did not come to {count} parts: {run.communicate()[1].decode()}")
        time.sleep(0.02)
    return len(list(dest.glob("parts/*.json")))


def finish(run: subprocess.Popen) -> str:
    _, said = run.communicate(timeout=600)
    if run.returncode or b"Traceback" in said:
        raise SystemExit(f"it ended with {run.returncode}:\n{said.decode()}")
    return said.decode()


def planned(tools: ModuleType, folder: Path, address: str, *more: str) -> list[str]:
    """What ``--dry-run`` says of the cluster, or how it is refused."""
    command = [*tools.command(folder, str(folder / "never"), "ray"), "--dry-run", "--address", address, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    lines = (done.stdout or done.stderr).replace(address, "HEAD:PORT").splitlines()
    return lines[next((at for at, line in enumerate(lines) if line.startswith(("cluster", "error"))), 0) :]


def node_dies(tools: ModuleType, folder: Path) -> dict[str, Any]:
    dest, events = folder / "clean", []
    with cluster() as nodes:
        plans = {
            "plan": planned(tools, folder, nodes.address),
            "plan_too_large": planned(tools, folder, nodes.address, "--set", "capfilt.cpus=3"),
        }
        run = tools.start(folder, str(dest), "ray", "--workers", "4", "--address", nodes.address)
        events.append(f"a node killed after {wait_for(run, dest, 4)} parts")
        nodes.remove_node(sorted(nodes.worker_nodes, key=str)[0], allow_graceful=False)
        events.append(f"another joined after {wait_for(run, dest, 8)} parts")
        nodes.add_node(**NODE)
        finish(run)
    return {"events": events, "parts": len(list(dest.glob("parts/*.json"))), **plans}


def head_dies(tools: ModuleType, folder: Path) -> dict[str, Any]:
    dest = folder / "again"
    with cluster() as nodes:
        os.environ["RAY_ADDRESS"] = nodes.address
        run = tools.start(folder, str(dest), "ray", "--workers", "3")
        events = [f"the head killed after {wait_for(run, dest, 4)} parts"]
        killed = time.monotonic()
        nodes.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        _, said = run.communicate(timeout=300)
        took = time.monotonic() - killed
    told = {"exit": run.returncode, "said_last": said.decode().splitlines()[-3:], "ended_after_s": round(took, 1)}
    with cluster() as nodes:
        os.environ["RAY_ADDRESS"] = nodes.address
        finish(tools.start(folder, str(dest), "ray", "--workers", "3"))
    return {"events": events, **told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.update(MANAGED)
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    tools, began, report = chaos(), time.monotonic(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tools.models(folder)
        (folder / "web").mkdir()
        with tools.served(folder) as url:
            (folder / "web").rmdir()
            tools.corpus(folder, options.pictures, url)
            finish(tools.start(folder, str(folder / "whole"), "local"))
            reference = tools.content(str(folder / "whole"))
            report["node_dies"] = node_dies(tools, folder) | tools.compare(str(folder / "clean"), reference)
            report["head_dies"] = head_dies(tools, folder) | tools.compare(str(folder / "again"), reference)
    report |= {"rows": len(reference[0]), "pictures_kept": len(reference[1]), "took_s": round(time.monotonic() - began)}
    report |= {"cores": os.cpu_count(), "python": sys.version.split()[0]}
    print(json.dumps(report, indent=1))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

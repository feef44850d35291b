"""A client lives as long as its process, is shared within it, and leaves it quietly."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from capfilt.fetch.config import FetchConfig
from capfilt.fetch.process import fetch_all
from capfilt.images import Picture

CONFIG = FetchConfig(allow_addresses=("127.0.0.0/8",), timeout_connect_s=2)
PROGRAM = """\
import os, sys
from capfilt.fetch.config import FetchConfig
from capfilt.fetch.process import fetch_all
config = FetchConfig(allow_addresses=("127.0.0.0/8",))
print([item.width for item in fetch_all([sys.argv[1]] * 3, config)], flush=True)
if len(sys.argv) > 2:
    child = os.fork()
    who, width = "child" if child == 0 else "parent", fetch_all([sys.argv[1]], config)[0].width
    os.write(1, f"{who} {width}\\n".encode())  # a line as a whole, or the two may mix
    if child == 0:
        sys.exit()
    os.waitpid(child, 0)
    print("after", fetch_all([sys.argv[1]], config)[0].width, flush=True)
"""


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", PROGRAM, *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_names_are_looked_up_once_for_many_parts(site, monkeypatch):
    real, asked = socket.getaddrinfo, []

    def resolve(host, port, **options):
        asked.append(host)
        return real("127.0.0.1", port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    config = replace(CONFIG, timeout_read_s=7)
    for part in range(3):
        fetch_all([site.url(f"good?{part}-{n}", "lasting.test") for n in range(4)], config)
    assert asked == ["lasting.test"]


def test_connections_are_kept_from_part_to_part(site):
    config = replace(CONFIG, per_host=1, timeout_read_s=6)
    site.peers.clear()
    for _ in range(3):
        fetch_all([site.url("counted")], config)
    assert len(set(site.peers)) == 1


def test_parts_at_the_same_time_share_a_hosts_turns(site):
    config, site.busiest = replace(CONFIG, per_host=2), 0

    def part(number: int) -> list:
        return fetch_all([site.url(f"slowly?part={number}&n={n}") for n in range(4)], config)

    with ThreadPoolExecutor(4) as pool:
        found = [item for items in pool.map(part, range(4)) for item in items]
    assert all(isinstance(item, Picture) for item in found)
    assert site.busiest == 2


def test_it_works_within_a_running_loop(site):
    async def notebook():
        return fetch_all([site.url("good")], CONFIG)

    assert isinstance(asyncio.run(notebook())[0], Picture)


def test_other_configurations_leave_no_threads_behind(site):
    def threads() -> int:
        return sum(thread.name == "fetch" for thread in threading.enumerate())

    for wait in (5.0, 5.1, 5.2):
        fetch_all([site.url("good")], replace(CONFIG, timeout_read_s=wait))
    assert threads() == 1


def test_the_process_ends_quietly(site):
    done = run(site.url("good"))
    assert (done.stdout, done.stderr, done.returncode) == ("[80, 80, 80]\n", "", 0)


def test_a_forked_child_fetches_for_itself_and_leaves_its_parent_alone(site):
    done = run(site.url("good"), "fork")
    lines = sorted(done.stdout.splitlines())
    assert (lines, done.returncode) == (["[80, 80, 80]", "after 80", "child 80", "parent 80"], 0), done.stderr

"""One run at a time on a destination, and none that died holds it for long."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from capfilt.errors import DestinationError
from capfilt.shards.lease import FILE, leased
from capfilt.storage import Store

linux = pytest.mark.skipif(not Path("/proc/self/ns/pid").is_symlink(), reason="needs Linux's /proc")


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    return Store(str(tmp_path) if request.param == "file" else f"memory://lease-{os.getpid()}-{tmp_path.name}")


def left_by(store, **told):
    """A lease as a run that is gone has left it."""
    there = {"token": "another", "host": socket.gethostname(), "pid": os.getpid(), "until": time.time() + 60}
    store.write(FILE, json.dumps(there | told).encode())


def dead_process() -> int:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(done.stdout)


def test_a_second_run_is_refused_until_the_first_ends(store):
    with leased(store) as first:
        with pytest.raises(DestinationError, match=f"process {os.getpid()} on") as caught, leased(store):
            pytest.fail("two at once")
        assert "lets go in at most 1" in caught.value.mend
        first.check()
    assert not store.exists(FILE)
    with leased(store):
        pass


def test_it_ends_when_the_block_raises(store):
    with pytest.raises(ZeroDivisionError), leased(store):
        1 / 0  # noqa: B018
    assert not store.exists(FILE)


@pytest.mark.parametrize("told", [{"until": time.time() - 1}, {"pid": dead_process()}])
def test_a_run_that_died_is_succeeded(store, told):
    left_by(store, **told)
    with leased(store) as lease:
        lease.check()


def test_a_process_of_another_machine_is_not_taken_for_dead(store):
    left_by(store, host="elsewhere", pid=dead_process())
    with pytest.raises(DestinationError, match="on elsewhere"), leased(store):
        pass


def test_another_s_lease_is_waited_for_as_long_as_is_asked(store):
    left_by(store, host="elsewhere", until=time.time() + 0.4)
    with leased(store, wait_s=5) as lease:
        lease.check()
    left_by(store, host="elsewhere")
    begun = time.monotonic()
    with pytest.raises(DestinationError, match="on elsewhere"), leased(store, wait_s=0.2):
        pass
    assert 0.2 <= time.monotonic() - begun < 2


def test_a_damaged_lease_holds_nobody_off(store):
    store.write(FILE, b"{")
    with leased(store) as lease:
        lease.check()


def test_it_is_renewed_and_the_one_who_loses_it_is_told(store):
    with leased(store, lasts_s=1.2) as lease:
        time.sleep(1.6)
        lease.check()
        left_by(store, pid=1, host="elsewhere")
        time.sleep(0.8)
        with pytest.raises(DestinationError, match=r"no longer holds .*process 1 on elsewhere"):
            lease.check()
    assert store.exists(FILE), "it is the other's now"


def really_told(store):
    with leased(store):
        return json.loads(store.read(FILE)) | {"token": "another"}


@linux
@pytest.mark.parametrize("other", [{"namespace": "pid:[1]"}, {"boot": "another"}])
def test_a_number_of_another_namespace_or_boot_says_nothing(store, other):
    left_by(store, **really_told(store) | {"pid": dead_process()} | other)
    with pytest.raises(DestinationError, match="works there"), leased(store):
        pass


@linux
def test_a_number_that_another_process_has_now_is_no_sign_of_life(store):
    told = really_told(store)
    left_by(store, **told)
    with pytest.raises(DestinationError, match="works there"), leased(store):
        pass
    left_by(store, **told | {"started": str(int(told["started"]) - 1)})
    with leased(store) as lease:
        lease.check()
    left_by(store, **told | {"pid": dead_process()})
    with leased(store) as lease:
        lease.check()


def test_of_many_that_come_at_once_one_gets_it(tmp_path):
    store, got, start, done = Store(str(tmp_path)), [], threading.Barrier(8), threading.Event()
    inside = threading.Event()

    def come():
        start.wait()
        try:
            with leased(store):
                got.append(1)
                inside.set()
                done.wait(10)
        except DestinationError:
            refused.release()

    refused = threading.Semaphore(0)
    runs = [threading.Thread(target=come) for _ in range(8)]
    for run in runs:
        run.start()
    for _ in range(7):
        assert refused.acquire(timeout=10)
    # Seven may be told of the lease before the eighth knows that it has it.
    assert inside.wait(10)
    assert got == [1]
    done.set()
    for run in runs:
        run.join()

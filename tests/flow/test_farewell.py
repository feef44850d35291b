"""What is said when a process is ended from outside, and that nothing is said when it ends by itself."""

import signal
import subprocess
import sys
import textwrap

import pytest

from capfilt.flow.farewell import WORDS


def run(body):
    code = "import os, signal, sys\nfrom capfilt.flow.farewell import farewell\nwith farewell():\n"
    return subprocess.run(
        [sys.executable, "-c", code + textwrap.indent(body, "    ")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("body", "status"), [("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL), ("os._exit(1)", 1)]
)
def test_who_is_ended_says_how_to_go_on(body, status):
    done = run(body)
    assert (done.returncode, done.stderr) == (status, WORDS)
    assert len(WORDS.splitlines()) == 2


@pytest.mark.parametrize(("body", "status"), [("pass", 0), ("sys.exit(2)", 2), ("raise KeyboardInterrupt", 130)])
def test_who_leaves_by_itself_says_nothing(body, status):
    done = run(body)
    assert done.returncode in (status, -signal.SIGINT)
    assert WORDS not in done.stderr

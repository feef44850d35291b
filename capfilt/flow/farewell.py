"""The last words of a process that Ray ends.

When Ray's head node dies, or the Ray process of this machine, Ray ends its driver at once, without an exception. So a
small process beside it waits for it to end and, if it took no leave, says what happened and how to go on. Knows pipes
and processes; knows no Ray.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

WORDS = """\
error: this process was ended from outside: Ray's head node or this machine's Ray process died, or somebody killed it
  mend: What is committed stays. Run the same command again to go on; if the head node is gone, on another cluster.
"""
_WATCH = "import sys; sys.stdin.read(1) or sys.stderr.write(sys.argv[1])"
"""Reading ends with a byte, which is the leave, or with nothing when the other side is gone."""


@contextmanager
def farewell() -> Iterator[None]:
    """For the length of the block, :data:`WORDS` follow on stderr should this process end without leaving it."""
    # -I and -S: it loads nothing of the user's, and is there in a few milliseconds. In a session of its own no Ctrl-C
    # and no signal to the group reaches it.
    command = [sys.executable, "-I", "-S", "-c", _WATCH, WORDS]
    with subprocess.Popen(  # noqa: S603 all of it is written here
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    ) as watch:
        assert watch.stdin is not None  # noqa: S101 it was asked for
        try:
            yield
        finally:
            with suppress(OSError):  # somebody may have ended it
                watch.stdin.write(b".")
                watch.stdin.close()

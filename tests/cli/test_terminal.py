"""Progress in logs, and small tables."""

import os
import pty
import subprocess
import sys

from capfilt.cli.terminal import meter, table


def test_a_log_gets_plain_lines_and_always_the_last(capsys):
    with meter("parts") as progress:
        for done in range(1, 101):
            progress.update(done, 100, f"{done} rows")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["parts 1/100  1 rows", "parts 100/100  100 rows"]


def test_quiet_says_nothing(capsys):
    with meter("parts", quiet=True) as progress:
        progress.update(1, 1)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar():
    ours, theirs = pty.openpty()
    script = (
        "from capfilt.cli.terminal import meter\nwith meter('parts') as m:\n m.update(1, 2)\n m.update(2, 2, 'all')"
    )
    subprocess.run([sys.executable, "-c", script], stderr=theirs, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "parts" in shown
    assert "2/2" in shown
    assert "\x1b[" in shown


def test_a_table_lines_up(capsys):
    table("Books", ["", "rows"], [["rows in", "1,000"], ["kept", "7"]])
    assert capsys.readouterr().out.splitlines() == ["Books", "            rows", "  rows in  1,000", "  kept         7"]

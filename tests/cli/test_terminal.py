"""Progress in logs, and small tables."""

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

from capfilt.cli.errors import two_lines
from capfilt.cli.terminal import meter, table
from capfilt.errors import CapfiltError


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


def test_a_stranger_s_texts_are_shown_plainly(capsys):
    table("Jobs", ["id", "dest"], [["1", "/out\x1b[2J\nJobs"], ["2", "/é"]])
    cells = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert cells == [["Jobs"], ["id", "dest"], ["1", "/out", "[2J", "Jobs"], ["2", "/é"]]
    shown = two_lines(CapfiltError("no column \x1b[8mx\x9b", where="a\x07\nb", mend="Name\x1b]0;t\x07 one."))
    assert shown == "error: a b: no column [8mx\n  mend: Name ]0;t one."


def seen(command, **environment):
    """What a terminal of 80 columns is sent."""
    ours, theirs = pty.openpty()
    script = f"from capfilt.cli.main import call\ncall({command!r})"
    told = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "20", "HF_HUB_OFFLINE": "1", **environment}
    done = subprocess.Popen([sys.executable, "-c", script], stdout=theirs, stderr=theirs, env=told)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how Linux tells that the other side has closed
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    done.wait(60)
    return shown.decode().replace("\r\n", "\n")


def test_in_a_terminal_the_doctor_s_verdicts_have_colours_and_long_lines_break_between_words():
    shown = seen(["doctor"])
    assert "\x1b[32m\x1b[1mok  \x1b[0m" in shown
    plain = re.sub(r"\x1b\[\d*m", "", shown)
    mends = [line for line in plain.splitlines() if line.startswith("        mend: ")]
    assert mends
    assert all(len(line) <= 80 or " " not in line[37:].strip() for line in plain.splitlines()), plain
    assert any(line.startswith(" " * 14) and line[14] != " " for line in plain.splitlines()), (
        "a mend goes on below itself"
    )


def test_in_a_terminal_the_word_error_is_red_unless_colours_are_not_wanted():
    assert seen(["inspect", "/none"]).startswith("\x1b[31m\x1b[1merror\x1b[0m: /none: ")
    assert seen(["inspect", "/none"], NO_COLOR="1").startswith("error: /none: ")
    assert seen(["pretrain", "/none", "/none/out"], NO_COLOR="1").startswith("error: /none: "), "with no bar above it"

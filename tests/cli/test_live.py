"""A bootstrap as it runs: the board of a terminal, the lines of a log."""

import io

import pytest
from rich.console import Console

from capfilt.bootstrap import Progress
from capfilt.cli.live import clock, line, rows, watching
from capfilt.flow.pace import CAPFILT, FETCH, Pace, Spent
from capfilt.records import Tally


def progress(parts: int) -> Progress:
    """``parts`` of ten are done: the first took 20 s, each further one 10 s, with 50 pictures each."""
    pace = Pace(ready=5.0)
    for part in range(parts):
        pace = pace.plus({FETCH: Spent(1.0, 60), CAPFILT: Spent(8.0, 50)}, wall=20.0 + 10 * part)
    dropped = {"unreachable": 7 * parts, "too_small": parts, "no_caption_kept": 20 * parts}
    tally = Tally(
        rows=60 * parts,
        kept=32 * parts,
        dropped={name: count for name, count in dropped.items() if count},
        texts={"web": 50 * parts, "synthetic": 50 * parts},
        texts_kept={"web": 10 * parts, "synthetic": 40 * parts},
    )
    return Progress(done=parts, total=10, tally=tally, pace=pace)


def test_the_time_left_is_that_of_the_parts_since_the_first():
    assert progress(0).pace.left(10) is None
    assert progress(1).pace.left(9) == pytest.approx(9 * 15.0)
    assert progress(4).pace.left(6) == pytest.approx(60.0)


def test_a_line_tells_books_noise_speed_and_time_left():
    assert line(progress(0)) == "0 rows, 0 kept"
    told = "240 rows, 128 kept, noise web 80.0% synthetic 20.0%, 5 images/s, capfilt limits, 0:01:00 left"
    assert line(progress(4)) == told
    assert not line(progress(10)).endswith("left")


def test_the_board_tells_drops_by_reason_the_most_first():
    told = rows(progress(4))
    assert told["rows"] == "240 in, 128 kept (53.3%)"
    assert told["dropped"] == "no_caption_kept 80, unreachable 28, too_small 4"
    assert told["noise"] == "web 80.0%, synthetic 20.0%"
    assert told["speed"].startswith("5 images/s; capfilt limits; faster: a GPU")
    assert rows(progress(0))["speed"] == "the models are loading"


@pytest.mark.parametrize("width", [110, 60])
def test_a_terminal_shows_the_board(width, capsys):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, legacy_windows=False)
    with watching(console=console) as tell:
        tell(progress(0))
        tell(progress(4))
    shown = screen.getvalue()
    for told in ("parts", "4/10", "elapsed 0:00:0", "left 0:0", "240 in, 128 kept", "unreachable 28", "web 80.0%"):
        assert told in shown
    assert capsys.readouterr().err.startswith("parts 4/10  240 rows, 128 kept")


def test_a_log_gets_lines_and_quiet_nothing(capsys):
    with watching() as tell:
        for parts in range(11):
            tell(progress(parts))
    first, last = capsys.readouterr().err.splitlines()
    assert (first, last[:12]) == ("parts 0/10  0 rows, 0 kept", "parts 10/10 ")
    with watching(quiet=True) as tell:
        tell(progress(10))
    assert capsys.readouterr() == ("", "")


def test_a_clock():
    assert [clock(0.4), clock(61), clock(90_061)] == ["0:00:00", "0:01:01", "1 days 1:01:01"]

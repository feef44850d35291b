"""The runner without an engine: rows kept, errors raised, threads ended."""

import subprocess
import sys
import threading

import pytest

from capfilt.errors import DataError, ModelError
from capfilt.flow.config import PlanConfig
from capfilt.flow.local import run_local
from capfilt.flow.plan import plan
from capfilt.records import Tally

SEVEN = PlanConfig(part_rows=7)


def run(source, stages, out, workers=1):
    run_local(source, plan(source, SEVEN).parts, stages, out.append, workers)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_row_comes_out_once_whatever_the_workers(toys, out, workers):
    one, many = out("one"), out("many")
    for result, count in ((one, 1), (many, workers)):
        run(toys.Numbers(), [toys.Sieve(), toys.Scribe(), result.save()], result, count)
    assert many.rows() == one.rows()
    total = sum(many.tallies, Tally())
    assert (total.rows, total.dropped, total.balanced) == (25, {"too_small": 9}, True)


@pytest.mark.parametrize("workers", [1, 2])
def test_stages_are_opened_once_a_worker(toys, out, tmp_path, workers):
    traces = tmp_path / "traces"
    traces.mkdir()
    result = out()
    run(toys.Numbers(rows=140), [toys.Scribe(traces=str(traces)), result.save()], result, workers)
    assert len(result.tallies) == 20
    assert 1 <= len(list(traces.iterdir())) <= workers


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_ends_the_run_and_what_was_done_before_was_told(toys, out, workers):
    result = out()
    with pytest.raises(ModelError, match="out of ink"):
        run(toys.Numbers(rows=70), [toys.Scribe(fail_at=4), result.save()], result, workers)
    assert len(result.tallies) < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]


def test_a_caller_who_has_enough_stops_the_workers(toys, out):
    def enough(tally):
        raise KeyboardInterrupt

    source, result = toys.Numbers(rows=700), out()
    with pytest.raises(KeyboardInterrupt):
        run_local(source, plan(source, SEVEN).parts, [toys.Scribe(), result.save()], enough, 2)
    assert len(list(result.folder.iterdir())) < 100


def test_lost_rows_are_an_error(toys, out):
    with pytest.raises(DataError, match="6 rows went in and 5 came out"):
        run(toys.Numbers(), [toys.Scribe(lose=True)], out())


def test_a_source_that_gives_other_rows_than_planned_is_an_error(toys, out):
    source = toys.Numbers()
    parts = [plan(source, SEVEN).parts[0].__class__(index=0, file="numbers", start=0, stop=5, digest="")]

    class Short(toys.Numbers):
        def read(self, part):
            return super().read(part).slice(1)

    with pytest.raises(DataError, match="4 rows were read, 5 were planned"):
        run_local(Short(), parts, [], print)


def test_it_needs_no_ray():
    code = "import sys, capfilt.flow.local, capfilt.bootstrap; print({'ray', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

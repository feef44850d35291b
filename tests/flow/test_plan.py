"""The plan: what is to do, and whether the machines can take it."""

from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capfilt.errors import DestinationError, EngineError, SourceError
from capfilt.flow.config import PlanConfig
from capfilt.flow.plan import Machine, describe, plan, pool_size, todo
from capfilt.stages.base import Needs

SEVEN = PlanConfig(part_rows=7)


def test_all_rows_are_in_one_part_each(toys):
    made = plan(toys.Numbers(rows=25), SEVEN)
    assert [(part.start, part.stop) for part in made.parts] == [(0, 6), (6, 12), (12, 18), (18, 25)]
    assert made.rows == 25


def test_the_digest_follows_rows_and_cuts(toys):
    digests = {plan(toys.Numbers(rows=r), PlanConfig(part_rows=p)).digest for r in (25, 26) for p in (7, 9)}
    assert len(digests) == 4
    assert plan(toys.Numbers(rows=25), SEVEN).digest in digests


def test_a_source_without_rows(toys):
    with pytest.raises(SourceError, match="no rows"):
        plan(toys.Numbers(rows=0), SEVEN)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(done=st.sets(st.integers(0, 3)))
def test_what_is_to_do_is_the_plan_less_what_is_done(toys, done):
    made = plan(toys.Numbers(rows=25), SEVEN)
    markers = {part.index: SimpleNamespace(digest=part.digest) for part in made.parts if part.index in done}
    assert {part.index for part in todo(made, markers)} == set(range(4)) - done


@pytest.mark.parametrize("markers", [{1: SimpleNamespace(digest="other")}, {9: SimpleNamespace(digest="25:7")}])
def test_markers_of_other_rows_are_refused(toys, markers):
    with pytest.raises(DestinationError):
        todo(plan(toys.Numbers(rows=25), SEVEN), markers)


TWO_CORES = [Machine(cpus=2)]
GPUS = [Machine(cpus=8, gpus=4), Machine(cpus=8, gpus=4)]


@pytest.mark.parametrize(
    ("machines", "needs", "asked", "tasks", "size"),
    [
        (TWO_CORES, Needs(cpus=1), None, 0.25, 1),
        (TWO_CORES, Needs(cpus=0.5), None, 0.25, 3),
        (TWO_CORES, Needs(cpus=0.875), 2, 0.25, 2),
        (TWO_CORES, Needs(cpus=1), 1, 1.0, 1),
        (GPUS, Needs(cpus=1, gpus=1), None, 1.0, 8),
        ([Machine(cpus=0), *TWO_CORES], Needs(cpus=1), None, 1.0, 1),
        (GPUS, Needs(cpus=2, gpus=1), None, 1.0, 7),
        (GPUS, Needs(cpus=1, gpus=0.5), 16, 0.25, None),
        (GPUS, Needs(cpus=0.1, gpus=0.5), 16, 0.25, 16),
        (TWO_CORES, Needs(cpus=1), 2, 0.25, None),
        (TWO_CORES, Needs(cpus=0.9), 2, 0.25, None),
        (TWO_CORES, Needs(cpus=1, gpus=1), 1, 0.25, None),
        (TWO_CORES, Needs(cpus=4), None, 0.25, None),
        # Two machines of four cannot hold one worker of five.
        ([Machine(cpus=4), Machine(cpus=4)], Needs(cpus=5), 1, 0.25, None),
        ([Machine(cpus=4), Machine(cpus=4)], Needs(cpus=4), 1, 0.25, 1),
        ([Machine(cpus=4), Machine(cpus=4)], Needs(cpus=4), 2, 0.25, None),
        ([], Needs(cpus=1), None, 0.25, None),
    ],
)
def test_a_pool_leaves_room_for_the_tasks_that_feed_it(machines, needs, asked, tasks, size):
    if size is not None:
        assert pool_size(machines, needs, asked, tasks=tasks) == size
        return
    with pytest.raises(EngineError) as caught:
        pool_size(machines, needs, asked, tasks=tasks)
    assert caught.value.mend


def test_tenths_add_up():
    assert pool_size([Machine(cpus=1.0)], Needs(cpus=0.1), None, tasks=0.1) == 9


def test_the_plan_in_words(toys):
    text = describe(plan(toys.Numbers(rows=25), SEVEN), [toys.Sieve(), toys.Scribe()], left=2)
    assert "25 in 1 file" in text
    assert "4 of 6 to 7 rows; 2 to do" in text
    assert "tasks  0.25 CPUs" in text
    assert "pool   0.5 CPUs" in text

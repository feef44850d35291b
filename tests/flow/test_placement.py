"""Where stages go: said before a run, and the same as the run takes."""

import pytest

from capfilt.errors import RecipeError
from capfilt.flow.config import RunConfig
from capfilt.flow.placement import describe, workers
from capfilt.flow.plan import Machine

HEAD, FETCHER, GPU = Machine(cpus=0), Machine(cpus=8), Machine(cpus=8, gpus=1)


@pytest.fixture
def stages(toys):
    return lambda cpus=1.0: [toys.Sieve(), toys.Scribe(cpus=cpus), toys.Save(folder="nowhere")]


def test_machines_are_told_by_kind_and_each_stage_has_its_place(stages):
    told = describe([HEAD, FETCHER, FETCHER, GPU], stages(), None)
    assert told == [
        "cluster 4 machines",
        "  1 of 0 CPUs",
        "  2 of 8 CPUs",
        "  1 of 8 CPUs and 1 GPU",
        "placement",
        "  sieve      up to 96 at once, on 3 of 4 machines",
        "  scribe     23 workers, on 3 of 4 machines",
        "  save       up to 96 at once, on 3 of 4 machines",
    ]
    assert describe([GPU, FETCHER, HEAD, FETCHER], stages(), None) == told


def test_what_cannot_be_placed_says_why_and_what_to_do(stages):
    told = describe([HEAD, Machine(cpus=2)], stages(4.0), None)
    (line,) = [line for line in told if "scribe" in line]
    assert "cannot be placed: 1 worker of 4 CPUs" in line
    assert "--set capfilt.cpus=" in line
    (line,) = [line for line in describe([HEAD], stages(), None) if "sieve" in line]
    assert line.endswith("cannot be placed: no machine has 0.25 CPUs")


def test_a_pool_that_may_grow_says_so(stages):
    (line,) = [line for line in describe([FETCHER], stages(), 2, 6) if "scribe" in line]
    assert line.endswith("2 workers, growing to 6, on 1 of 1 machines")


def test_the_placement_is_what_the_run_takes(stages):
    machines = [FETCHER, FETCHER]
    assert workers(machines, stages(), None) == 15
    assert workers(machines, stages(), 4) == 4
    assert workers(machines, stages()[:1], None) == 0


def test_a_pool_does_not_grow_to_fewer_than_it_has():
    with pytest.raises(RecipeError, match="not within"):
        RunConfig(workers=4, max_workers=3)

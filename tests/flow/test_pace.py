"""How fast a run is said to be, and what is said to hold it up."""

from dataclasses import replace

import pytest

from capfilt.flow.config import PlanConfig
from capfilt.flow.local import run_local
from capfilt.flow.pace import CAPFILT, FETCH, READ, SINK, START, Pace, Spent, notes_from_json, notes_to_json
from capfilt.flow.plan import plan


def pace(seconds: dict[str, float], *, workers: int = 1, wall: float = 10.0, ready: float = 0.0, gpus: float = 0.0):
    notes = {name: Spent(one / 2, 50) for name, one in seconds.items()}
    return Pace(workers=workers, ready=ready, gpus=gpus).plus(notes, wall=wall / 2).plus(notes, wall=wall)


def test_rates_count_what_the_models_saw() -> None:
    now = pace({READ: 1, FETCH: 3, CAPFILT: 8, SINK: 1})
    assert (now.images, now.images_s, now.steady, now.busy) == (100, 10.0, 10.0, 0.8)
    late = Pace().plus({CAPFILT: Spent(1, 10)}, wall=9.0).plus({CAPFILT: Spent(1, 30)}, wall=10.0)
    assert (late.images_s, late.steady) == (4.0, 30.0), "the start is in the one and not in the other"
    none = Pace()
    assert (none.images_s, none.steady, none.limits, none.advice) == (None, None, None, None)


@pytest.mark.parametrize(
    ("seconds", "workers", "limits"),
    [
        ({READ: 0.1, FETCH: 2, CAPFILT: 9, SINK: 0.1}, 1, CAPFILT),
        ({READ: 0.1, FETCH: 9, CAPFILT: 2, SINK: 0.1}, 1, FETCH),
        ({READ: 0.1, FETCH: 12, CAPFILT: 19, SINK: 0.1}, 2, CAPFILT),  # both workers were busy all the time
        ({READ: 0.1, FETCH: 12, CAPFILT: 6, SINK: 0.1}, 2, FETCH),
        ({READ: 6, FETCH: 1, CAPFILT: 1, SINK: 1}, 1, READ),
        ({READ: 1, FETCH: 1, CAPFILT: 1, SINK: 6}, 1, SINK),
    ],
)
def test_who_is_waited_for_limits(seconds: dict[str, float], workers: int, limits: str) -> None:
    now = pace(seconds, workers=workers)
    assert now.limits == limits
    assert now.advice
    assert now.to_json()["limits"] == limits


def test_with_gpus_more_gpus_are_what_helps() -> None:
    assert "int8" in str(pace({CAPFILT: 9}).advice)
    assert str(pace({CAPFILT: 9}, gpus=1.0).advice).startswith("more GPUs")


def test_the_time_before_the_engine_is_up_is_nobodys_idleness() -> None:
    assert pace({CAPFILT: 5}, ready=5.0).busy == 1.0


def test_the_start_of_a_short_run_is_what_took_its_time() -> None:
    short = Pace(ready=3.0).plus({CAPFILT: Spent(1.0, 30), FETCH: Spent(0.1, 30)}, wall=30.0)
    assert short.limits == CAPFILT, "while it runs, nobody knows how short it is"
    over = replace(short, finish=0.2)
    assert (over.limits, str(over.advice).endswith("--runner local")) == (START, True)
    longer = over.plus({CAPFILT: Spent(90.0, 3000)}, wall=130.0)
    assert longer.limits == CAPFILT


def test_notes_travel() -> None:
    notes = {READ: Spent(0.5, 3), CAPFILT: Spent(1.25, 2)}
    assert notes_from_json(notes_to_json(notes)) == notes


def test_each_stage_notes_its_rows_and_seconds(toys, out) -> None:
    result, ready = out(), []
    source = toys.Numbers()
    stages = [toys.Sieve(), toys.Scribe(), result.save()]
    run_local(source, plan(source, PlanConfig(part_rows=7)).parts, stages, result.append, 2, ready.append)
    assert ready == [2]
    rows = {name: sum(notes[name].rows for notes in result.spent) for name in result.spent[0]}
    assert rows == {"read": 25, "sieve": 25, "scribe": 16, "save": 16}, "what was dropped before does not count"
    assert all(one.seconds > 0 for notes in result.spent for one in notes.values())

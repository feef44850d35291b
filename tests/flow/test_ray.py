"""The runner on Ray: the same result as in process, one block a part, errors as they were raised."""

import pytest

from capfilt.errors import DataError, EngineError, ModelError
from capfilt.flow.config import PlanConfig, RunConfig
from capfilt.flow.local import run_local
from capfilt.flow.plan import plan
from capfilt.flow.ray import pipeline, run_ray
from capfilt.records import Tally

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]
SEVEN = PlanConfig(part_rows=7)


def run(source, stages, out, workers=1):
    run_ray(source, plan(source, SEVEN).parts, stages, out.append, RunConfig(workers=workers))


def test_same_rows_as_in_process_with_one_worker_or_two(toys, out):
    source = toys.Numbers()
    here, one, two = out("here"), out("one"), out("two")
    stages = [toys.Sieve(), toys.Scribe()]
    run_local(source, plan(source, SEVEN).parts, [*stages, here.save()], here.append)
    run(source, [*stages, one.save()], one)
    run(source, [*stages, two.save()], two, workers=2)
    assert here.rows() == one.rows() == two.rows()
    assert [row["row"] for row in here.rows()] == list(range(25))
    assert sum(one.tallies, Tally()) == sum(two.tallies, Tally()) == sum(here.tallies, Tally())
    assert len(one.tallies) == 4
    rows = [{name: sum(notes[name].rows for notes in some.spent) for name in some.spent[0]} for some in (one, here)]
    assert rows[0] == rows[1] == {"read": 25, "sieve": 25, "scribe": 16, "save": 16}, "notes come through Ray"


def test_a_pool_opens_its_stage_once_a_worker_whatever_the_parts(toys, out, tmp_path):
    traces, result = tmp_path / "traces", out()
    traces.mkdir()
    run(toys.Numbers(rows=56), [toys.Scribe(traces=str(traces)), result.save()], result)
    assert len(result.tallies) == 8
    assert len(list(traces.iterdir())) == 1


def test_a_pool_that_may_grow_starts_small_and_loses_nothing(toys, out, tmp_path):
    traces, result, source = tmp_path / "traces", out(), toys.Numbers(rows=210)
    traces.mkdir()
    stages = [toys.Scribe(traces=str(traces)), result.save()]
    run_ray(source, plan(source, SEVEN).parts, stages, result.append, RunConfig(workers=1, max_workers=3))
    assert [row["row"] for row in result.rows()] == list(range(210))
    assert 1 <= len(list(traces.iterdir())) <= 3


def test_each_part_is_one_block_and_saved_once(toys, out):
    result = out()
    run(toys.Numbers(rows=50), [toys.Sieve(), toys.Scribe(), result.save()], result, workers=2)
    assert len(list(result.folder.iterdir())) == 8


@pytest.mark.parametrize("cpus", [0.5, 0.25, 1.0])
def test_fetching_is_never_fused_into_the_pool(toys, out, cpus):
    """Even if the user gives the pool's workers what the fetching tasks take."""
    source = toys.Numbers()
    stages = [toys.Sieve(), toys.Scribe(cpus=cpus), out().save()]
    dataset = pipeline(source, plan(source, SEVEN).parts, stages, workers=1)
    names = _physical(dataset)
    pool = [name for name in names if "scribe" in name]
    assert len(pool) == 1, names
    assert "sieve" not in pool[0], names
    assert "save" not in pool[0], names
    assert any("save" in name and "_count" in name for name in names), names
    assert any("read" in name and "sieve" in name for name in names) or cpus == 0.25, names


def _physical(dataset):
    """Names of the operators that Ray will run, from the source on."""
    from ray.data._internal.logical.optimizers import get_execution_plan

    operator, names = get_execution_plan(dataset._logical_plan)[0].dag, []
    while operator.input_dependencies:
        names.append(operator.name)
        operator = operator.input_dependencies[0]
    return names[::-1]


@pytest.mark.parametrize("broken", [{"fail_at": 2}, {"fail_open": True}])
@pytest.mark.parametrize("stateful", [True, False])
def test_an_error_of_a_worker_arrives_as_it_was_raised(toys, out, broken, stateful, capfd):
    result = out()
    with pytest.raises(ModelError) as caught:
        run(toys.Numbers(), [toys.Sieve(), toys.Scribe(stateful=stateful, **broken), result.save()], result)
    assert type(caught.value) is ModelError
    assert caught.value.what in {"out of ink", "the pen is broken"}
    assert caught.value.where
    assert caught.value.mend
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err


def test_lost_rows_are_an_error_and_not_silence(toys, out):
    with pytest.raises(DataError, match="6 rows went in and 5 came out"):
        run(toys.Numbers(), [toys.Scribe(lose=True), out().save()], out("other"))


def test_a_run_is_silent(toys, out, capfd):
    result = out()
    run(toys.Numbers(), [toys.Scribe(), result.save()], result)
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_a_pool_without_room_for_its_feeders_is_refused(toys, out):
    """Three workers of one CPU would take all three, and wait for ever for rows."""
    with pytest.raises(EngineError, match="do not fit") as caught:
        run(toys.Numbers(), [toys.Scribe(cpus=1.0), out().save()], out("other"), workers=3)
    assert "Ask for 2" in caught.value.mend


def test_two_workers_of_a_whole_core_each_end(toys, out):
    result = out()
    run(toys.Numbers(), [toys.Sieve(), toys.Scribe(cpus=1.0), result.save()], result, workers=2)
    assert sum(result.tallies, Tally()).rows == 25


def test_a_worker_that_dies_ends_the_run_with_an_error_and_not_for_ever(toys, out):
    with pytest.raises(EngineError, match="lost a worker") as caught:
        run(toys.Numbers(), [toys.Scribe(die=True), out().save()], out("other"))
    assert "--workers" in caught.value.mend


def test_nothing_to_do_but_drops(toys, out):
    result = out()
    run(toys.Numbers(), [toys.Sieve(by=1), toys.Scribe(), result.save()], result)
    total = sum(result.tallies, Tally())
    assert (total.rows, total.kept, total.balanced) == (25, 0, True)

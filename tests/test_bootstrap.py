"""The main job with a tiny real model: what it writes, how it goes on, and what it refuses before it begins."""

import csv
import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw

from capfilt.bootstrap import bootstrap
from capfilt.dedup import dedup
from capfilt.errors import CapfiltError, DestinationError, ModelError, RecipeError, SourceError
from capfilt.flow.config import RunConfig
from capfilt.med.model import MED
from capfilt.recipe import load
from capfilt.shards.read import samples, shards_of
from capfilt.shards.verify import repair, verify
from capfilt.stages.config import CapFiltConfig
from capfilt.storage import Store
from tests.loopback import serving_folder

LOCAL = RunConfig(runner="local")
ROWS = 23


@pytest.fixture(scope="module")
def models(tiny_architecture, tmp_path_factory):
    """Two models with random weights."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("captioner", "filter")):
        torch.manual_seed(seed)
        model = MED.new(tiny_architecture)
        if name == "filter":
            torch.nn.init.normal_(model.itm_head.weight, std=2.0)  # else every score is near one half
        model.save(root / name)
    return root


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of pictures that this machine serves; every sixth is missing, and a row has no address."""
    folder = tmp_path_factory.mktemp("web")
    draw = random.Random(0)
    file = tmp_path_factory.mktemp("tables") / "pairs.csv"
    with serving_folder(folder) as address:
        rows = [("", "nowhere")]
        for n in range(ROWS - 1):
            colour, shape = draw.choice(("red", "green", "blue")), draw.choice(("circle", "square"))
            if n % 6:
                picture(folder / f"{n}.png", colour, n)
            rows.append((f"{address}/{n}.png", f"a {colour} {shape} on white"))
        with file.open("w", newline="") as out:
            csv.writer(out).writerows([("url", "caption"), *rows])
        yield file


@pytest.fixture
def moody(tmp_path):
    """A table of seven pictures that this machine serves, and the two of them that it does not serve yet."""
    folder = tmp_path / "moody"
    folder.mkdir()
    for n in range(7):
        picture(folder / f"{n}.png", ("red", "green", "blue")[n % 3], n)
    late = [folder / "1.png", folder / "5.png"]
    for file in late:
        file.rename(file.with_suffix(".late"))
    file = tmp_path / "moody.csv"
    with serving_folder(folder) as address:
        rows = [(f"{address}/{n}.png", f"a drawing, number {n}") for n in range(7)]
        with file.open("w", newline="") as out:
            csv.writer(out).writerows([("url", "caption"), ("", "nowhere"), *rows])
        yield file, late


def picture(file, colour, n):
    image = Image.new("RGB", (40 + n, 40), "white")
    ImageDraw.Draw(image).rectangle((5, 5, 20 + n, 30), fill=colour)
    image.save(file)


def snapshot(folder, *, times=False):
    """Digest, and time if asked, of each file that is the data set."""
    return {
        str(file.relative_to(folder)): (
            hashlib.sha256(file.read_bytes()).hexdigest(),
            times and file.stat().st_mtime_ns,
        )
        for kind in ("shards", "pairs", "parts")
        for file in sorted((folder / kind).iterdir())
    }


def ledger(folder):
    return pa.concat_tables(pq.read_table(file) for file in sorted((folder / "pairs").glob("*.parquet"))).to_pylist()


@pytest.fixture
def job(models, table, tmp_path):
    """Runs the main job on the table with the tiny models."""

    def run(dest="out", *settings, run=LOCAL, source=table, **more):
        recipe = load(
            None,
            [
                f"capfilt.captioner={models}/captioner",
                f"capfilt.filter={models}/filter",
                "capfilt.threshold=0.988",  # the median of the random filter's scores
                "capfilt.max_length=10",
                "capfilt.min_length=4",
                "plan.part_rows=5",
                "fetch.allow_addresses=[127.0.0.0/8]",
                "fetch.retries=0",
                *settings,
            ],
            source=str(source),
        )
        return bootstrap(str(source), str(tmp_path / dest), recipe=recipe, run=run, **more)

    return run


def test_human_pairs_join_the_scraped_ones_with_an_origin_and_kind_of_their_own(job, table, tmp_path):
    people = tmp_path / "people"
    people.mkdir()
    for name, colour in (("cat", "red"), ("dog", "blue")):
        Image.new("RGB", (64, 48), colour).save(people / f"{name}.jpg")
        (people / f"{name}.txt").write_text(f"a {name} that somebody described")
    joined = f"source.also=[{{path: {people}, kind: folder, origin: human}}]"
    result = job("out", joined, source=table)
    rows = ledger(tmp_path / "out")
    assert len(rows) == ROWS + 2 == result.manifest["totals"]["rows"]
    assert result.parts == 6
    human = [row for row in rows if any(c["origin"] == "human" for c in row["captions"])]
    assert [row["url"] for row in human] == ["cat.jpg", "dog.jpg"]
    assert all(row["drop"] is None and row["captions"][0]["kept"] for row in human)
    assert [one["kind"] for one in result.manifest["source"]["sources"]] == ["table", "folder"]
    assert verify(Store(str(tmp_path / "out"))) == []
    with pytest.raises(DestinationError):
        job("out", joined.replace("origin: human", "origin: web"), source=table)


def test_books_files_and_progress_of_a_whole_run(job, tmp_path):
    told = []
    result = job(on_progress=told.append)
    out, totals = tmp_path / "out", result.manifest["totals"]
    assert (result.dest, result.parts, result.done_before) == (str(out), 5, 0)
    assert [(p.done, p.total) for p in told] == [(n, 5) for n in range(6)]
    assert told[-1].tally.to_json() == totals
    rows = ledger(out)
    assert [row["row"] for row in rows] == list(range(ROWS))
    drops = Counter(row["drop"] for row in rows)
    assert drops["no_url"] == 1
    assert drops["http_status"] == 4
    assert totals["rows"] == ROWS == totals["kept"] + sum(totals["dropped"].values())
    assert 0 < totals["kept"] < ROWS - 5, "the random filter keeps some and rejects some"
    assert {c["origin"] for row in rows for c in row["captions"]} == {"web", "synthetic"}
    assert verify(Store(str(out))) == []
    for name in ("README.md", "report.html", "recipe.yaml"):
        assert (out / name).stat().st_size > 200
    assert result.manifest["models"].keys() == {"captioner", "filter"}


def test_a_run_that_died_goes_on_and_ends_as_if_it_had_not(job, tmp_path):
    def die(progress):
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job("died", on_progress=die)
    died = tmp_path / "died"
    assert not (died / "manifest.json").exists()
    # A part that died before its marker leaves files that nobody vouches for.
    (died / "shards" / "00003.tar").write_bytes(b"half a tar")
    before = snapshot(died, times=True)
    result = job("died")
    after = snapshot(died, times=True)
    assert result.done_before == 2
    done = [name for name in before if "00000" in name or "00001" in name]
    assert len(done) >= 4
    assert {name: after[name] for name in done} == {name: before[name] for name in done}
    job("whole")
    assert snapshot(died) == snapshot(tmp_path / "whole")
    assert verify(Store(str(died))) == []


def test_workers_do_not_change_a_byte(job, tmp_path):
    job("one")
    job("two", run=RunConfig(runner="local", workers=2))
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_a_plan_and_a_finished_destination_are_told_without_torch_and_ray(job, tmp_path, models, table):
    job()
    code = f"""
import sys
from capfilt.bootstrap import bootstrap
from capfilt.recipe import load
recipe = load({str(tmp_path / "out" / "recipe.yaml")!r}, source="x")
bootstrap({str(table)!r}, {str(tmp_path / "new")!r}, recipe=recipe, dry_run=True)
result = bootstrap({str(table)!r}, {str(tmp_path / "out")!r}, recipe=recipe)
print(result.done_before, result.parts, result.manifest["totals"]["rows"], {{"ray", "torch"}} & set(sys.modules))
"""
    before = snapshot(tmp_path / "out", times=True)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"5 5 {ROWS} set()"
    assert snapshot(tmp_path / "out", times=True) == before


def test_what_a_run_that_died_at_the_end_did_not_reach_is_written(job, tmp_path):
    job()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for name in ("manifest.json", "README.md", "report.html"):
        (tmp_path / "out" / name).unlink()
    again = job()
    assert again.manifest["totals"] == manifest["totals"]
    assert (tmp_path / "out" / "report.html").exists()
    assert (tmp_path / "out" / "README.md").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_local_run_gives_torch_its_threads_back_also_when_it_fails(job, workers):
    def enough(progress):
        if progress.done:
            raise KeyboardInterrupt

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        job(run=RunConfig(runner="local", workers=workers))
        found = [torch.get_num_threads()]
        with pytest.raises(KeyboardInterrupt):
            job("stopped", run=RunConfig(runner="local", workers=workers), on_progress=enough)
        found.append(torch.get_num_threads())
        # A thread that begins later has what the process has.
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(torch.get_num_threads).result())
    finally:
        torch.set_num_threads(before)
    assert found == [3, 3, 3]


def test_another_recipe_is_refused_and_named(job, tmp_path):
    job()
    before = snapshot(tmp_path / "out", times=True)
    with pytest.raises(DestinationError, match=r"capfilt\.threshold is 0\.988 there and 0\.9 now") as caught:
        job("out", "capfilt.threshold=0.9", "capfilt.seed=1")
    assert "capfilt.seed" in caught.value.what
    assert snapshot(tmp_path / "out", times=True) == before


def test_a_wrong_model_binds_nobody_to_the_recipe_that_named_it(job, tmp_path, models):
    """Only a worker finds that a filter writes no captions; what it tells to mend is another value of the recipe."""
    with pytest.raises(ModelError, match="captioner"):
        job("out", f"capfilt.captioner={halves(models)}")
    assert (tmp_path / "out" / "recipe.yaml").exists()
    told = job("out")
    assert told.manifest["totals"]["rows"] == ROWS
    with pytest.raises(DestinationError, match=r"made by another recipe: capfilt\.threshold"):
        job("out", "capfilt.threshold=0.9")


def halves(models):
    """The filter's half of a model, which cannot write."""
    half = models.parent / "half"
    MED.load(models / "filter").only("filter").save(half)
    return half


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (lambda: CapFiltConfig(judge_by="imt"), "capfilt.judge_by: 'imt' is unknown"),
        (lambda: CapFiltConfig(decoding="bean"), "capfilt.decoding: 'bean' is unknown"),
        (lambda: CapFiltConfig(dtype="int4"), "capfilt.dtype: 'int4' is unknown"),
        (lambda: RunConfig(runner="lcoal"), "run.runner: 'lcoal' is unknown"),
    ],
)
def test_words_that_are_unknown_are_refused_in_python_too(settings, said):
    with pytest.raises(RecipeError, match=said):
        settings()


def test_speed_may_change(job):
    job()
    assert job("out", "capfilt.batch_size=2", "fetch.concurrency=2").done_before == 5


def test_a_changed_source_is_refused(job, tmp_path, table):
    mine = tmp_path / "mine.csv"
    shutil.copy(table, mine)
    job(source=mine)
    mine.write_text(mine.read_text().replace("nowhere", "somewhere"))
    with pytest.raises(DestinationError, match="other input"):
        job(source=mine)


def test_the_same_bytes_elsewhere_are_the_same_source(job, tmp_path, table):
    job()
    shutil.copy(table, tmp_path / "moved.csv")
    assert job(source=tmp_path / "moved.csv").done_before == 5


def test_other_weights_of_the_same_name_are_refused(job, tmp_path, models):
    mine = tmp_path / "filter"
    shutil.copytree(models / "filter", mine)
    job("out", f"capfilt.filter={mine}")
    shutil.copy(models / "captioner" / "model.safetensors", mine)
    with pytest.raises(DestinationError, match="another filter"):
        job("out", f"capfilt.filter={mine}")


def test_a_dry_run_plans_and_writes_nothing(job, tmp_path):
    result = job(dry_run=True)
    assert result.manifest is None
    assert f"{ROWS} in 1 file" in result.plan
    assert "capfilt" in result.plan
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "source", "kind"),
    [
        (["capfilt.captioner=no-such-model"], None, ModelError),
        (["capfilt.filter={models}/cut"], None, ModelError),
        (["capfilt.filter={models}/bare"], None, ModelError),
        (["source.url_column=address"], None, SourceError),
        ([], "absent.csv", SourceError),
        ([], "empty.csv", SourceError),
        ([], "header.csv", SourceError),
        ([], "picture.parquet", SourceError),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(
    job, tmp_path, models, tiny_architecture, settings, source, kind
):
    bare, cut = models / "bare", models / "cut"
    if not bare.exists():
        shutil.copytree(tiny_architecture, bare)
        shutil.copytree(models / "filter", cut)
        weights = (cut / "model.safetensors").read_bytes()
        (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("url,caption\n")
    (tmp_path / "picture.parquet").write_bytes(b"\x89PNG\r\n\x1a\n")
    more = {"source": tmp_path / source} if source else {}
    with pytest.raises(kind) as caught:
        job("out", *(text.format(models=models) for text in settings), **more)
    assert isinstance(caught.value, CapfiltError)
    assert caught.value.mend
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(DestinationError, match=r"thesis\.txt"):
        job()
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_run_of_drops_only_is_a_data_set_without_shards(job, tmp_path):
    (tmp_path / "gone.csv").write_text("url,caption\n" + "http://127.0.0.1:9/x.png,gone\n" * 7)
    result = job(source=tmp_path / "gone.csv")
    assert (result.manifest["totals"]["rows"], result.manifest["totals"]["kept"]) == (7, 0)
    assert result.manifest["shards"] == []
    assert verify(Store(result.dest)) == []
    with pytest.raises(SourceError, match="no picture of this data set was kept"):
        shards_of(result.dest)


SMALL = ("plan.part_rows=2", "capfilt.threshold=0.0", "capfilt.batch_size=1")


def tried_again(late):
    for file in late:
        file.with_suffix(".late").rename(file)


def samples_of(folder):
    """From key to picture and what the shards say of it."""
    found = samples([str(file) for file in sorted((folder / "shards").iterdir())])
    return {sample.key: (sample.image, sample.captions, dict(sample.meta)) for sample in found}


def test_what_failed_is_tried_again_alone_and_the_rest_is_as_if_nothing_had_failed(job, moody, tmp_path):
    file, late = moody
    first = job("out", *SMALL, source=file)
    assert first.manifest["totals"]["dropped"] == {"http_status": 2, "no_url": 1}
    before = snapshot(tmp_path / "out", times=True)
    assert job("out", *SMALL, source=file, retry=["timed_out"]).manifest == first.manifest, "there is nothing to do"
    tried_again(late)
    told = []
    again = job("out", *SMALL, source=file, retry=["http_status", "timed_out"], on_progress=told.append)
    assert again.manifest["totals"]["dropped"] == {"no_url": 1}
    assert told[-1].tally.to_json() == again.manifest["totals"]
    assert (told[0].done, told[-1].done, told[-1].total) == (4, 4, 4)
    after = snapshot(tmp_path / "out", times=True)
    # Rows 2 and 6 were missing: part 1 and part 3.
    gone = {f"{kind}/0000{part}.{end}" for part in (1, 3) for kind, end in (("shards", "tar"), ("pairs", "parquet"))}
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == gone | {"parts/00001.json", "parts/00003.json"}
    assert after.keys() - before.keys() == {name.replace(".", "-1.") for name in gone}
    assert verify(Store(str(tmp_path / "out"))) == []
    job("whole", *SMALL, source=file)
    assert ledger(tmp_path / "out") == ledger(tmp_path / "whole")
    assert samples_of(tmp_path / "out") == samples_of(tmp_path / "whole")


def test_a_retry_that_died_is_finished_by_the_next_run(job, moody, tmp_path):
    file, late = moody
    job("out", *SMALL, source=file)
    tried_again(late)
    out = tmp_path / "out"
    # Two ways to die: before the new marker, when its files are there already; and after it, before the old ones went.
    shutil.copy(out / "shards/00001.tar", out / "shards/00001-1.tar")
    shutil.copy(out / "pairs/00001.parquet", out / "pairs/00001-1.parquet")
    (out / "manifest.json").unlink()
    (out / "shards" / ".00003.tar.0123456789ab.tmp").write_bytes(b"half")
    done = job("out", *SMALL, source=file, retry=["http_status"])
    assert done.manifest["totals"]["dropped"] == {"no_url": 1}
    assert not list(out.rglob(".*")), "what was being written is swept away"
    assert verify(Store(str(out))) == []
    shutil.copy(out / "shards/00000.tar", out / "shards/00000-7.tar")
    (out / "manifest.json").unlink()
    assert job("out", *SMALL, source=file).manifest["totals"] == done.manifest["totals"]
    assert verify(Store(str(out))) == []


def test_a_retry_that_was_stopped_goes_on_after_the_parts_it_has_been_over(job, moody, tmp_path):
    """Its addresses fail again, so that nothing in the parts' books tells which were tried."""
    file, _ = moody
    out, retry = tmp_path / "out", {"source": file, "retry": ["http_status"]}

    def ledgers():
        return sorted(ledger.name for ledger in (out / "pairs").iterdir())

    def stop(now):
        if "00001-1.parquet" in ledgers() or "00001-3.parquet" in ledgers():
            raise KeyboardInterrupt  # the first part of the two is committed anew

    first = job("out", *SMALL, source=file)
    with pytest.raises(KeyboardInterrupt):
        job("out", *SMALL, **retry, on_progress=stop)
    assert ledgers() == ["00000.parquet", "00001-1.parquet", "00002.parquet", "00003.parquet"]
    assert "1 parts have rows" in job("out", *SMALL, **retry, dry_run=True).plan
    assert job("out", *SMALL, **retry).manifest["totals"] == first.manifest["totals"]
    assert ledgers() == ["00000.parquet", "00001-1.parquet", "00002.parquet", "00003-1.parquet"]
    job("out", *SMALL, **retry)
    assert ledgers() == ["00000.parquet", "00001-2.parquet", "00002.parquet", "00003-2.parquet"], "a new try, of both"
    # Stopped, and brought to its end without it: the next one begins anew.
    with pytest.raises(KeyboardInterrupt):
        job("out", *SMALL, **retry, on_progress=stop)
    job("out", *SMALL, source=file)
    job("out", *SMALL, **retry)
    assert "00003-3.parquet" in ledgers()
    assert verify(Store(str(out))) == []


def test_only_reasons_that_another_try_can_take_away_are_taken(job, moody, tmp_path):
    with pytest.raises(RecipeError, match="'no_caption_kept' is no reason") as caught:
        job("out", source=moody[0], retry=["http_status", "no_caption_kept"])
    assert "timed_out" in caught.value.mend
    assert not (tmp_path / "out").exists()


def test_what_was_damaged_is_taken_away_and_done_again_and_nothing_else(job, moody, tmp_path):
    file, late = moody
    tried_again(late)
    job("out", *SMALL, source=file)
    out = tmp_path / "out"
    before, times = snapshot(out), snapshot(out, times=True)
    shard = out / "shards/00002.tar"
    shard.write_bytes(shard.read_bytes()[:-700])
    assert repair(Store(str(out))) == [2]
    job("out", *SMALL, source=file)
    assert snapshot(out) == before
    assert {name for name, seen in snapshot(out, times=True).items() if seen != times[name]} == {
        "parts/00002.json",
        "pairs/00002.parquet",
        "shards/00002.tar",
    }
    assert verify(Store(str(out))) == []


def test_with_changes_what_is_done_stays_and_the_manifest_tells(job, moody, tmp_path):
    file, late = moody
    tried_again(late)
    job("out", *SMALL, source=file)
    out = tmp_path / "out"
    (out / "parts/00003.json").unlink()
    with pytest.raises(DestinationError, match=r"capfilt\.top_p is 0\.9 there and 0\.5 now") as caught:
        job("out", *SMALL, "capfilt.top_p=0.5", source=file)
    assert "--continue-with-changes" in caught.value.mend
    before = snapshot(out, times=True)
    done = job("out", *SMALL, "capfilt.top_p=0.5", source=file, with_changes=True)
    (change,) = done.manifest["changes"]
    assert change["changes"] == ["capfilt.top_p is 0.9 there and 0.5 now"]
    assert change["parts_done_before"] == 3
    assert done.manifest["recipe"]["capfilt"]["top_p"] == 0.5
    after = snapshot(out, times=True)
    assert {name for name in before if after[name] != before[name]} <= {"pairs/00003.parquet", "shards/00003.tar"}
    assert verify(Store(str(out))) == []
    assert len(job("out", *SMALL, "capfilt.top_p=0.5", source=file).manifest["changes"]) == 1


def test_with_changes_of_the_source_the_parts_of_changed_files_are_done_again(job, moody, tmp_path):
    file, late = moody
    tried_again(late)
    job("out", *SMALL, source=file)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-1], lines[-1].replace("number 6", "the last")]) + "\n")
    with pytest.raises(DestinationError, match="other input"):
        job("out", *SMALL, source=file)
    done = job("out", *SMALL, source=file, with_changes=True)
    assert done.manifest["changes"][0]["changes"] == ["the source's files or their rows have changed since"]
    assert ledger(tmp_path / "out")[-1]["captions"][0]["text"] == "a drawing, the last"
    assert verify(Store(str(tmp_path / "out"))) == []
    file.write_text("\n".join(lines[:3]) + "\n")
    done = job("out", *SMALL, source=file, with_changes=True)
    assert done.manifest["totals"]["rows"] == 2 == len(ledger(tmp_path / "out"))
    assert len(done.manifest["changes"]) == 2
    assert verify(Store(str(tmp_path / "out"))) == []


def test_what_was_withdrawn_from_a_source_is_gone_from_the_data_set(job, moody, tmp_path):
    """Also where nothing else is left to do: the manifest, and readers, would keep to what was."""
    file, late = moody
    tried_again(late)
    head, *rows = file.read_text().splitlines()
    tables = tmp_path / "tables"
    tables.mkdir()
    for name, some in (("a.csv", rows[:4]), ("b.csv", rows[4:])):
        (tables / name).write_text("\n".join([head, *some]) + "\n")
    job("out", *SMALL, source=tables)
    before = len(list(samples(shards_of(str(tmp_path / "out")))))
    (tables / "b.csv").unlink()
    done = job("out", *SMALL, source=tables, with_changes=True)
    out = Store(str(tmp_path / "out"))
    assert done.manifest["totals"]["rows"] == 4
    assert done.manifest["changes"]
    assert verify(out) == []
    assert len(list(samples(shards_of(out.url)))) == done.manifest["totals"]["kept"] < before


def test_another_recipe_for_a_finished_data_set_is_in_its_manifest(job, moody, tmp_path):
    file, late = moody
    tried_again(late)
    job("out", *SMALL, source=file)
    done = job("out", *SMALL, "capfilt.top_p=0.5", source=file, with_changes=True)
    assert done.manifest["recipe"]["capfilt"]["top_p"] == 0.5
    assert done.manifest["changes"][0]["parts_done_before"] == done.manifest["parts"]
    assert done.manifest["changes"] == json.loads((tmp_path / "out" / "changes.json").read_text())


def test_card_and_report_are_of_the_manifest_though_the_run_that_changed_the_parts_died(job, moody, tmp_path):
    """`--retry`, cut off between its last part and the manifest, and then a run without it."""
    file, late = moody
    job("out", *SMALL, source=file)
    tried_again(late)
    out = tmp_path / "out"
    kept = {name: (out / name).read_bytes() for name in ("README.md", "croissant.json", "report.html")}
    job("out", *SMALL, source=file, retry=["http_status"])
    for name, data in kept.items():
        assert (out / name).read_bytes() != data
        (out / name).write_bytes(data)
    (out / "manifest.json").unlink()
    job("out", *SMALL, source=file)
    assert all((out / name).read_bytes() != data for name, data in kept.items())
    names = {shard.name for shard in (out / "shards").iterdir()}
    assert all(name in (out / "croissant.json").read_text() for name in names)


def test_what_dedup_did_stays_in_the_manifest_whatever_is_done_again(job, moody, tmp_path, monkeypatch):
    """By a second try, by one that is cut off, after a repair, and with changes."""
    file, late = moody
    job("out", *SMALL, source=file)
    out = tmp_path / "out"
    dedup(str(out), near=1)
    tried_again(late[:1])
    assert job("out", *SMALL, source=file, retry=["http_status"]).manifest["dedup"] == {"near": 1}

    tried_again(late[1:])
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["capfilt.bootstrap"], "_finish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            job("out", *SMALL, source=file, retry=["http_status"])
    assert not (out / "manifest.json").exists()
    assert job("out", *SMALL, source=file).manifest["dedup"] == {"near": 1}

    shard = next((out / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-700])
    assert repair(Store(str(out)))
    assert job("out", *SMALL, source=file).manifest["dedup"] == {"near": 1}

    dedup(str(out), near=-1)
    done = job("out", *SMALL, "capfilt.top_p=0.5", source=file, with_changes=True)
    assert done.manifest["changes"]
    assert done.manifest["dedup"] == {"near": -1}
    assert verify(Store(str(out))) == []
    assert not (out / "dedup.json").exists()


def test_a_destination_within_its_source_is_refused(job, tmp_path):
    """The next run would take what this one wrote for rows of the source."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    picture(pictures / "a.png", "red", 1)
    (pictures / "a.txt").write_text("a red circle")
    for dest in ("pictures/out", "pictures", "pictures/deep/out"):
        with pytest.raises(DestinationError, match="lies in the source"):
            job(dest, source=pictures)
    assert sorted(file.name for file in pictures.iterdir()) == ["a.png", "a.txt"]
    assert job("pictures/_out", source=pictures).manifest["totals"]["rows"] == 1
    assert job("pictures/_out", source=pictures).manifest["totals"]["rows"] == 1


def test_a_plan_is_refused_as_the_run_would_be_and_tells_what_the_run_would_do(job, moody, tmp_path):
    file, late = moody
    tried_again(late)
    job("out", *SMALL, source=file)
    told = job("out", *SMALL, "capfilt.top_p=0.5", source=file, with_changes=True, dry_run=True)
    assert "0 to do" in told.plan
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "letter.txt").write_text("x")
    with pytest.raises(DestinationError, match="was not made by capfilt"):
        job("strange", *SMALL, source=file, dry_run=True)

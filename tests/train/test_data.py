"""Batches: what cannot be decoded is told of and replaced, errors of loader processes arrive whole."""

from __future__ import annotations

import csv
import io
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from capfilt.errors import DataError, RecipeError, TrainingError
from capfilt.med.filter import MEDFilter
from capfilt.med.model import MED
from capfilt.med.tokenizer import MEDTokenizer
from capfilt.shards.sample import Sample
from capfilt.shards.tar import write_tar
from capfilt.train.config import DataConfig, ObjectiveConfig, OptimConfig, TrainConfig
from capfilt.train.data import BatchStream, Raw, Shape, loader
from capfilt.train.pairs import Pairs, Place
from capfilt.train.run import train
from tests.conftest import shape_picture


def config(architecture: Path, shard: str, out: Path, **changes: object) -> TrainConfig:
    start = TrainConfig(
        model=str(architecture),
        out=str(out),
        steps=4,
        batch_size=16,
        log_every=1,
        checkpoint_every=2,
        data=DataConfig(shards=(shard,), min_scale=0.6, shuffle_buffer=16),
        optim=OptimConfig(lr=1e-3, warmup_steps=0, decay="step"),
        objective=ObjectiveConfig(queue_size=32),
        device="cpu",
    )
    return replace(start, **changes)  # type: ignore[arg-type]


@pytest.fixture
def damaged(tmp_path: Path) -> str:
    """40 pictures, of which two are no pictures."""
    samples = []
    for i in range(40):
        image = shape_picture("red", "circle", random.Random(i))
        caption = {"text": f"a red circle {i}", "origin": "human", "itm": None, "itc": None, "kept": True}
        samples.append(Sample(f"{i:03d}", image[:60] if i in (7, 23) else image, [caption], {}))
    with (tmp_path / "s-00000.tar").open("wb") as file:
        write_tar(file, samples)  # type: ignore[arg-type]
    return str(tmp_path / "s-00000.tar")


def test_a_picture_that_cannot_be_decoded_is_counted_once_and_named(
    tiny_architecture: Path, damaged: str, tmp_path: Path
) -> None:
    result = train(config(tiny_architecture, damaged, tmp_path / "run", steps=8))
    assert result.skipped == 2
    with (tmp_path / "run" / "skipped.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["name"] for row in rows) == [f"{damaged}#007", f"{damaged}#023"]
    assert all("cannot be decoded" in row["reason"] for row in rows)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
@pytest.mark.parametrize("loaders", [0, 1])
def test_strict_stops_with_the_name_and_the_mend_whichever_process_finds_it(
    loaders: int, tiny_architecture: Path, damaged: str, tmp_path: Path
) -> None:
    run = config(tiny_architecture, damaged, tmp_path / "run", steps=8)
    with pytest.raises(DataError) as caught:
        train(replace(run, data=replace(run.data, strict=True, loaders=loaders)))
    assert caught.value.where in (f"{damaged}#007", f"{damaged}#023")
    assert "capfilt verify" in caught.value.mend


def test_a_batch_without_one_good_picture_stops_the_run(tiny_architecture: Path, tmp_path: Path) -> None:
    caption = {"text": "a red circle", "origin": "human", "itm": None, "itc": None, "kept": True}
    with (tmp_path / "s-00000.tar").open("wb") as file:
        head = shape_picture("red", "circle", random.Random(0))[:60]
        write_tar(file, [Sample(f"{i}", head, [caption], {}) for i in range(20)])  # type: ignore[list-item]
    with pytest.raises(TrainingError, match="no picture of a whole batch can be decoded"):
        train(config(tiny_architecture, str(tmp_path), tmp_path / "run"))


def test_pieces_of_a_batch_add_up_to_the_gradient_of_the_whole(still: Path, shape_shard: Path, tmp_path: Path) -> None:
    """LM compares no pairs: pieces that hold as many words take the steps of the whole."""
    whole = config(still, str(shape_shard), tmp_path / "whole", task="captioner")
    as_they_are = {"min_scale": 1.0, "flip": False, "rand_augment": False, "origins": ("human",)}
    whole = replace(whole, data=replace(whole.data, **as_they_are))  # type: ignore[arg-type]
    pieces = replace(whole, out=str(tmp_path / "pieces"), accumulate=2)
    one, two = (MED.load(train(c).folder).state_dict() for c in (whole, pieces))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    start = MED.new(still).state_dict()
    assert not torch.allclose(one["text.lm_head.bias"], start["text.lm_head.bias"], atol=1e-3)
    with pytest.raises(RecipeError, match="a batch of 16 is not 5 equal pieces"):
        replace(whole, accumulate=5)


def test_layers_computed_again_change_no_loss(tiny_architecture: Path, shape_shard: Path, tmp_path: Path) -> None:
    """But for rounding: keys that are not held on to are made anew, and their gradients added up in another order."""
    plain = config(tiny_architecture, str(shape_shard), tmp_path / "plain")
    again = replace(plain, out=str(tmp_path / "again"), gradient_checkpointing=True)
    train(plain)
    train(again)
    for one, two in zip(*(losses(run) for run in (plain, again)), strict=True):
        assert two == pytest.approx(one, rel=1e-4)


def losses(run: TrainConfig) -> list[dict[str, float]]:
    with (Path(run.out) / "log.csv").open(newline="") as file:
        return [{name: float(row[name]) for name in ("step", "itc", "itm", "lm")} for row in csv.DictReader(file)]


def test_the_pairs_of_a_batch_that_was_not_finite_are_written_down(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    run = config(tiny_architecture, str(shape_shard), tmp_path / "run", steps=30, log_every=10, checkpoint_every=30)
    wild = replace(run, optim=OptimConfig(lr=1.0, min_lr=1.0, warmup_lr=1.0, warmup_steps=0, weight_decay=10.0))
    model = MED.new(tiny_architecture)
    with torch.no_grad():
        model.itm_head.bias.fill_(1e38)
    model.save(tmp_path / "wild")
    with pytest.raises(TrainingError, match="not finite at step"):
        train(replace(wild, init=str(tmp_path / "wild")))
    told = json.loads((tmp_path / "run" / "not-finite.json").read_text())
    assert 1 <= told["step"] <= 30
    assert len(told["pairs"]) == 16
    assert all(name.startswith(f"{shape_shard}#") for name in told["pairs"])


def test_held_out_losses_leave_the_run_as_it_is_and_the_best_model_is_kept(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    plain = config(tiny_architecture, str(shape_shard), tmp_path / "plain", steps=6)
    held = replace(plain, out=str(tmp_path / "held"), held_out=(str(shape_shard),), held_out_batches=2)
    one, result = train(plain), train(held)
    mine, theirs = MED.load(one.folder).state_dict(), MED.load(result.folder).state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    with (tmp_path / "held" / "held-out.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [row["step"] for row in rows] == [2, 4, 6]
    sums = [row["itc"] + row["itm"] + row["lm"] for row in rows]
    assert result.best_step == rows[sums.index(min(sums))]["step"]
    assert MED.load(tmp_path / "held" / "best").config == MED.load(result.folder).config


def test_as_many_checkpoints_are_kept_as_asked(tiny_architecture: Path, shape_shard: Path, tmp_path: Path) -> None:
    run = config(tiny_architecture, str(shape_shard), tmp_path / "run", steps=5, checkpoint_every=1, keep=3)
    train(run)
    kept = sorted(folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000003", "step-00000004", "step-00000005"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # inductor's own
def test_compiled_layers_give_the_losses_of_plain_ones(still: Path, shape_shard: Path, tmp_path: Path) -> None:
    plain = config(still, str(shape_shard), tmp_path / "plain", steps=4)
    fused = replace(plain, out=str(tmp_path / "fused"), compile=True)
    train(plain)
    train(fused)
    # Not the weights: AdamW makes a whole step of a gradient that is nothing but rounding.
    for mine, theirs in zip(losses(plain), losses(fused), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4)


def stream(pairs: Pairs, tokenizer: MEDTokenizer, rows: slice, **changes: object) -> list[Raw]:
    """Three batches of 16 pairs, or of their ``rows``."""
    made = BatchStream(pairs, tokenizer, Shape(size=32, batch_size=16, rows=rows), seed=4, **changes)  # type: ignore[arg-type]
    return [raw for raw in islice(made, 3) if isinstance(raw, Raw)]


def shown(raw: Raw, tokenizer: MEDTokenizer) -> dict[int, str]:
    """The boilerplate beside a batch, by row."""
    if raw.unmatched is None:
        return {}
    said = [tokenizer.text(ids.tolist()) for ids in raw.unmatched.tokens.ids]
    return dict(zip(raw.unmatched.rows.tolist(), said, strict=True))


def test_boilerplate_stands_beside_its_share_of_the_pictures_the_same_in_any_process(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    (tmp_path / "boilerplate.txt").write_text("a white green\non a red\n", encoding="utf-8")
    data = DataConfig(shards=(str(shape_shard),), boilerplate=str(tmp_path / "boilerplate.txt"), boilerplate_share=0.4)
    tokenizer = MEDTokenizer.load(tiny_architecture)
    pairs = Pairs(data)
    pairs.count()
    whole = [shown(raw, tokenizer) for raw in stream(pairs, tokenizer, slice(0, 16))]
    assert {text for rows in whole for text in rows.values()} == {"a white green", "on a red"}
    assert 8 < sum(map(len, whole)) < 30  # of 48, 0.4
    halves = [[shown(raw, tokenizer) for raw in stream(pairs, tokenizer, slice(at, at + 8))] for at in (0, 8)]
    assert whole == [
        first | {row + 8: text for row, text in second.items()} for first, second in zip(*halves, strict=True)
    ]
    assert whole[1:] == [shown(raw, tokenizer) for raw in stream(pairs, tokenizer, slice(0, 16), skip=1)][:2]
    for share, count in ((0.0, 0), (1.0, 16)):
        some = Pairs(replace(data, boilerplate_share=share))
        some.count()
        assert [len(shown(raw, tokenizer)) for raw in stream(some, tokenizer, slice(0, 16))] == [count] * 3


def test_a_filter_learns_that_boilerplate_matches_no_picture(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    (tmp_path / "boilerplate.txt").write_text("white on white\n", encoding="utf-8")
    scores = []
    for told in (None, str(tmp_path / "boilerplate.txt")):
        run = config(tiny_architecture, str(shape_shard), tmp_path / f"run-{told is None}", task="filter", steps=32)
        train(replace(run, data=replace(run.data, boilerplate=told), optim=replace(run.optim, lr=3e-3)))
        judge = MEDFilter.load(tmp_path / f"run-{told is None}" / "model", dtype=torch.float32)
        pictures = [Image.open(io.BytesIO(shape_picture("red", "circle", random.Random(i)))) for i in range(4)]
        scores.append([score[0].itm for score in judge.score(pictures, [["white on white"]] * 4)])
    assert max(scores[1]) < 0.75 * min(scores[0])


def chunked(kind: bytes, data: bytes) -> bytes:
    """A PNG of a red circle with one more chunk, whose checksum is right."""
    out = io.BytesIO()
    Image.open(io.BytesIO(shape_picture("red", "circle", random.Random(0)))).convert("RGB").save(out, "PNG")
    whole = out.getvalue()
    chunk = len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    return whole[:-12] + chunk + whole[-12:]


def shard_of(file: Path, images: list[bytes]) -> str:
    caption = {"text": "a red circle", "origin": "human", "itm": None, "itc": None, "kept": True}
    samples = [Sample(f"{i:03d}", image, [caption], {}) for i, image in enumerate(images)]
    with file.open("wb") as out:
        write_tar(out, samples)  # type: ignore[arg-type]
    return str(file)


def test_whatever_a_parser_raises_on_a_picture_costs_that_picture(tiny_architecture: Path, tmp_path: Path) -> None:
    """Of an empty colour profile it is an IndexError, and the run stopped at the same picture again and again."""
    good = shape_picture("red", "circle", random.Random(1))
    bad = chunked(b"iCCP", b"")
    with pytest.raises(IndexError):
        Image.open(io.BytesIO(bad)).convert("RGB")
    shard = shard_of(tmp_path / "s-00000.tar", [good, bad, *[good] * 6])
    result = train(config(tiny_architecture, shard, tmp_path / "run", batch_size=4, steps=4))
    assert result.skipped == 1
    assert "#001" in (tmp_path / "run" / "skipped.csv").read_text()


def test_held_out_pictures_that_cannot_be_decoded_are_told_and_too_few_stop_the_run_at_its_start(
    tiny_architecture: Path, damaged: str, shape_shard: Path, tmp_path: Path
) -> None:
    """Of nothing measured the sum is 0, which no later model beats."""
    good = shape_picture("red", "circle", random.Random(1))
    few = shard_of(tmp_path / "few-00000.tar", [good[:60], *[good] * 15])
    run = config(tiny_architecture, str(shape_shard), tmp_path / "run")
    with pytest.raises(TrainingError, match="fewer pairs that can be decoded than a batch of 16"):
        train(replace(run, held_out=(few,)))
    assert not (tmp_path / "run" / "best").exists()
    result = train(replace(run, out=str(tmp_path / "more"), held_out=(damaged,)))
    assert (result.skipped, result.best_step is None) == (2, False)
    assert f"{damaged}#023" in (tmp_path / "more" / "skipped.csv").read_text()


def test_a_run_does_not_go_on_with_another_number_of_pairs(tiny_architecture: Path, tmp_path: Path) -> None:
    """A shard that cannot be read just now would end it early, with another decay."""
    good = shape_picture("red", "circle", random.Random(1))
    shards = [shard_of(tmp_path / f"s-0000{i}.tar", [good] * 16) for i in range(2)]
    run = config(tiny_architecture, shards[0], tmp_path / "run", steps=2)
    both = replace(run, data=replace(run.data, shards=(str(tmp_path / "s-*.tar"),)))
    train(both)
    whole = Path(shards[1]).read_bytes()
    Path(shards[1]).write_bytes(whole[:600])
    with pytest.raises(TrainingError, match="held 32 pairs an epoch when the run began, and hold 16 now"):
        train(replace(both, steps=4))
    Path(shards[1]).write_bytes(whole)
    assert train(replace(both, steps=4)).steps == 4


def test_texts_are_cut_to_the_models_positions_and_loaders_have_pairs(
    tiny_architecture: Path, shape_shard: Path, tmp_path: Path
) -> None:
    caption = {"text": "a red circle on white " * 20, "origin": "human", "itm": None, "itc": None, "kept": True}
    pictures = [shape_picture("red", "circle", random.Random(i)) for i in (0, 1)]
    with (tmp_path / "long-00000.tar").open("wb") as out:
        write_tar(out, [Sample(str(i), picture, [caption], {}) for i, picture in enumerate(pictures)])  # type: ignore[list-item]
    run = config(tiny_architecture, str(tmp_path / "long-00000.tar"), tmp_path / "run", batch_size=2, steps=1)
    assert train(replace(run, data=replace(run.data, max_tokens=100))).steps == 1
    picture = Image.new("RGB", (32, 32), "red")
    ((score,),) = MEDFilter(MED.load(tmp_path / "run" / "model")).score([picture], [["a red circle on white " * 20]])
    assert 0 <= score.itm <= 1
    with pytest.raises(TrainingError, match="2 pairs an epoch are too few for 3 loader processes"):
        train(replace(run, out=str(tmp_path / "other"), data=replace(run.data, loaders=3)))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
@pytest.mark.parametrize("loaders", [0, 2])
def test_batches_of_streams_are_the_same_however_many_processes_and_wherever_they_go_on(
    loaders: int, still: Path, tmp_path: Path
) -> None:
    """Three streams of 12 rows, by one process, by two (a stream lies across both) and by six (two in each stream)."""
    tokenizer = MED.new(still).tokenizer
    for at in range(7):
        caption = {"text": "a red circle", "origin": "human", "itm": None, "itc": None, "kept": True}
        pictures = [shape_picture("red", "circle", random.Random(20 * at + i), side=16) for i in range(11)]
        with (tmp_path / f"s-{at:05d}.tar").open("wb") as file:
            write_tar(file, [Sample(f"{at}-{i}", picture, [caption], {}) for i, picture in enumerate(pictures)])  # type: ignore[list-item]
    pairs = Pairs(DataConfig(shards=(str(tmp_path),), shuffle_buffer=12, streams=3, loaders=loaders))
    pairs.count()

    def batches(processes: int, rank: int, *, skip: int = 0, places: dict[int, Place] | None = None) -> Iterator[Raw]:
        rows = 12 // processes
        shape = Shape(size=16, batch_size=12, rows=slice(rank * rows, (rank + 1) * rows))
        stream = BatchStream(pairs, tokenizer, shape, seed=5, skip=skip, places=places)
        return islice(loader(stream, processes=loaders, pin=False), 12 - skip)

    alone = list(batches(1, 0))
    assert len({name for raw in alone for name in raw.names}) == 77, "twelve batches are an epoch and more"
    told: dict[int, Place] = {}
    for processes in (2, 6):
        shared = [list(batches(processes, rank)) for rank in range(processes)]
        for number, raw in enumerate(alone):
            assert sum((own[number].names for own in shared), ()) == raw.names
            assert torch.equal(torch.cat([own[number].pixels for own in shared]), raw.pixels)
            merged = {key: place for own in shared for key, place in own[number].places.items()}
            assert merged == dict(raw.places)
    for number, raw in enumerate(alone[:-2], 1):
        told |= raw.places
        again = list(batches(2, 1, skip=number, places=dict(told)))[:2]
        assert [own.names for own in again] == [raw.names[6:] for raw in alone[number : number + 2]]
    assert sorted(told) == list(range(3 * max(1, loaders)))

"""The stage that captions and filters: verdicts, origins, and captions that care for nothing but the row."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Lock

import pyarrow as pa
import pytest
import torch

from capfilt import records
from capfilt.errors import ModelError
from capfilt.med.model import MED
from capfilt.records import Drop, web_caption
from capfilt.shards.read import samples
from capfilt.stages.capfilt import CapFilt
from capfilt.stages.config import CapFiltConfig
from capfilt.stages.worker import CapFiltWorker, ahead, batches_of, open_worker, seed_of, side_by_side


@pytest.fixture(scope="module")
def folders(tiny_architecture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A captioner and a filter with random weights, large enough to have opinions."""
    out = []
    for seed, name in enumerate(("captioner", "filter")):
        torch.manual_seed(seed)
        model = MED.new(tiny_architecture)
        with torch.no_grad():
            for p in [*model.text.parameters(), *model.itm_head.parameters()]:
                if p.dim() > 1:
                    p.mul_(6)
        folder = tmp_path_factory.mktemp(name)
        model.save(folder)
        out.append(str(folder))
    return out[0], out[1]


@pytest.fixture
def config(folders: tuple[str, str]) -> CapFiltConfig:
    return CapFiltConfig(captioner=folders[0], filter=folders[1], max_length=12, batch_size=4, device="cpu")


def table(pictures: list[bytes]) -> pa.Table:
    rows = [
        {"id": f"id{i}", "part": 0, "row": i, "image": data, "captions": [web_caption(f"a red circle {i}")]}
        for i, data in enumerate(pictures)
    ]
    rows.append({"id": "x", "part": 0, "row": len(rows), "captions": [web_caption("x")], "drop": Drop.UNREACHABLE})
    return records.table_of(rows)


@pytest.fixture(scope="module")
def pictures(shape_shard: Path) -> list[bytes]:
    return [sample.image for sample in list(samples([str(shape_shard)]))[:10]]


def captions_of(config: CapFiltConfig, rows: pa.Table) -> dict[str, list[dict[str, object]]]:
    done = CapFilt(capfilt=config).open()(rows)
    assert done.schema == records.SCHEMA
    return {row["id"]: row["captions"] for row in done.to_pylist()}


def test_each_picture_gets_a_synthetic_caption_and_every_text_a_verdict(
    config: CapFiltConfig, pictures: list[bytes]
) -> None:
    got = captions_of(config, table(pictures))
    assert got.pop("x") == [{**web_caption("x")}]
    for captions in got.values():
        assert [c["origin"] for c in captions] == ["web", "synthetic"]
        assert all(0 <= c["itm"] <= 1 and -1 <= c["itc"] <= 1 for c in captions)
        assert all(c["kept"] == (c["itm"] >= 0.5) for c in captions)
    strict = captions_of(replace(config, threshold=1.0), table(pictures))
    assert not any(c["kept"] for id_ in got for c in strict[id_] if c["itm"] < 1)


def test_captions_care_neither_for_batches_nor_for_order(config: CapFiltConfig, pictures: list[bytes]) -> None:
    rows = table(pictures)
    together = captions_of(config, rows)
    mixed = captions_of(replace(config, batch_size=3), rows.take([7, 2, 9, 0, 10, 5, 1, 8, 3, 6, 4]))
    text = lambda got: {id_: [c["text"] for c in row] for id_, row in got.items()}  # noqa: E731
    assert text(together) == text(mixed)
    for id_, row in together.items():
        for a, b in zip(row, mixed[id_], strict=True):
            assert a["itm"] == pytest.approx(b["itm"], abs=1e-5)  # batches of other shapes add up in another order


def test_batches_side_by_side_give_what_they_give_one_by_one(config: CapFiltConfig, pictures: list[bytes]) -> None:
    rows = table([*pictures[:6], b"\xff\xd8\xff no picture", *pictures[6:]])
    alone = open_worker(config)
    two = CapFiltWorker(replace(config, batch_size=3), alone.captioner, alone.judge, turns=2)
    one_by_one, together = alone(rows).to_pylist(), two(rows).to_pylist()
    for a, b in zip(one_by_one, together, strict=True):
        assert (a["id"], a["drop"]) == (b["id"], b["drop"])
        assert [c["text"] for c in a["captions"]] == [c["text"] for c in b["captions"]]
    assert [row["id"] for row in together if row["drop"] == "quarantined"] == ["id6"]


def test_another_seed_gives_other_captions(config: CapFiltConfig, pictures: list[bytes]) -> None:
    one, two = (captions_of(replace(config, seed=s), table(pictures)) for s in (0, 1))
    assert one != two


def test_several_captions_an_image_without_repeats(config: CapFiltConfig, pictures: list[bytes]) -> None:
    got = captions_of(replace(config, captions_per_image=4), table(pictures))
    counts = [len([c for c in row if c["origin"] == "synthetic"]) for row in got.values()]
    assert max(counts) > 1
    for row in got.values():
        texts = [c["text"] for c in row]
        assert len(set(texts)) == len(texts)


def test_captioner_alone_and_filter_alone(config: CapFiltConfig, pictures: list[bytes]) -> None:
    alone = captions_of(replace(config, filter=None), table(pictures))
    assert all(c["itm"] is None and c["kept"] for id_, row in alone.items() if id_ != "x" for c in row)
    judged = captions_of(replace(config, captioner=None), table(pictures))
    assert all(len(row) == 1 for row in judged.values())


def test_human_texts_join_unfiltered_and_empty_ones_do_not(config: CapFiltConfig, pictures: list[bytes]) -> None:
    rows = table(pictures[:2])
    captions = [[web_caption("a red circle", "human")], [web_caption("...")], [web_caption("x")]]
    got = captions_of(replace(config, captioner=None, threshold=1.0), records.replace(rows, {"captions": captions}))
    assert (got["id0"][0]["kept"], got["id1"][0]["kept"]) == (True, False)


def test_a_filter_that_gives_no_numbers_is_named(config: CapFiltConfig, pictures: list[bytes], tmp_path: Path) -> None:
    broken = MED.load(Path(str(config.filter)))
    broken.itm_head.bias.fill_(float("nan"))
    broken.save(tmp_path)
    with pytest.raises(ModelError, match="not a number"):
        captions_of(replace(config, filter=str(tmp_path)), table(pictures))


@pytest.mark.parametrize("decoding", ["nucleus", "beam", "greedy"])
@pytest.mark.parametrize(
    ("half", "number", "says"),
    [
        ("vision", "nan", "image encoder gave numbers that are none in float32"),
        ("text", "nan", "decoder gave numbers that are none in float32"),
        ("text", "inf", "decoder gave numbers that are none in float32"),
    ],
)
def test_a_captioner_that_gives_no_numbers_writes_nothing(
    half: str, number: str, says: str, decoding: str, config: CapFiltConfig, pictures: list[bytes], tmp_path: Path
) -> None:
    broken = MED.load(Path(str(config.captioner)))
    last = [p for _, p in broken.get_submodule(half).named_parameters()][-1]
    last.fill_(float(number))
    broken.save(tmp_path)
    with pytest.raises(ModelError, match=says):
        captions_of(replace(config, captioner=str(tmp_path), decoding=decoding), table(pictures))


def test_a_picture_that_no_model_bears_is_quarantined_and_the_others_are_as_without_it(
    config: CapFiltConfig, pictures: list[bytes]
) -> None:
    rows = table(pictures)
    images = [
        b"\xff\xd8\xff no picture" if at == 3 else image for at, image in enumerate(rows.column("image").to_pylist())
    ]
    done = CapFilt(capfilt=config).open()(records.replace(rows, {"image": images})).to_pylist()
    assert [(row["id"], row["drop"]) for row in done if row["drop"] == "quarantined"] == [("id3", "quarantined")]
    assert done[3]["detail"].startswith("Its picture cannot be decoded: ")
    whole = captions_of(config, rows)
    for row in done:
        if row["id"] != "id3":
            assert [c["text"] for c in row["captions"]] == [c["text"] for c in whole[row["id"]]]


def test_an_unknown_model_is_a_users_error(config: CapFiltConfig) -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        CapFilt(capfilt=replace(config, filter="no-such-model")).open()


def test_seeds_differ_by_row_run_and_number() -> None:
    seeds = {seed_of(row, seed, k) for row in ("a", "b") for seed in (0, 1) for k in (0, 1)}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**128 for seed in seeds)


def test_batches_come_in_order_whatever_their_number() -> None:
    with ThreadPoolExecutor(1) as pool:
        for count in range(5):
            batches = [[i] for i in range(count)]
            assert [rows for rows, _ in ahead(pool, lambda rows: [], batches)] == batches


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17, 40])
def test_batches_are_few_and_even(count: int) -> None:
    rows = list(range(100, 100 + count))
    even, ramped = batches_of(rows, 8), batches_of(rows, 8, ramp=True)
    for batches in (even, ramped):
        assert [row for batch in batches for row in batch] == rows
        assert all(0 < len(batch) <= 8 for batch in batches)
    assert len(even) == -(-count // 8)
    assert max(map(len, even), default=0) - min(map(len, even), default=0) <= 1
    if count > 2:
        assert len(ramped[0]) == 2, "the first, for whose pictures a GPU waits, is a quarter"


def test_side_by_side_has_so_many_under_way_and_keeps_the_order() -> None:
    under_way, most, lock = 0, 0, Lock()
    both = Barrier(2, timeout=10)

    def work(batch: list[int]) -> int:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        both.wait()  # nobody goes on alone
        with lock:
            under_way -= 1
        return batch[0]

    batches = [[at] for at in range(6)]
    with ThreadPoolExecutor(2) as pool:
        assert list(side_by_side(pool, 2, work, batches)) == [([at], at) for at in range(6)]
    assert most == 2

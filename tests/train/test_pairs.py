"""The order of pairs: as often as weights say, spread over the epoch, taken up again at the exact place."""

from __future__ import annotations

import os
import random
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, islice, product, takewhile
from pathlib import Path

import pytest

from capfilt.errors import DataError, SourceError, StoreError, TrainingError
from capfilt.shards.read import samples
from capfilt.shards.sample import Sample
from capfilt.shards.tar import write_tar
from capfilt.train.config import DataConfig, MixConfig
from capfilt.train.pairs import Pair, Pairs, Place
from tests.conftest import shape_picture

Make = Callable[..., str]


def said(text: str, origin: str, itm: float | None = None, *, kept: bool = True) -> dict[str, object]:
    return {"text": text, "origin": origin, "itm": itm, "itc": None, "kept": kept}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes shards of so many pictures, each with one caption ``ORIGIN NUMBER``."""
    picture = shape_picture("red", "circle", random.Random(0))

    def write(origin: str, count: int, *, shards: int = 1, itm: float | None = None) -> str:
        folder = tmp_path / origin
        folder.mkdir()
        for shard in range(shards):
            with (folder / f"s-{shard:05d}.tar").open("wb") as file:
                numbers = range(shard, count, shards)
                told = [(f"{i:05d}", said(f"{origin} {i}", origin, itm)) for i in numbers]
                write_tar(file, [Sample(key, picture, [caption], {}) for key, caption in told])  # type: ignore[list-item]
        return str(folder)

    return write


def counted(config: DataConfig) -> Pairs:
    pairs = Pairs(config)
    pairs.count()
    return pairs


def stream(
    pairs: Pairs,
    *,
    worker: int = 0,
    workers: int = 1,
    start: Place = Place(),  # noqa: B008
    stream: int = 0,
) -> Iterator[tuple[Pair, Place]]:
    return pairs.shuffled(seed=3, worker=worker, workers=workers, start=start, stream=stream)


def texts(pairs: Pairs, number: int) -> list[str]:
    return [pair.text for pair, _ in islice(stream(pairs), number)]


def test_each_pair_of_an_epoch_comes_once_in_another_order_each_time(make: Make) -> None:
    pairs = counted(DataConfig(shards=(make("web", 60, shards=3),), shuffle_buffer=16))
    first, second = texts(pairs, 120)[:60], texts(pairs, 120)[60:]
    assert sorted(first) == sorted(second) == sorted(f"web {i}" for i in range(60))
    assert first != second


def test_weights_say_how_often_an_epoch_sees_a_pair(make: Make) -> None:
    human, web = make("human", 20), make("web", 40)
    mix = (MixConfig(shards=(human,), weight=2.5), MixConfig(shards=(web,), weight=0.25))
    pairs = counted(DataConfig(mix=mix, shuffle_buffer=8))
    assert pairs.count() == 20 * 2.5 + 40 * 0.25
    four = [text for pair, place in stream_until(pairs, epochs=4) for text in [pair.text]]
    times = Counter(four)
    assert {times[f"human {i}"] for i in range(20)} == {10}
    assert {times[f"web {i}"] for i in range(40)} == {1}


def stream_until(pairs: Pairs, *, epochs: int) -> Iterator[tuple[Pair, Place]]:
    for pair, place in stream(pairs):
        if place.epoch == epochs:
            return
        yield pair, place


def test_sources_are_spread_over_the_epoch_and_not_one_behind_the_other(make: Make) -> None:
    mix = (MixConfig(shards=(make("human", 50),)), MixConfig(shards=(make("web", 150),)))
    pairs = counted(DataConfig(mix=mix, shuffle_buffer=4))
    said_ = texts(pairs, 200)
    for at in range(0, 200, 50):
        assert 4 <= sum(text.startswith("human") for text in said_[at : at + 50]) <= 24


def test_one_data_set_is_mixed_by_origin_and_score(tmp_path: Path) -> None:
    picture = shape_picture("red", "circle", random.Random(0))
    captions = [
        said("good web", "web", 0.9),
        said("weak web", "web", 0.6),
        said("rejected web", "web", 0.2, kept=False),
        said("synthetic", "synthetic", 0.7),
        said("human", "human"),
    ]
    with (tmp_path / "s-00000.tar").open("wb") as file:
        write_tar(file, [Sample("0", picture, captions, {})])  # type: ignore[list-item]
    mix = (
        MixConfig(origins=("human",), weight=3),
        MixConfig(origins=("web",), min_itm=0.8),
        MixConfig(origins=("web", "synthetic"), kept_only=False, min_itm=0.1, captions_per_image=2),
    )
    pairs = counted(DataConfig(shards=(str(tmp_path),), mix=mix))
    assert Counter(texts(pairs, 6)) == {"human": 3, "good web": 2, "weak web": 1}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_place_is_exact_in_the_middle_of_an_epoch_and_behind_it(make: Make, workers: int) -> None:
    mix = (MixConfig(shards=(make("human", 17, shards=2),), weight=1.5), MixConfig(shards=(make("web", 31),)))
    for worker in range(workers):
        fresh = stream(counted(DataConfig(mix=mix, shuffle_buffer=5)), worker=worker, workers=workers)
        all_of = list(islice(fresh, 90))
        for behind in (1, 13, 55, 80):
            place = all_of[behind - 1][1]
            again = stream(counted(DataConfig(mix=mix, shuffle_buffer=5)), worker=worker, workers=workers, start=place)
            assert [pair.name for pair, _ in islice(again, 10)] == [p.name for p, _ in all_of[behind : behind + 10]]


def test_workers_share_the_pairs_of_an_epoch(make: Make) -> None:
    config = DataConfig(shards=(make("web", 30, shards=2),), shuffle_buffer=7)
    shares = [
        [p.text for p, place in islice(stream(counted(config), worker=w, workers=3), 10) if place.epoch == 0]
        for w in range(3)
    ]
    assert sorted(text for share in shares for text in share) == sorted(f"web {i}" for i in range(30))


def test_streams_share_the_pairs_of_an_epoch_and_read_no_other_shards(make: Make) -> None:
    mix = (MixConfig(shards=(make("human", 28, shards=7),), weight=1.5), MixConfig(shards=(make("web", 60, shards=6),)))
    config = DataConfig(mix=mix, shuffle_buffer=9, streams=3)
    shards: tuple[list[set[str]], list[set[str]]] = ([], [])
    seen = Counter[str]()
    for worker, number in product(range(2), range(3)):
        pairs = counted(config)
        of_two = list(takewhile(lambda of: of[1].epoch < 2, stream(pairs, worker=worker, workers=2, stream=number)))
        for epoch in range(2):
            shards[epoch].append({pair.name.partition("#")[0] for pair, place in of_two if place.epoch == epoch})
        seen.update(pair.text for pair, _ in of_two)
        assert next(place.pairs for _, place in of_two if place.epoch == 1) == 1
    for dealt in shards:
        assert all(len(one & other) == 0 for one, other in combinations(dealt, 2))
        assert len(set.union(*dealt)) == 13
    assert shards[0] != shards[1]
    assert {seen[f"human {i}"] for i in range(28)} == {3}
    assert {seen[f"web {i}"] for i in range(60)} == {2}


def test_the_place_of_a_stream_is_exact(make: Make) -> None:
    mix = (MixConfig(shards=(make("human", 17, shards=4),), weight=1.5), MixConfig(shards=(make("web", 31, shards=5),)))
    config = DataConfig(mix=mix, shuffle_buffer=10, streams=2)
    for worker, number in product(range(2), range(2)):
        all_of = list(islice(stream(counted(config), worker=worker, workers=2, stream=number), 60))
        for behind in (1, 13, 35):
            place = all_of[behind - 1][1]
            again = stream(counted(config), worker=worker, workers=2, stream=number, start=place)
            assert [pair.name for pair, _ in islice(again, 10)] == [p.name for p, _ in all_of[behind : behind + 10]]


def test_each_epoch_deals_the_shards_anew_as_evenly_as_they_can_be(make: Make) -> None:
    """Three shards of ten and a small one make two uneven streams; which of the two is the small one changes."""
    folder = Path(make("web", 40, shards=4))
    shard = sorted(folder.iterdir())[0]
    kept = list(samples([str(shard)]))[:1]
    with shard.open("wb") as file:
        write_tar(file, kept)
    pairs = counted(DataConfig(shards=(str(folder),), streams=2))
    held, with_small = [], []
    for number in range(2):
        epochs: list[list[str]] = [[] for _ in range(12)]
        for pair, place in takewhile(lambda of: of[1].epoch < 12, stream(pairs, stream=number)):
            epochs[place.epoch].append(pair.name)
        held.append([len(names) for names in epochs])
        with_small.append([any(name.startswith(str(shard)) for name in names) for names in epochs])
    assert {tuple(sorted(both)) for both in zip(*held, strict=True)} == {(11, 20)}
    assert [one != other for one, other in zip(*with_small, strict=True)] == [True] * 12
    assert 2 <= sum(with_small[0]) <= 10


@pytest.mark.parametrize(("streams", "workers", "told"), [(5, 1, "for 4"), (2, 2, "for 3"), (3, 2, "for 4")])
def test_streams_without_a_shard_are_refused(make: Make, streams: int, workers: int, told: str) -> None:
    """By the number of shards before they are counted, and of those that hold something after it."""
    folder = Path(make("web", 40, shards=4))
    if told == "for 3":
        with sorted(folder.iterdir())[0].open("wb") as file:
            write_tar(file, [])
        pairs = counted(DataConfig(shards=(str(folder),), streams=streams))
        Pairs(pairs.config).check_streams(workers)
    else:
        pairs = Pairs(DataConfig(shards=(str(folder),), streams=streams))
    with pytest.raises(TrainingError, match=f"{workers} loader processes are too many {told} shards") as caught:
        pairs.check_streams(workers)
    assert caught.value.where == str(folder)


def test_processes_count_a_share_of_the_shards_each(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(shards=(make("web", 30, shards=4),))
    opened: list[list[str]] = [[], []]
    told: list[list[int]] = []
    for rank in range(2):
        monkeypatch.setattr(
            "capfilt.train.pairs.samples",
            lambda urls, rank=rank, **how: (opened[rank].extend(urls), samples(urls, **how))[1],
        )
        told.append(Pairs(config).tally(rank=rank, size=2))
    assert [len(urls) for urls in opened] == [2, 2]
    assert not set(opened[0]) & set(opened[1])
    whole = [one + other for one, other in zip(*told, strict=True)]
    assert whole == [8, 8, 7, 7]
    assert Pairs(config).counted(whole) == 30


def test_a_limit_of_open_files_is_no_fault_of_the_shards(make: Make) -> None:
    """Passed over they would be missing from the run in silence."""
    config = DataConfig(shards=(make("web", 90, shards=30),), streams=30, shuffle_buffer=30)
    pairs = counted(config)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path(os.devnull).open() as file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (file.fileno() + 8, before[1]))
    try:
        with pytest.raises(StoreError, match="too many files are open"):
            list(zip(*(stream(pairs, stream=number) for number in range(30)), strict=False))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert pairs.take_bad() == []


def test_strict_stops_at_what_is_counted_otherwise(make: Make) -> None:
    folder = make("web", 30)
    shard = next(Path(folder).glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:20_000])
    config = DataConfig(shards=(folder,))
    loose = Pairs(config)
    assert 0 < loose.count() < 30
    with pytest.raises(DataError, match=r"s-00000\.tar"):
        Pairs(replace(config, strict=True)).count()


def test_shards_that_vanish_stop_the_run_instead_of_hanging_it(make: Make) -> None:
    folder = make("web", 10)
    pairs = counted(DataConfig(shards=(folder,)))
    for shard in Path(folder).glob("*.tar"):
        shard.unlink()
    with pytest.raises(TrainingError, match="nothing that can be read any more"):
        next(stream(pairs))
    assert [reason for _, reason in pairs.take_bad()] == ["there is no such file"]


def test_a_source_of_the_mix_with_nothing_to_train_on_is_named(make: Make) -> None:
    human, web = make("human", 3), make("web", 3, itm=0.4)
    mix = (MixConfig(shards=(human,)), MixConfig(shards=(web,), min_itm=0.9))
    with pytest.raises(TrainingError, match="no caption that training wants") as caught:
        Pairs(DataConfig(mix=mix)).count()
    assert caught.value.where == web


def test_boilerplate_is_left_out_wherever_it_stands(make: Make, tmp_path: Path) -> None:
    listed = tmp_path / "boilerplate.txt"
    listed.write_text("WEB 3\n\n  web 5!\nnever said\nweb 3\n", encoding="utf-8")
    pairs = counted(DataConfig(shards=(make("web", 8),), boilerplate=str(listed)))
    assert pairs.boilerplate == ("web 3", "web 5", "never said")
    assert sorted(texts(pairs, 6)) == ["web 0", "web 1", "web 2", "web 4", "web 6", "web 7"]


@pytest.mark.parametrize(
    ("data", "said_of_it"), [(b"\n \n", "no text"), (b"\xff\xfe\xff", "not UTF-8"), (b"a b\n" * 5_000_000, "more than")]
)
def test_a_file_that_is_no_list_of_texts_is_refused(data: bytes, said_of_it: str, make: Make, tmp_path: Path) -> None:
    listed = tmp_path / "boilerplate.txt"
    listed.write_bytes(data)
    with pytest.raises(SourceError, match=said_of_it) as caught:
        Pairs(DataConfig(shards=(make("web", 3),), boilerplate=str(listed)))
    assert caught.value.where == str(listed)


def test_a_missing_list_of_boilerplate_is_told(make: Make, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        Pairs(DataConfig(shards=(make("web", 3),), boilerplate=str(tmp_path / "nowhere.txt")))


def test_a_caption_less_counts_the_next_one_of_its_picture(tmp_path: Path) -> None:
    picture = shape_picture("red", "circle", random.Random(0))
    captions = [said("part of a series", "web"), said("a red circle", "web")]
    with (tmp_path / "s.tar").open("wb") as file:
        write_tar(file, [Sample("0", picture, captions, {})])  # type: ignore[arg-type]
    (tmp_path / "boilerplate.txt").write_text("Part of a series", encoding="utf-8")
    config = DataConfig(shards=(str(tmp_path / "s.tar"),), captions_per_image=1)
    assert texts(counted(config), 1) == ["part of a series"]
    assert texts(counted(replace(config, boilerplate=str(tmp_path / "boilerplate.txt"))), 1) == ["a red circle"]

"""A random few rows: the same for a seed, from all over the source, and honest where it is not counted."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from capfilt.errors import RecipeError, SourceError
from capfilt.records import SCHEMA
from capfilt.sources.base import SourceConfig
from capfilt.sources.sampling import sample


def table(file: Path, rows: int, first: int = 0) -> Path:
    lines = (json.dumps({"url": f"http://h/{n}.jpg", "caption": f"text {n}"}) for n in range(first, first + rows))
    text = "\n".join(lines).encode()
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    return file


def urls(drawn: object) -> list[str]:
    return drawn.table.column("url").to_pylist()  # type: ignore[attr-defined]


def test_rows_come_from_all_over_and_are_the_same_for_a_seed(tmp_path: Path) -> None:
    for at in range(3):
        table(tmp_path / f"{at}.jsonl", 4000, 4000 * at)
    config = SourceConfig(path=str(tmp_path))
    drawn = sample(config, 64, seed=1)
    assert (drawn.rows, drawn.exact, drawn.drawn_from, drawn.carries) == (12_000, True, "all rows", False)
    numbers = [int(url[9:-4]) for url in urls(drawn)]
    assert len(set(numbers)) == 64
    assert numbers == sorted(numbers)
    assert len({number // 4000 for number in numbers}) == 3
    assert drawn.table.schema.equals(SCHEMA)
    assert len(set(zip(*(drawn.table.column(name).to_pylist() for name in ("part", "row")), strict=True))) == 64
    assert urls(sample(config, 64, seed=1)) == urls(drawn)
    assert urls(sample(config, 64, seed=2)) != urls(drawn)


def test_every_row_may_be_drawn(tmp_path: Path) -> None:
    table(tmp_path / "t.jsonl", 12)
    seen = {url for seed in range(40) for url in urls(sample(SourceConfig(path=str(tmp_path)), 3, seed=seed))}
    assert len(seen) == 12


def test_what_cannot_be_counted_is_drawn_from_its_beginning_and_says_so(tmp_path: Path) -> None:
    table(tmp_path / "t.jsonl.gz", 3000)
    drawn = sample(SourceConfig(path=str(tmp_path / "t.jsonl.gz")), 50)
    assert drawn.rows is None
    assert "first 2,000 rows of 1 file" in drawn.drawn_from
    assert max(int(url[9:-4]) for url in urls(drawn)) < 2000


def test_joined_sources_give_their_shares(tmp_path: Path) -> None:
    many, few = table(tmp_path / "many.jsonl", 900), table(tmp_path / "few.jsonl", 100, 5000)
    config = SourceConfig(path=str(many), also=(SourceConfig(path=str(few), origin="human"),))
    drawn = sample(config, 50)
    origins = [captions[0]["origin"] for captions in drawn.table.column("captions").to_pylist()]
    assert (origins.count("web"), origins.count("human"), drawn.rows) == (45, 5, 1000)


def test_small_sources_and_pictures_in_the_source(tmp_path: Path) -> None:
    drawn = sample(SourceConfig(path="tests/sources/img2dataset/webdataset"), 64)
    assert drawn.table.num_rows == drawn.rows
    assert drawn.carries
    assert any(drawn.table.column("image").is_valid().to_pylist())


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="rows"):
        sample(SourceConfig(path=str(table(tmp_path / "t.jsonl", 3))), 0)
    (tmp_path / "empty.csv").write_text("url,caption\n")
    with pytest.raises(SourceError, match="no rows"):
        sample(SourceConfig(path=str(tmp_path / "empty.csv")), 5)
    with pytest.raises(SourceError):
        sample(SourceConfig(path=str(tmp_path / "none.csv")), 5)

"""The main job with models of Hugging Face, alone and beside a MED."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capfilt import records
from capfilt.bootstrap import bootstrap
from capfilt.errors import DestinationError, ModelError
from capfilt.flow.config import RunConfig
from capfilt.med.model import MED
from capfilt.recipe import load
from capfilt.records import web_caption
from capfilt.shards.read import samples
from capfilt.shards.verify import verify
from capfilt.stages.capfilt import CapFilt
from capfilt.stages.config import CapFiltConfig
from capfilt.storage import Store

Saved = Callable[[str], Path]
ROWS = 6


@pytest.fixture(scope="module")
def pictures(shape_shard: Path) -> list[bytes]:
    return [sample.image for sample in list(samples([str(shape_shard)]))[:ROWS]]


@pytest.fixture
def folder(pictures: list[bytes], tmp_path: Path) -> Path:
    source = tmp_path / "pictures"
    source.mkdir()
    for n, data in enumerate(pictures):
        (source / f"{n}.png").write_bytes(data)
        (source / f"{n}.txt").write_text("a red circle on white")
    return source


def rows_of(pictures: list[bytes]) -> pa.Table:
    captions = [web_caption("a red circle")]
    rows = [{"id": str(i), "part": 0, "row": i, "image": data, "captions": captions} for i, data in enumerate(pictures)]
    return records.table_of(rows)


def judged(pictures: list[bytes], **settings: object) -> Iterator[list[dict[str, object]]]:
    config = CapFiltConfig(max_length=8, min_length=2, batch_size=4, device="cpu", **settings)
    return (row["captions"] for row in CapFilt(capfilt=config).open()(rows_of(pictures)).to_pylist())


def test_a_whole_run_with_blip_and_clip(saved: Saved, folder: Path, tmp_path: Path) -> None:
    settings = [
        f"capfilt.captioner={saved('blip')}",
        f"capfilt.filter={saved('clip')}",
        "capfilt.judge_by=itc",
        "capfilt.threshold=0.0",
        "capfilt.prompt=a photo of",
        "plan.part_rows=4",
    ]
    source, dest = str(folder), tmp_path / "out"
    done = bootstrap(source, str(dest), recipe=load(None, settings, source=source), run=RunConfig(runner="local"))
    assert verify(Store(str(dest))) == []
    ledger = pa.concat_tables(pq.read_table(file) for file in sorted((dest / "pairs").glob("*.parquet"))).to_pylist()
    captions = [c for row in ledger for c in row["captions"]]
    assert {c["origin"] for c in captions} == {"web", "synthetic"}
    assert all(c["itm"] is None and c["kept"] == (c["itc"] >= 0) for c in captions)
    assert {c["kept"] for c in captions} == {True, False}
    assert done.manifest["totals"]["texts"]["web"] == ROWS
    kept = [row["id"] for row in ledger if any(c["kept"] for c in row["captions"])]
    assert done.manifest["totals"]["kept"] == len(kept)
    shown = (dest / "report.html").read_text()
    assert "judged by the cosine of picture and text: texts below 0 were removed" in shown
    assert "P(match) of each text" not in shown
    assert "NaN" not in shown

    # Another model under the same name is another recipe, and so is another tokenizer beside the same weights.
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in saved("blip").iterdir():
        (changed / file.name).write_bytes(file.read_bytes())
    settings[0] = f"capfilt.captioner={changed}"
    with (changed / "tokenizer_config.json").open("a") as out:
        out.write(" ")
    with pytest.raises(DestinationError, match="captioner"):
        bootstrap(source, str(dest), recipe=load(None, settings, source=source), run=RunConfig(runner="local"))


def test_captions_of_git_judged_by_a_med(saved: Saved, pictures: list[bytes], tiny_architecture, tmp_path) -> None:
    MED.new(tiny_architecture).save(tmp_path / "med")
    for captions in judged(pictures, captioner=str(saved("git")), filter=str(tmp_path / "med")):
        assert captions[0]["origin"] == "web"
        assert all(0 <= c["itm"] <= 1 for c in captions)


def test_captions_of_a_med_judged_by_siglip(saved: Saved, pictures, tiny_architecture, tmp_path) -> None:
    MED.new(tiny_architecture).save(tmp_path / "med")
    scores = [
        c["itm"]
        for captions in judged(pictures, captioner=str(tmp_path / "med"), filter=str(saved("siglip")))
        for c in captions
    ]
    assert len(scores) > ROWS
    assert all(0 < score < 1 for score in scores)


def test_a_clip_has_no_probability_to_judge_by(saved: Saved, pictures: list[bytes]) -> None:
    with pytest.raises(ModelError, match="judge_by: itc"):
        list(judged(pictures, captioner=None, filter=str(saved("clip"))))

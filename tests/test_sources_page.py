"""docs/sources.md tells the truth: each of its commands runs on small files of the named formats and prints what
stands below it."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capfilt.cli.main import call
from capfilt.sources.base import SourceKind
from tests.conftest import shape_picture
from tests.test_readme import pattern, shown

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "sources.md").read_text(encoding="utf-8")
COMMANDS = shown(PAGE)
TEXTS = ("a dog runs on the beach", "red barn in the snow", "my new bike", "two cats asleep on a sofa")


def web(n: int) -> str:
    return f"https://{'img' if n % 2 else 'static'}.example.org/{n:04d}.jpg"


def texts(n: int) -> str:
    return f"{TEXTS[n % 4]}, {n}"


def tables(folder: Path) -> None:
    (folder / "laion").mkdir()
    for part in range(2):
        rows = range(40 * part, 40 * part + 40)
        laion = {"SAMPLE_ID": [float(n) for n in rows], "URL": [web(n) for n in rows]}
        laion |= {"TEXT": [texts(n) for n in rows], "similarity": [0.31] * 40}
        pq.write_table(pa.table(laion), folder / "laion" / f"part-0000{part}.snappy.parquet", compression="snappy")
    datacomp = {"uid": [f"{n:032x}" for n in range(3)], "url": [web(n) for n in range(3)]}
    datacomp |= {"text": [texts(n) for n in range(3)], "clip_l14_similarity_score": [0.3] * 3}
    pq.write_table(pa.table(datacomp), folder / "datacomp.parquet")
    (folder / "Train_GCC-training.tsv").write_text("".join(f"{texts(n)}\t{web(n)}\n" for n in range(4)))
    (folder / "cc12m.tsv").write_text("".join(f"{web(n)}\t{texts(n)}\n" for n in range(4)))
    sbu = {"image_urls": [web(n) for n in range(4)], "user_names": ["x"] * 4, "captions": [texts(n) for n in range(4)]}
    (folder / "sbu-captions-all.json").write_text(json.dumps(sbu))
    blip = [{"url": web(n), "caption": texts(n)} for n in range(4)]
    (folder / "ccs_filtered.json").write_text(json.dumps(blip))


def pictures(folder: Path) -> None:
    draw = random.Random(0)
    data = [shape_picture("red", "circle", draw) for _ in range(4)]
    held = pa.array([{"bytes": picture, "path": f"{n}.png"} for n, picture in enumerate(data)])
    pq.write_table(pa.table({"image": held, "text": [texts(n) for n in range(4)]}), folder / "hub-pictures.parquet")
    for name in ("photos", "coco/val2014"):
        (folder / name).mkdir(parents=True)
        for n, picture in enumerate(data):
            (folder / name / f"{n}.png").write_bytes(picture)
    for n in range(3):
        (folder / "photos" / f"{n}.txt").write_text(texts(n))
    shutil.copytree(ROOT / "tests" / "sources" / "img2dataset" / "webdataset", folder / "laion400m")
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "00000.tar", "w") as tar:
        for n in range(3):
            for kind in ("png", "txt"):
                tar.add(folder / "photos" / f"{n}.{kind}", f"{n:05d}.{kind}")


def annotations(folder: Path) -> None:
    images = [
        {"id": n, "file_name": f"{n}.png", "coco_url": f"http://images.cocodataset.org/val2014/{n}.png"}
        for n in range(4)
    ]
    said = [{"id": 2 * n + at, "image_id": n, "caption": texts(n + at)} for n in range(4) for at in range(2)]
    (folder / "coco" / "captions_val2014.json").write_text(json.dumps({"images": images, "annotations": said}))
    karpathy = [
        {"filepath": "val2014", "filename": f"{n}.png", "cocoid": n, "split": split, "sentences": [{"raw": texts(n)}]}
        for n, split in enumerate(["train", "restval", "val", "test"])
    ]
    (folder / "coco" / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": karpathy}))
    (folder / "vg").mkdir()
    regions = [{"id": n, "regions": [{"phrase": texts(n)}, {"phrase": "blue sky"}]} for n in range(1, 3)]
    (folder / "vg" / "region_descriptions.json").write_text(json.dumps(regions))
    data = [{"image_id": n, "url": f"https://cs.stanford.edu/people/rak248/VG_100K/{n}.jpg"} for n in range(1, 3)]
    (folder / "vg" / "image_data.json").write_text(json.dumps(data))
    listed = [{"image": f"val2014/{n // 2}.png", "caption": texts(n)} for n in range(8)]
    (folder / "coco" / "coco_karpathy_train.json").write_text(json.dumps(listed))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    for build in (tables, pictures, annotations):
        build(folder)
    return folder


def test_the_page_shows_each_kind() -> None:
    told = set(re.findall(r"^kind      (\w+)", "\n".join(item.output for item in COMMANDS), re.M))
    assert told == set(SourceKind.__args__) - {"auto"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("item", COMMANDS, ids=lambda item: item.command)
def test_each_command_prints_what_is_shown(
    item, examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(examples)
    name, *args = shlex.split(item.command)
    assert name == "capfilt"
    assert call(args) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert pattern(item.output).fullmatch(told), f"$ {item.command}\n{told}\n--- the page shows:\n{item.output}"

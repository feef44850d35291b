"""Other people's readers read our shards without our code."""

import io
import os
import subprocess
import sys
from dataclasses import dataclass

import pyarrow.parquet as pq
import pytest
from PIL import Image

from capfilt.shards.commit import SinkConfig, commit_part


@dataclass(frozen=True)
class Planned:
    index: int
    digest: str = "d"


@pytest.fixture
def shards(store, part_table):
    # Of one kind, as the sink makes them: `datasets` refuses tars whose samples differ in their extensions.
    for index in (0, 1):
        commit_part(store, part_table(index=index, kinds=("JPEG",)), Planned(index), SinkConfig(format="both"))
    return {kind: [store.path(f"shards/0000{i}.{kind}") for i in (0, 1)] for kind in ("tar", "parquet")}


def read_elsewhere(program, *arguments, cwd):
    """Runs a program in a process of its own, where our code is not imported and others' warnings are not ours."""
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cwd), "WDS_SECURE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


WEBDATASET = """
import io, json, sys, webdataset
from PIL import Image
keys = []
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):
    told = json.loads(sample["json"])
    assert Image.open(io.BytesIO(sample["jpg"])).size == (told["width"], told["height"])
    assert sample["txt"] == b"a red field", sample
    assert [c["kept"] for c in told["captions"]] == [False, True], told
    keys.append(sample["__key__"])
print(*keys)
"""


def test_webdataset_reads_the_tars(shards, tmp_path):
    keys = read_elsewhere(WEBDATASET, *shards["tar"], cwd=tmp_path).split()
    assert keys == [f"0000{i}-000000{r}" for i in (0, 1) for r in (0, 1, 3, 4, 6)]


DATASETS = """
import sys, datasets
kind, *files = sys.argv[1:]
data = datasets.load_dataset(kind, data_files=files, split="train", cache_dir="cache")
row = data[0]
if kind == "parquet":
    assert row["image"].size == (40, 30) and row["caption"] == "a red field", row
    assert [c["origin"] for c in row["captions"]] == ["web", "synthetic"], row
else:
    assert row["txt"] == "a red field" and row["json"]["captions"][1]["kept"], row
    assert row["jpg"].size == (40, 30), row
print(len(data))
"""


@pytest.mark.parametrize(("kind", "files"), [("webdataset", "tar"), ("parquet", "parquet")])
def test_datasets_reads_both(shards, tmp_path, kind, files):
    assert read_elsewhere(DATASETS, kind, *shards[files], cwd=tmp_path) == "10"


def test_pyarrow_reads_the_parquet(shards):
    table = pq.read_table(shards["parquet"][0])
    assert table.column("caption").to_pylist() == ["a red field"] * 5
    for image in table.column("image").to_pylist():
        assert Image.open(io.BytesIO(image["bytes"])).size == (40, 30)

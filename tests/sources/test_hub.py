"""Data sets of a hub, by their hf:// paths: real requests to a server on this machine."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.hub import serving

READ = """
import json, sys
from capfilt.sources.base import SourceConfig
from capfilt.sources.opening import open_source
source = open_source(SourceConfig(path=sys.argv[1]))
rows = [row for part in source.parts(2) for row in source.read(part).to_pylist()]
told = [[row["url"], (row["image"] or b"").decode(), row["captions"][0]["text"]] for row in rows]
print(json.dumps([source.describe()["kind"], told]))
"""


def parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


FILES = {
    "README.md": b"a card",
    "data/train-00000-of-00002.parquet": parquet(
        image=pa.array([{"bytes": b"p0", "path": "0.jpg"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        text=["one"],
    ),
    "data/train-00001-of-00002.parquet": parquet(
        image=pa.array([{"bytes": b"p1", "path": "1.jpg"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        text=["two"],
    ),
    "urls/cc.tsv": b"a dog\thttp://a/1.jpg\na cat\thttp://a/2.jpg\n",
}
PICTURES = [["0.jpg", "p0", "one"], ["1.jpg", "p1", "two"]]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("hf://datasets/some/pairs", PICTURES),
        ("hf://datasets/some/pairs/data/*.parquet", PICTURES),
        ("hf://datasets/some/pairs/urls/cc.tsv", [["http://a/1.jpg", "", "a dog"], ["http://a/2.jpg", "", "a cat"]]),
    ],
)
def test_a_data_set_of_the_hub_is_read_by_its_path(path, wanted):
    files = {name: data for name, data in FILES.items() if path.endswith(".tsv") or not name.endswith(".tsv")}
    with serving("some/pairs", files) as endpoint:
        # The hub's own setting, which is read when its library loads.
        env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "NO_PROXY": "*"}
        command = [sys.executable, "-c", READ, path]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["table", wanted]

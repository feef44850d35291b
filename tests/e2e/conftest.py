"""Whole commands on the bundled sample with the embedded model, each run once and looked at by many tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capfilt import catalog

SCRIPT = Path(sys.executable).with_name("capfilt")


@dataclass(frozen=True)
class Ran:
    """One run of a command, and the data set it wrote."""

    data: Path
    out: str
    err: str

    @property
    def ledger(self) -> pa.Table:
        """Every row of the data set, kept or dropped, in the plan's order."""
        files = sorted((self.data / "pairs").glob("*.parquet"))
        rows = pa.concat_tables([pq.read_table(file) for file in files])
        return rows.sort_by([("part", "ascending"), ("row", "ascending")])


Run = Callable[..., Ran]


@pytest.fixture(scope="session")
def embedded() -> None:
    """The embedded model; a checkout in which it was not built skips what needs it."""
    if not {"med-mini/captioner", "med-mini/filter"} <= set(catalog.models()):
        pytest.skip("models/med-mini has no weights: make med-mini")


@pytest.fixture(scope="session")
def run(embedded) -> Run:
    """Runs the console script to its end, which must be a good one."""

    def run(data: Path, *args: object) -> Ran:
        done = subprocess.run([SCRIPT, *map(str, args)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return Ran(data, done.stdout, done.stderr)

    return run

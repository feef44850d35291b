"""A source and stages that are small and deterministic, and one Ray for all tests that need it."""

from __future__ import annotations

import hashlib
import os
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from capfilt.errors import ModelError
from capfilt.records import Caption, Drop, replace, row_id, table_of, web_caption
from capfilt.sources.parts import cut
from capfilt.stages.base import Needs


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Rows that carry their number as a picture."""

    rows: int = 25
    has_bytes: bool = True
    origin: str = "web"

    def parts(self, part_rows):
        return cut([("numbers", self.rows, str(self.rows))], part_rows)

    def read(self, part):
        return table_of(
            {
                "id": row_id(str(n), "text"),
                "part": part.index,
                "row": n,
                "url": str(n),
                "image": str(n).encode(),
                "captions": [web_caption(f"number {n}")],
            }
            for n in range(part.start, part.stop)
        )

    def describe(self):
        return {"kind": "numbers", "path": "numbers"}


@dataclass(frozen=True, kw_only=True)
class Sieve:
    """Drops every row whose number divides by ``by``."""

    by: int = 3
    cpus: float = 0.25
    name: str = "sieve"
    reads: tuple[str, ...] = ("row", "drop")
    writes: tuple[str, ...] = ("drop", "image")

    @property
    def needs(self):
        return Needs(cpus=self.cpus)

    def open(self):
        return self.work

    def work(self, table):
        bad = [row % self.by == 0 for row in table.column("row").to_pylist()]
        images = [None if b else i for b, i in zip(bad, table.column("image").to_pylist(), strict=True)]
        return replace(table, {"drop": [str(Drop.TOO_SMALL) if b else None for b in bad], "image": images})


@dataclass(frozen=True, kw_only=True)
class Scribe:
    """Writes a caption that follows from the id, and leaves a trace of each opening."""

    traces: str = ""
    cpus: float = 0.5
    fail_at: int = -1
    fail_open: bool = False
    lose: bool = False
    die: bool = False
    name: str = "scribe"
    reads: tuple[str, ...] = ("id", "captions")
    writes: tuple[str, ...] = ("captions",)
    stateful: bool = True

    @property
    def needs(self):
        return Needs(cpus=self.cpus, stateful=self.stateful)

    def open(self):
        if self.fail_open:
            raise ModelError("the pen is broken", where="scribe", mend="Take another.")
        if self.traces:
            Path(self.traces, f"{os.getpid()}-{time.monotonic_ns()}").touch()
        return self.work

    def work(self, table):
        if self.die:
            os._exit(1)
        if self.fail_at in table.column("part").to_pylist():
            raise ModelError("out of ink", where=f"part {self.fail_at}", mend="Refill it.")
        captions = [
            [*old, self.caption(row)] if drop is None else old
            for row, old, drop in zip(*(table.column(c).to_pylist() for c in ("id", "captions", "drop")), strict=True)
        ]
        done = replace(table, {"captions": captions})
        return done.slice(1) if self.lose else done

    def caption(self, row):
        itm = int(hashlib.sha256(row.encode()).hexdigest()[:4], 16) / 65536
        return Caption(text=f"about {row[:6]}", origin="synthetic", itm=itm, itc=0.0, kept=itm >= 0.5)


@dataclass(frozen=True, kw_only=True)
class Save:
    """Writes each part as a file and forgets the pictures."""

    folder: str
    cpus: float = 0.25
    name: str = "save"
    reads: tuple[str, ...] = ("part",)
    writes: tuple[str, ...] = ("image",)

    @property
    def needs(self):
        return Needs(cpus=self.cpus)

    def open(self):
        return self.work

    def work(self, table):
        name = f"{table.column('part')[0].as_py():05d}-{os.getpid()}.arrow"
        with pa.OSFile(str(Path(self.folder, name)), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
            out.write_table(table.combine_chunks())
        return replace(table, {"image": [None] * table.num_rows})


@dataclass
class Out:
    """What a run left: files by part, and the tallies it told of."""

    folder: Path
    tallies: list = field(default_factory=list)
    spent: list = field(default_factory=list)

    def rows(self):
        files = sorted(self.folder.glob("*.arrow"))
        rows = [row for file in files for row in pa.ipc.open_file(str(file)).read_all().to_pylist()]
        return sorted(rows, key=lambda row: row["row"])

    def append(self, done):
        self.tallies.append(done.tally)
        self.spent.append(done.spent)

    def save(self, **kw):
        return Save(folder=str(self.folder), **kw)


@pytest.fixture
def toys():
    return SimpleNamespace(Numbers=Numbers, Sieve=Sieve, Scribe=Scribe, Save=Save)


@pytest.fixture
def out(tmp_path):
    def make(name="out"):
        (tmp_path / name).mkdir()
        return Out(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def local_ray():
    """One Ray with the places that two cores give a run of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        import ray

        os.environ |= {"RAY_agent_register_timeout_ms": "100000", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        how = {"num_cpus": 3, "include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(address="local", **how)
        except Exception:  # noqa: BLE001 a busy machine misses Ray's half minute; the second time its files are cached
            ray.shutdown()
            ray.init(address="local", **how)
        # Workers cannot import a conftest.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray
        ray.shutdown()

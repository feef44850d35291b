"""The command line as a user meets it: arguments in; exit code, stdout and stderr out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from capfilt.cli.main import call


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def capfilt(capsys):
    def run(*args: object) -> Said:
        capsys.readouterr()
        code = call([str(arg) for arg in args])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def tiny_models(tiny_architecture, tmp_path_factory) -> Path:
    """A folder with a ``captioner`` and a ``filter``: real models with random weights."""
    import torch

    from capfilt.med.model import MED

    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("captioner", "filter")):
        torch.manual_seed(seed)
        MED.new(tiny_architecture).save(folder / name)
    return folder

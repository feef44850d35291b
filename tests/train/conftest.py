"""What the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="session")
def still(tiny_architecture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny architecture without dropout, which every process draws for itself."""
    folder = tmp_path_factory.mktemp("still")
    data = yaml.safe_load((tiny_architecture / "model.yaml").read_text())
    data["text"]["dropout"] = 0.0
    (folder / "model.yaml").write_text(yaml.safe_dump(data))
    (folder / "vocab.txt").write_text((tiny_architecture / "vocab.txt").read_text())
    return folder

"""A model's digest is of all that decides its answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from capfilt.errors import ModelError
from capfilt.med.digests import digests
from capfilt.med.model import MED


@pytest.fixture
def family(tiny_architecture: Path, tmp_path: Path) -> Path:
    """A model whose vocabulary lies in the folder above it."""
    MED.new(tiny_architecture).save(tmp_path / "one")
    (tmp_path / "one" / "vocab.txt").rename(tmp_path / "vocab.txt")
    return tmp_path


def digest(folder: Path) -> str:
    return str(digests({"filter": str(folder)})["filter"]["sha256"])


def test_the_vocabulary_of_the_family_counts(family: Path) -> None:
    before = digest(family / "one")
    file = family / "vocab.txt"
    words = file.read_text().splitlines()
    file.write_text("\n".join([*words[:-2], words[-1], words[-2]]) + "\n")
    assert digest(family / "one") != before


def test_a_vocabulary_of_its_own_gives_the_digest_of_the_same_in_the_family(family: Path, tmp_path: Path) -> None:
    own = shutil.copytree(family / "one", tmp_path / "elsewhere" / "own")
    shutil.copy(family / "vocab.txt", own)
    assert digest(own) == digest(family / "one")


def test_roles_without_a_model_are_left_out_and_an_empty_folder_is_told(tmp_path: Path) -> None:
    assert digests({"captioner": None}) == {}
    with pytest.raises(ModelError, match=r"no model\.yaml and no safetensors"):
        digests({"filter": str(tmp_path)})

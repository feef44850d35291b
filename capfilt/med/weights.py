"""Files of weights that others made, read as weights alone: nothing is unpickled, no code of theirs runs.

Knows files and tensors; knows no model and no names of weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from capfilt.errors import ModelError


def weights_file(path: Path) -> Path:
    """The file itself, or the one in a folder as Hugging Face lays it out; safetensors where there is a choice.

    Raises:
        ModelError: there is none.
    """
    if path.is_file():
        return path
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    raise ModelError(
        "no weights there",
        where=str(path),
        mend="Name a .pth or .safetensors file, or a folder with model.safetensors or pytorch_model.bin.",
    )


def read_weights(file: Path) -> dict[str, Tensor]:
    """Named tensors of a ``.safetensors`` file, or of a torch file, there also from under ``model``.

    Raises:
        ModelError: it is damaged, holds something else, or cannot be read without running code that it brings.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged file may fail anywhere inside torch's reader
        first = str(error).strip().splitlines()
        raise ModelError(
            f"cannot be read as weights alone: {first[0] if first else type(error).__name__}",
            where=str(file),
            mend="Copy the file again, whole; one that brings code with it is refused.",
        ) from error
    found = found.get("model", found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(
            "holds something else than named weights", where=str(file), mend="Name a file of weights alone."
        )
    return found


def read_json(file: Path) -> dict[str, Any]:
    """A table of fields, as in ``config.json``.

    Raises:
        ModelError: it is none.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"not JSON: {error}", where=str(file), mend="Copy the file again.") from error
    if not isinstance(data, dict):
        raise ModelError("not a table of fields", where=str(file), mend="Copy the file again.")
    return data

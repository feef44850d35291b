"""What decides a model's answers, as one digest: of a MED, and of a folder that transformers saved.

Loads no torch, and of weights no more than a header before it reads their bytes through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from capfilt.catalog import MODEL_FILE, model_folder
from capfilt.errors import ModelError
from capfilt.med.config import MEDConfig, vocabulary


def digests(names: Mapping[str, str | None]) -> dict[str, Any]:
    """By role, each model's name and the digest of what decides its answers; a role without a name is left out.

    Raises:
        ModelError: unknown, without weights, or with a damaged file.
    """
    return {role: {"name": name, "sha256": _digest(model_folder(name))} for role, name in names.items() if name}


def _digest(folder: Path) -> str:
    med = (folder / MODEL_FILE).is_file()
    if med:
        MEDConfig.load(folder)
    weights = [folder / "model.safetensors"] if med else sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            "no model.yaml and no safetensors there",
            where=str(folder),
            mend="Name a model of `capfilt models`, or a folder that transformers saved.",
        )
    for file in weights:
        _check_weights(file)
    # Of a folder that transformers saved, whatever lies in it may decide: templates, merges, generation settings.
    files = [folder / MODEL_FILE, vocabulary(folder), *weights] if med else sorted(folder.iterdir())
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _check_weights(weights: Path) -> None:
    try:
        # Reads the header and checks that the file is as long as it says.
        with safe_open(weights, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"its weights cannot be read: {error}",
            where=str(weights),
            mend="Train it, name another model, or copy its folder again, whole.",
        ) from error

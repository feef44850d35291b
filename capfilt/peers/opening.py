"""A model folder becomes a captioner or a filter: a MED by its ``model.yaml``, else a model of Hugging Face.

Nothing is downloaded, no code of a model folder is run and only safetensors are read.
"""

from __future__ import annotations

from pathlib import Path

import torch

from capfilt.catalog import MODEL_FILE
from capfilt.med.captioner import MEDCaptioner
from capfilt.med.filter import MEDFilter
from capfilt.roles import Captioner, Filter, Writing


def open_captioner(folder: Path, writing: Writing, *, prompt: str | None, device: str, dtype: torch.dtype) -> Captioner:
    """The captioner in a folder.

    Args:
        folder: a MED's, or one that ``transformers`` saved.
        writing: how captions are written.
        prompt: what another captioner than the MED is asked; the MED's stands in its ``model.yaml``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...
        dtype: of the weights; ``torch.int8`` takes 8-bit layers in a MED on a CPU.

    Raises:
        ModelError: the folder holds no captioner, or is damaged.
    """
    if (folder / MODEL_FILE).is_file():
        return MEDCaptioner.load(folder, writing, device=device, dtype=dtype)
    from capfilt.peers.captioning import HuggingFaceCaptioner  # noqa: PLC0415  transformers takes seconds

    return HuggingFaceCaptioner.load(folder, writing, prompt=prompt, device=device, dtype=dtype)


def open_filter(folder: Path, *, device: str, dtype: torch.dtype) -> Filter:
    """The filter in a folder.

    Args:
        folder: a MED's, or one that ``transformers`` saved.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...
        dtype: of the weights; ``torch.int8`` takes 8-bit layers in a MED on a CPU.

    Raises:
        ModelError: the folder holds no filter, or is damaged.
    """
    if (folder / MODEL_FILE).is_file():
        return MEDFilter.load(folder, device=device, dtype=dtype)
    from capfilt.peers.scoring import HuggingFaceFilter  # noqa: PLC0415  transformers takes seconds

    return HuggingFaceFilter.load(folder, device=device, dtype=dtype)

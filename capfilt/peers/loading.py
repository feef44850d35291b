"""Model and processor of a folder that ``transformers`` saved: local, safetensors, no code of the folder's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoProcessor

from capfilt.errors import ModelError


def load(kind: Any, folder: Path, *, role: str, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """(model in eval mode, processor).

    Args:
        kind: one of transformers' Auto classes.
        folder: what it and its processor were saved in.
        role: ``captioner`` or ``filter``, for the error.
        device: where it goes. dtype: of its weights.

    Raises:
        ModelError: transformers finds no such model there, weights are missing, or ``dtype`` is int8.
    """
    if dtype == torch.int8:
        raise ModelError("8-bit layers are for MEDs", where=str(folder), mend="Take dtype: float32 or bfloat16.")
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model, told = kind.from_pretrained(
            folder, use_safetensors=True, dtype=dtype, output_loading_info=True, **options
        )
        processor = AutoProcessor.from_pretrained(folder, **options)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"no MED and no {role} that transformers can load: {first}",
            where=str(folder),
            mend="Name a folder with model.yaml, or one that transformers saved, with its processor.",
        ) from error
    if missing := sorted(told["missing_keys"]):
        # transformers draws them at random and goes on.
        raise ModelError(
            f"{len(missing)} of the weights of a {type(model).__name__} are not there: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}",
            where=str(folder),
            mend=f"It is no {role} of that kind, or not whole. BLIP's weights come in by `capfilt models import`.",
        )
    return model.to(device).eval().requires_grad_(False), processor

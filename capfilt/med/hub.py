"""Weights from where they are published: a local path, a Hugging Face hub id or a URL. Knows no names of weights."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.file_download import http_get

from capfilt.errors import ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SAFE = ("*.safetensors", "*.json", "vocab.txt")
_OLD = ("pytorch_model.bin", "*.json", "vocab.txt")


def obtain(source: str, cache: Path | None = None) -> Path:
    """A local file or folder for what ``source`` names; what is fetched is kept in the hub's cache.

    Args:
        source: a path, a hub id (``owner/name``), or an http(s) URL of one file.
        cache: where to keep it, if not in Hugging Face's cache.

    Raises:
        ModelError: it is no path and cannot be fetched.
    """
    path = Path(source).expanduser()
    if source and path.exists():
        return path
    if source.startswith(("https://", "http://")):
        return _file(source, cache)
    if not _HUB_ID.fullmatch(source):
        raise ModelError("no such file or folder, and no hub id", where=source, mend="Name a path, a hub id or a URL.")
    return _repository(source, cache)


def _repository(name: str, cache: Path | None) -> Path:
    try:
        folder = Path(snapshot_download(name, cache_dir=cache, allow_patterns=list(_SAFE)))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, cache_dir=cache, allow_patterns=list(_OLD)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"no such file or folder, and the hub did not give it: {_first(error)}",
            where=name,
            mend="Check the name and the network, or download it elsewhere and name the folder.",
        ) from error
    return folder


def _file(url: str, cache: Path | None) -> Path:
    folder = (cache or Path(HF_HUB_CACHE)) / "capfilt" / hashlib.sha256(url.encode()).hexdigest()[:16]
    file = folder / (Path(urlsplit(url).path).name or "weights.pth")
    if file.is_file():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    # Of its own: each process of a group fetches it, and the first that has it must not take the others' away.
    temporary = file.with_name(f".{os.getpid()}-{secrets.token_hex(4)}-{file.name}")
    try:
        with temporary.open("wb") as out:
            http_get(url, out)
    except Exception as error:  # its HTTP client, and so its errors, change with its version
        temporary.unlink(missing_ok=True)
        raise ModelError(
            f"cannot be downloaded: {_first(error)}", where=url, mend="Check the address and the network."
        ) from error
    temporary.replace(file)
    return file


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""A finished data set, put onto the Hugging Face Hub as a repository of its own.

Shards, ledgers and markers go first, a few at a time, each handful one commit; the manifest, the card and the rest go
last, so that a repository with a manifest is whole; an earlier push's manifest is taken away before a file is replaced
that was there. What is there already is found by its digest and not sent again, so the same call goes on where it
stopped. Knows a finished destination and the Hub's client; changes no data set.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars

from capfilt.errors import DestinationError
from capfilt.storage import Store

TOGETHER = 32
"""Files of one commit."""
TOGETHER_BYTES = 2**30
"""Bytes of one commit, unless it is a single file: those of a remote destination are in memory together."""
_OURS = ("shards/", "pairs/", "parts/")
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=\?)\S+")
"""What no message may tell: a token, and what signs a URL."""

_LIBRARIES = {"httpx", "httpx2", "httpcore", "requests"}

OnFile = Callable[[int, int], None]


@dataclass(frozen=True)
class Pushed:
    """What became of a push."""

    repo: str
    """``owner/name``."""
    url: str
    """Where to look at it."""
    private: bool
    """Whether only its owners see it."""
    files: int
    """Files of the data set."""
    sent: int
    """Of these, the ones that were not there yet."""
    removed: int
    """Files of an earlier push that the data set has no more."""


def push(
    dest: str, repo: str, *, public: bool = False, endpoint: str | None = None, on_file: OnFile | None = None
) -> Pushed:
    """Puts a finished data set onto the Hub.

    The token is the client's own: what ``hf auth login`` has stored, or ``HF_TOKEN``.

    Args:
        dest: a destination of :func:`capfilt.bootstrap` that has a manifest.
        repo: ``owner/name``; made if it is not there.
        public: whether all may see it. Without it the repository is made private, and one that is public already is
            refused.
        endpoint: the Hub's address; None takes ``HF_ENDPOINT`` or the public one.
        on_file: told after each commit how many files are there, and of how many.

    Raises:
        DestinationError: the data set is not finished or damaged, or the Hub refuses or cannot be reached.
    """
    store = Store(dest)
    if not store.exists("manifest.json"):
        raise DestinationError("no manifest.json there", where=store.url, mend="Finish it with `capfilt bootstrap`.")
    manifest = store.read_json("manifest.json")
    digests = _vouched(manifest)
    first, last = _files(store, digests)
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings show signed URLs
    with _asked(repo):
        api = HfApi(endpoint=endpoint)
        # Its name may get the user's own before it.
        name = api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True).repo_id
        private = bool(api.repo_info(name, repo_type="dataset").private)
    if not (private or public):
        raise DestinationError("this repository is public", where=name, mend="Give --public, or another name.")
    with _asked(name):
        there = {
            item.path: item
            for item in api.list_repo_tree(name, repo_type="dataset", recursive=True)
            if isinstance(item, RepoFile)
        }
    wanted = {*first, *last}
    stale = sorted(path for path in there if path.startswith(_OURS) and path not in wanted)
    sent = done = 0
    for names in [*_groups(first, _sizes(manifest)), last]:
        news = [(path, data) for path in names if not _same(there.get(path), data := _read(store, path, digests))]
        drops = stale if names is last else []
        if names is not last and "manifest.json" in there and any(path in there for path, _ in news):
            # It vouches for what is replaced now. Without it, a push that is cut off is seen to be unfinished.
            drops = ["manifest.json"]
            del there["manifest.json"]
        if news or drops:
            changes = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in news]
            with _asked(name):
                api.create_commit(
                    name,
                    [*changes, *(CommitOperationDelete(path_in_repo=path) for path in drops)],
                    commit_message=f"{len(news)} files by capfilt push",
                    repo_type="dataset",
                )
        sent, done = sent + len(news), done + len(names)
        if on_file is not None:
            on_file(done, len(wanted))
    url = f"{api.endpoint}/datasets/{name}"
    return Pushed(repo=name, url=url, private=private, files=len(wanted), sent=sent, removed=len(stale))


def _vouched(manifest: Mapping[str, Any]) -> dict[str, str]:
    """From file to sha256, of those that the manifest vouches for."""
    return {str(file["name"]): str(file["sha256"]) for kind in ("ledgers", "shards") for file in manifest[kind]}


def _sizes(manifest: Mapping[str, Any]) -> dict[str, int]:
    return {str(file["name"]): int(file["size"]) for kind in ("ledgers", "shards") for file in manifest[kind]}


def _groups(names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """The names in order, as many together as one commit takes."""
    group, total = list[str](), 0
    for name in names:
        size = sizes.get(name, 0)
        if group and (len(group) == TOGETHER or total + size > TOGETHER_BYTES):
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    if group:
        yield group


def _files(store: Store, digests: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What goes first, and what goes last."""
    first = [*sorted(digests), *(f"parts/{name}" for name in store.names("parts"))]
    return first, [name for name in store.names() if name != "lease.json"]


def _read(store: Store, name: str, digests: Mapping[str, str]) -> Path | bytes:
    """A local file's path, or a remote one's bytes; refused if it is not as the manifest says."""
    try:
        data = Path(store.path(name)) if store.is_local else store.read(name)
        good = name not in digests or _sha256(data) == digests[name]
    except FileNotFoundError:
        good = False
    if not good:
        raise DestinationError(
            f"{name} is not as the manifest says", where=store.url, mend="Run `capfilt verify` there, with --repair."
        )
    return data


def _same(there: RepoFile | None, data: Path | bytes) -> bool:
    if there is None:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == _sha256(data))
    content = data.read_bytes() if isinstance(data, Path) else data
    # How git names what a file holds.
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest())


def _sha256(data: Path | bytes) -> str:
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _asked(repo: str) -> Iterator[None]:
    """The Hub's refusals as one error, with the mend that fits and nothing secret."""
    try:
        yield
    except HFValidationError as error:
        raise DestinationError(_safe(error), where=repo, mend="Write it as owner/name.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        mend = "Run the same command again; it goes on where it stopped."
        if status in (401, 403):
            mend = "Run `hf auth login`, or set HF_TOKEN to a token that may write there."
        raise DestinationError(f"the Hub said {status}: {_safe(error)}", where=repo, mend=mend) from None
    except Exception as error:  # the client lets its HTTP library's own errors through, and changes that library
        library = type(error).__module__.partition(".")[0]
        if not (library in _LIBRARIES or isinstance(error, OSError | ValueError | RuntimeError)):
            raise
        raise DestinationError(
            f"the Hub could not be asked: {_safe(error)}",
            where=repo,
            mend="Check the network; the same command goes on where it stopped.",
        ) from None


def _safe(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _TOKEN.sub("...", lines[0] if lines else type(error).__name__)

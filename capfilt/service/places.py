"""Which files and URLs a job may read and write: resolved first, then held against the prefixes of its token.

What is checked is what is used: a place leaves here as the path that it really is, without ``..`` and without links.
Knows paths and URLs; reads nothing but names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from capfilt.catalog import models
from capfilt.errors import CapfiltError
from capfilt.inputs import expand
from capfilt.recipe import Recipe
from capfilt.sources.base import SourceConfig

_REMOTE = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.+)", re.I | re.S)
_GLOB = re.compile(r"[*?\[]")


class OutsideError(CapfiltError):
    """A place that a token does not open."""


def settled(place: str, prefixes: Sequence[str], *, field: str) -> str:
    """The place as it really is, if it lies in one of the prefixes.

    Args:
        place: an absolute path, perhaps with a glob, or a URL.
        prefixes: folders and URLs.
        field: that it stands in, for the error.

    Raises:
        OutsideError: it lies in none of them, or is written so that it cannot be told.
    """
    real = _real(place, field)
    if not any(_within(real, _real(prefix, field)) for prefix in prefixes):
        mend = f"It opens: {', '.join(prefixes)}." if prefixes else "It opens no place at all; ask the operator."
        raise OutsideError("this token does not open this place", where=field, mend=mend)
    return real


def settle_source(source: SourceConfig, prefixes: Sequence[str]) -> SourceConfig:
    """The source with every place of it settled.

    Raises:
        OutsideError: one of them lies outside.
    """
    images = settled(source.images, prefixes, field="source.images") if _names_place(source.images) else source.images
    return SourceConfig(
        **{
            **{name: getattr(source, name) for name in source.__dataclass_fields__},
            "path": settled(source.path, prefixes, field="source.path"),
            "images": images,
            "also": tuple(settle_source(one, prefixes) for one in source.also),
        }
    )


def check_recipe(recipe: Recipe, prefixes: Sequence[str], open_addresses: Sequence[str]) -> None:
    """Refuses models that lie outside, and addresses that the service itself does not open.

    Raises:
        OutsideError: the field, and what it opens.
    """
    known = {name for model in models() for name in (model, model.partition("/")[0])}
    for role in ("captioner", "filter"):
        model: str | None = getattr(recipe.capfilt, role)
        if model is not None and (model not in known or Path(model).exists()):
            settled(model, prefixes, field=f"capfilt.{role}")
    closed = set(recipe.fetch.allow_addresses) - set(open_addresses)
    if closed:
        told = ", ".join(sorted(closed))
        mend = "Leave it out, or ask the operator to open it in the service's own settings."
        raise OutsideError(f"the service does not open {told}", where="fetch.allow_addresses", mend=mend)


def check_files(source: SourceConfig, prefixes: Sequence[str]) -> None:
    """Refuses a source of which a file leads out of the prefixes by a link; for who is about to read it.

    Raises:
        OutsideError: names the file.
        SourceError: nothing is there.
    """
    for one in (source, *source.also):
        for place in (one.path, one.images):
            if not place or "://" in place:
                continue
            for name in expand(place):
                settled(name, prefixes, field=name)


def check_dest(dest: str, prefixes: Sequence[str]) -> None:
    """Refuses a destination in which something leads out of the prefixes by a link.

    Raises:
        OutsideError: names it.
    """
    settled(dest, prefixes, field="dest")
    root = Path(dest)
    if "://" in dest or not root.is_dir():
        return
    for entry in [*root.iterdir(), *root.glob("*/*")]:
        if entry.is_symlink():
            settled(str(entry), prefixes, field=str(entry))


def _names_place(images: str) -> bool:
    # Before names of annotations an address of the web may stand: the safe client is what goes there.
    return bool(images) and not re.match(r"https?://", images, re.I)


def _real(place: str, field: str) -> str:
    remote = _REMOTE.fullmatch(place)
    if remote and remote["scheme"].lower() in ("file", "local"):
        place, remote = remote["rest"], None
    pieces = re.split(r"[/\\]", place)
    odd = "\0" in place or "::" in place or "\\" in place or any(piece in (".", "..") for piece in pieces)
    if odd or (remote and not all(remote["rest"].rstrip("/").split("/"))):
        mend = "Write it plainly: without .., ::, backslashes and empty parts."
        raise OutsideError(f"{place[:200]!r} cannot be told to lie anywhere", where=field, mend=mend)
    if remote:
        return f"{remote['scheme'].lower()}://{remote['rest'].rstrip('/')}"
    path = Path(place)
    if not path.is_absolute():
        mend = "Give an absolute path, or a URL such as s3://bucket/folder."
        raise OutsideError(f"{place[:200]!r} is no absolute path", where=field, mend=mend)
    try:
        # What has a glob in it is settled up to there; the files that it finds are looked at when they are read.
        plain = [*path.parts]
        at = next((i for i, piece in enumerate(plain) if _GLOB.search(piece)), len(plain))
        if path.exists():
            at = len(plain)
        return str(Path(*plain[:at]).resolve().joinpath(*plain[at:]))
    except (OSError, RuntimeError, ValueError) as error:
        mend = "Write it plainly."
        raise OutsideError(f"{place[:200]!r} cannot be resolved", where=field, mend=mend) from error


def _within(real: str, prefix: str) -> bool:
    return real == prefix or real.startswith(prefix.rstrip("/") + "/")

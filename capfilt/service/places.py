"""Which files and URLs a job may read and write: resolved first, then held against the prefixes of its token.

What is checked is what is used: a place leaves here as the path that it really is, without ``..`` and without links.
Knows paths and URLs; reads nothing but names.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from capfilt.catalog import models
from capfilt.errors import CapfiltError, RecipeError
from capfilt.inputs import expand
from capfilt.recipe import Recipe
from capfilt.sources.annotations import VG_PICTURES
from capfilt.sources.base import SourceConfig

_REMOTE = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>.+)", re.I | re.S)
_GLOB = re.compile(r"[*?\[]")


class OutsideError(CapfiltError):
    """A place that a token does not open."""


def settled(place: str, prefixes: Sequence[str], *, field: str, pattern: bool = False) -> str:
    """The place as it really is, if it lies in one of the prefixes.

    Args:
        place: an absolute path, or a URL.
        prefixes: folders and URLs.
        field: that it stands in, for the error.
        pattern: whether it may be a glob: then it is settled up to there, and :func:`check_files` looks at what is
            found.

    Raises:
        OutsideError: it lies in none of them, or is written so that it cannot be told.
    """
    real = _real(place, field, pattern=pattern)
    if not any(_within(real, _real(prefix, field)) for prefix in prefixes):
        mend = f"It opens: {', '.join(prefixes)}." if prefixes else "It opens no place at all; ask the operator."
        raise OutsideError("this token does not open this place", where=field, mend=mend)
    return real


def check_prefixes(prefixes: Sequence[str], *, where: str) -> None:
    """Passes if places can lie in every one of them.

    Raises:
        RecipeError: one is no absolute path and no URL.
    """
    for prefix in prefixes:
        try:
            _real(prefix, where)
        except OutsideError as error:
            raise RecipeError(error.what, where=where, mend=error.mend) from error


def settle_source(source: SourceConfig, prefixes: Sequence[str]) -> SourceConfig:
    """The source with every place of it settled.

    Raises:
        OutsideError: one of them lies outside.
    """
    images = settled(source.images, prefixes, field="source.images") if _names_place(source.images) else source.images
    return SourceConfig(
        **{
            **{name: getattr(source, name) for name in source.__dataclass_fields__},
            "path": settled(source.path, prefixes, field="source.path", pattern=True),
            "images": images,
            "also": tuple(settle_source(one, prefixes) for one in source.also),
        }
    )


def settle_recipe(recipe: Recipe, prefixes: Sequence[str], open_addresses: Sequence[str]) -> Recipe:
    """The recipe with its source and models settled; it opens no address that the service itself does not.

    Raises:
        OutsideError: the field, and what it opens.
    """
    closed = set(recipe.fetch.allow_addresses) - set(open_addresses)
    if closed:
        told = ", ".join(sorted(closed))
        mend = "Leave it out, or ask the operator to open it in the service's own settings."
        raise OutsideError(f"the service does not open {told}", where="fetch.allow_addresses", mend=mend)
    captioner = _model(recipe.capfilt.captioner, prefixes, "capfilt.captioner")
    judge = _model(recipe.capfilt.filter, prefixes, "capfilt.filter")
    return replace(
        recipe,
        source=settle_source(recipe.source, prefixes),
        capfilt=replace(recipe.capfilt, captioner=captioner, filter=judge),
    )


def _model(model: str | None, prefixes: Sequence[str], field: str) -> str | None:
    known = {name for there in models() for name in (there, there.partition("/")[0])}
    # A folder of that name where the service runs would come before the catalogue's.
    if model is None or (model in known and not Path(model).exists()):
        return model
    return settled(model, prefixes, field=field)


def check_files(recipe: Recipe, prefixes: Sequence[str]) -> None:
    """Refuses a source or a model of which a file leads out of the prefixes by a link; for who is about to read it.

    Raises:
        OutsideError: names the file.
        SourceError: nothing is there.
    """
    for one in (recipe.source, *recipe.source.also):
        for place in (one.path, one.images):
            if not place or "://" in place:
                continue
            for name in expand(place):
                settled(name, prefixes, field=name)
                for file in _beside(Path(name)):
                    settled(str(file), prefixes, field=str(file))
    for model in (recipe.capfilt.captioner, recipe.capfilt.filter):
        if model is not None and Path(model).is_absolute():
            for file in Path(model).rglob("*"):
                settled(str(file), prefixes, field=str(file))


def _beside(file: Path) -> list[Path]:
    """What readers look for beside a file that was named."""
    ends = (".json", ".parquet", ".txt", "_stats.json")
    names = [VG_PICTURES, *(f"{file.stem}{end}" for end in ends)]
    return [there for name in names if (there := file.with_name(name)) != file and there.is_symlink()]


def check_dest(dest: str, prefixes: Sequence[str]) -> None:
    """Refuses a destination in which something leads out of the prefixes by a link.

    Raises:
        OutsideError: names it.
        RecipeError: the folder cannot be looked at.
    """
    settled(dest, prefixes, field="dest")
    root = Path(dest)
    try:
        if "://" in dest or not root.is_dir():
            return
        links = [entry for entry in [*root.iterdir(), *root.glob("*/*")] if entry.is_symlink()]
    except OSError as error:
        raise RecipeError(
            f"it cannot be looked at: {error.strerror}",
            where="dest",
            mend="Choose another folder, or give the service rights there.",
            passing=error.errno not in (errno.ENAMETOOLONG, errno.EACCES),
        ) from error
    for entry in links:
        settled(str(entry), prefixes, field=str(entry))


def _names_place(images: str) -> bool:
    # Before names of annotations an address of the web may stand: the safe client is what goes there.
    return bool(images) and not re.match(r"https?://", images, re.I)


def _real(place: str, field: str, *, pattern: bool = False) -> str:
    remote = _REMOTE.fullmatch(place)
    if remote and remote["scheme"].lower() in ("file", "local"):
        place, remote = remote["rest"], None
    pieces = re.split(r"[/\\]", place)
    odd = "\0" in place or "::" in place or "\\" in place or any(piece in (".", "..") for piece in pieces)
    if odd or (remote and not _plain(remote["rest"])):
        mend = "Write it plainly: without .., ::, backslashes and empty parts."
        raise OutsideError(f"{place[:200]!r} cannot be told to lie anywhere", where=field, mend=mend)
    if remote:
        return f"{remote['scheme'].lower()}://{remote['rest'].rstrip('/')}"
    path = Path(place)
    if not path.is_absolute():
        mend = "Give an absolute path, or a URL such as s3://bucket/folder."
        raise OutsideError(f"{place[:200]!r} is no absolute path", where=field, mend=mend)
    try:
        plain = [*path.parts]
        at = next((i for i, piece in enumerate(plain) if _GLOB.search(piece)), len(plain))
        if not pattern or path.exists():
            at = len(plain)
        return str(Path(*plain[:at]).resolve().joinpath(*plain[at:]))
    except (OSError, RuntimeError, ValueError) as error:
        mend = "Write it plainly."
        raise OutsideError(f"{place[:200]!r} cannot be resolved", where=field, mend=mend) from error


def _plain(rest: str) -> bool:
    """Whether a server sees the same pieces of an address as are written: none empty, none that a code hides."""
    while (meant := unquote(rest)) != rest:
        if meant.count("/") != rest.count("/"):
            return False
        rest = meant
    pieces = rest.rstrip("/").split("/")
    return "\\" not in rest and all(piece and piece.partition(";")[0] not in (".", "..") for piece in pieces)


def _within(real: str, prefix: str) -> bool:
    return real == prefix or real.startswith(prefix.rstrip("/") + "/")

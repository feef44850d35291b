"""Pictures with what people say of them, to be measured on: our shards and the annotation files of the field.

A picture is read when it is needed. Knows files; knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from capfilt import images
from capfilt.errors import DataError, SourceError
from capfilt.inputs import expand, open_read
from capfilt.shards.read import samples, shards_of
from capfilt.sources.annotations import annotated, inside

LIMITS = images.ImageLimits(min_side=1, max_aspect=1000.0)
"""Of pictures to measure on: those of the pipeline, but small and long ones are measured too."""


@dataclass(frozen=True)
class Referenced:
    """One picture and its references."""

    key: str
    """Unique in the set."""
    texts: tuple[str, ...]
    """What people say of it, at least one."""
    file: str = ""
    """Where the picture is, if it is not here."""
    data: bytes = b""
    """The encoded picture, if it is here."""
    id: str = ""
    """The content id that shards of ours say; empty of others."""
    rejected: tuple[str, ...] = ()
    """Texts of the picture that a filter took out and that are still in the shards; no references."""

    def image(self) -> bytes:
        """The encoded picture.

        Raises:
            SourceError: it is not where the annotations say.
        """
        if self.data:
            return self.data
        mend = "Give the folder of the pictures by --images."
        path = Path(self.file)
        if "://" not in self.file and path.exists() and not path.is_file():
            raise SourceError("the picture is no file", where=self.file, mend=mend)
        try:
            with open_read(self.file) as f:
                data: bytes = f.read(LIMITS.max_bytes + 1)
        except Exception as error:  # each file system of fsspec has errors of its own
            raise SourceError("the picture is not there", where=self.file, mend=mend) from error
        return data


def decode(item: Referenced) -> Image.Image:
    """The picture of an item: upright RGB, its longer side within :data:`LIMITS`, as the pipeline would see it.

    Raises:
        SourceError: it is not there. DataError: it is none, or is out of bounds.
    """
    found = images.normalise(item.image(), LIMITS)
    if isinstance(found, images.Refused):
        raise DataError(
            f"the picture cannot be decoded: {found.detail}", where=item.file or item.key, mend="Leave it out."
        )
    return images.decode(found.data)


def read(entries: Sequence[str], *, images: str | None = None, split: str | None = None) -> Iterator[Referenced]:
    """The pictures of shards, folders of shards, data sets, or JSON annotations, in order.

    Args:
        entries: paths, globs or fsspec URLs; what ends in ``.json`` is annotations.
        images: the folder that file names in annotations start from; else that of the annotations.
        split: of Karpathy's files only the pictures of this split (``test``, ``val``, ``train``).

    Raises:
        SourceError: something is not there. DataError: a file is not what its name says.
    """
    for entry in entries:
        if entry.lower().endswith(".json"):
            for url in expand(entry):
                yield from _annotated(url, images if images is not None else url.rpartition("/")[0] or ".", split)
        else:
            yield from _shards(entry)


def _shards(entry: str) -> Iterator[Referenced]:
    for sample in samples(shards_of(entry)):
        texts = tuple(caption["text"] for caption in sample.captions if caption["kept"])
        if texts:
            rejected = tuple(caption["text"] for caption in sample.captions if not caption["kept"])
            of = str(sample.meta.get("id") or "")
            yield Referenced(sample.key, texts, data=sample.image, id=of, rejected=rejected)


def _annotated(url: str, root: str, split: str | None) -> Iterator[Referenced]:
    found = 0
    for item in annotated(url, splits=() if split is None else (split,)):
        try:
            name = inside(item.name)
        except ValueError as error:
            raise DataError(str(error), where=url, mend="Leave the picture out.") from error
        if item.texts:
            found += 1
            yield Referenced(item.key, item.texts, file=f"{root.rstrip('/')}/{name}")
    if not found:
        raise DataError("no picture with a text", where=url, mend="Check the file, and --split if it was given.")

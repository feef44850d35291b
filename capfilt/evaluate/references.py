"""Pictures with what people say of them, to be measured on: our shards and the annotation files of the field.

COCO's and NoCaps' JSON, Karpathy's splits (COCO, Flickr30k) and BLIP's lists of ``{image, caption}``. A picture is read
when it is needed. Knows files; knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from capfilt import images
from capfilt.errors import DataError, SourceError
from capfilt.inputs import expand, open_read
from capfilt.shards.read import samples, shards_of

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
                root = images if images is not None else str(url).rpartition("/")[0] or "."
                yield from _annotated(_json(url), url, root, split)
        else:
            yield from _shards(entry)


def _shards(entry: str) -> Iterator[Referenced]:
    for sample in samples(shards_of(entry)):
        texts = tuple(caption["text"] for caption in sample.captions if caption["kept"])
        if texts:
            yield Referenced(sample.key, texts, data=sample.image)


def _json(url: str) -> Any:
    try:
        with open_read(url) as f:
            return json.loads(f.read())
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", where=url, mend="Copy the file again.") from error


def _annotated(data: Any, url: str, root: str, split: str | None) -> Iterator[Referenced]:
    try:
        if split is not None and (isinstance(data, list) or "annotations" in data):
            raise DataError("these annotations have no splits", where=url, mend="Leave out --split.")
        if isinstance(data, list):
            rows = _blip(data)
        elif "annotations" in data:
            rows = _coco(data)
        else:
            rows = _karpathy(data, split)
        found = 0
        for key, name, texts in rows:
            found += 1
            yield Referenced(key, texts, file=f"{root.rstrip('/')}/{name}")
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"annotations of no known kind: {type(error).__name__} {error}",
            where=url,
            mend="Known are COCO's and NoCaps' (images, annotations), Karpathy's (images with sentences) and BLIP's "
            "(a list of image and caption).",
        ) from error
    if not found:
        raise DataError("no picture with a text", where=url, mend="Check the file, and --split if it was given.")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a caption is {value!r}")
    return value


def _name(value: object) -> str:
    """A picture's file name, which must stay below its folder: annotations may be a stranger's."""
    name = PurePosixPath(_text(value))
    if ".." in name.parts or name.is_absolute():
        raise TypeError(f"a picture's name leads out of its folder: {name}")
    return str(name)


Row = tuple[str, str, tuple[str, ...]]


def _coco(data: Mapping[str, Any]) -> Iterator[Row]:
    texts: dict[Any, list[str]] = {}
    for annotation in data["annotations"]:
        texts.setdefault(annotation["image_id"], []).append(_text(annotation["caption"]))
    for image in data["images"]:
        if image["id"] in texts:
            yield str(image["id"]), _name(image["file_name"]), tuple(texts[image["id"]])


def _karpathy(data: Mapping[str, Any], split: str | None) -> Iterator[Row]:
    for image in data["images"]:
        if split is not None and image["split"] != split:
            continue
        name = f"{image['filepath']}/{image['filename']}" if image.get("filepath") else image["filename"]
        texts = tuple(_text(sentence["raw"]) for sentence in image["sentences"])
        if texts:
            yield str(image.get("cocoid", image.get("imgid", name))), _name(name), texts


def _blip(data: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """A list with one entry a picture and a list of captions (test files), or one entry a caption (training files)."""
    texts: dict[str, list[str]] = {}
    for row in data:
        said = row["caption"]
        texts.setdefault(str(row["image"]), []).extend(map(_text, said) if isinstance(said, list) else [_text(said)])
    for name, said in texts.items():
        if said:
            yield name, _name(name), tuple(said)

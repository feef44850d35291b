"""Annotation files of the field (.json): which pictures they name, and what people say of each.

COCO's and NoCaps' captions, Karpathy's splits (COCO, Flickr30k), Visual Genome's regions, and BLIP's lists of
``{image, caption}``. Read element by element; a picture's texts may lie far apart, so they are gathered. Knows JSON;
reads no picture and knows no folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from capfilt.errors import DataError, SourceError
from capfilt.inputs import identity, open_read
from capfilt.sources.columns import text_of
from capfilt.sources.documents import Scanner, meant

VG_PICTURES = "image_data.json"
"""Visual Genome's list of addresses, which is used where it lies beside the regions."""

_MEND = (
    "Known are COCO's and NoCaps' (images, annotations), Karpathy's (images with sentences), Visual Genome's "
    "(a list of regions) and BLIP's (a list of image and caption)."
)


@dataclass(frozen=True)
class Annotated:
    """One picture and what is said of it."""

    key: str
    """What the file calls it; unique in the file."""
    name: str
    """Its path below the folder of the pictures, or its web address."""
    texts: tuple[str, ...]
    """May be empty."""
    url: str = ""
    """Where its publisher serves it; empty if the file does not say."""


def annotated(file: str, *, splits: Collection[str] = ()) -> Iterator[Annotated]:
    """The pictures of a file, in its order.

    Args:
        file: a path or URL.
        splits: of Karpathy's files only pictures of these (``train``, ``restval``, ``val``, ``test``); none takes all.

    Raises:
        DataError: it is no JSON, of no known kind, or has no splits. SourceError: it is not there.
    """
    with open_read(file) as stream:
        scanner = Scanner(stream, file)
        try:
            found = _list(scanner, file) if scanner.peek() == "[" else _object(scanner, file, splits)
            if splits and not isinstance(found, _Split):
                raise DataError("these annotations have no splits", where=file, mend="Leave the split out.")
            yield from found
        except SourceError as error:
            raise DataError(f"not JSON: {error.what}", where=error.where, mend="Copy the file again.") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(
                f"annotations of no known kind: {type(error).__name__} {error}", where=file, mend=_MEND
            ) from error


def has_splits(file: str) -> bool:
    """Whether a file is Karpathy's, by its first picture.

    Raises:
        SourceError: it is not there, or no JSON.
    """
    with open_read(file) as stream:
        scanner = Scanner(stream, file)
        for key in scanner.members() if scanner.peek() == "{" else ():
            if key == "images":
                return "split" in next(_elements(scanner), {})
            scanner.skip()
    return False


def content(file: str) -> str:
    """A digest of all that decides what :func:`annotated` gives: the file, and the list of addresses beside it.

    Raises:
        SourceError: the file is not there.
    """
    told = identity(file)
    try:
        return hashlib.sha256(f"{told}\n{identity(_beside(file))}".encode()).hexdigest()
    except (SourceError, FileNotFoundError):
        return told


def inside(name: str) -> str:
    """A picture's name, which must stay below its folder: annotations may be a stranger's.

    Raises:
        ValueError: it leads out.
    """
    path = PurePosixPath(name)
    if ".." in path.parts or path.is_absolute():
        raise ValueError(f"a picture's name leads out of its folder: {name}")
    return str(path)


class _Split(list[Annotated]):
    """Pictures that were chosen by split."""


def _list(scanner: Scanner, file: str) -> Iterable[Annotated]:
    values = _elements(scanner)
    first = next(values, None)
    if first is None:
        return []
    whole = chain([first], values)
    return _regions(whole, file) if "regions" in first else _blip(whole)


def _object(scanner: Scanner, file: str, splits: Collection[str]) -> Iterable[Annotated]:
    if scanner.peek() not in ("", "{"):
        raise TypeError("neither a list nor an object")
    images: list[Mapping[str, Any]] | None = None
    texts: dict[Any, list[str]] | None = None
    for key in scanner.members():
        if key == "images":
            images = [_lean(image) for image in _elements(scanner)]
        elif key == "annotations":
            texts = {}
            for annotation in _elements(scanner):
                texts.setdefault(annotation["image_id"], []).append(_text(annotation["caption"]))
        else:
            scanner.skip()
    if images is None:
        raise KeyError("images")
    return _karpathy(images, splits) if texts is None else _coco(images, texts)


def _elements(scanner: Scanner) -> Iterator[Mapping[str, Any]]:
    if scanner.peek() != "[":
        raise TypeError("a list of pictures or of texts is missing")
    scanner.take("[")
    for _, text, _ in scanner.elements():
        value = meant(text)
        if not isinstance(value, dict):
            raise TypeError(f"an entry is {str(value)[:60]!r}")
        yield value


def _lean(image: Mapping[str, Any]) -> Mapping[str, Any]:
    """An image without what is not read: words and tokens of a hundred thousand are hundreds of megabytes."""
    if "sentences" not in image:
        return {name: image.get(name) for name in ("id", "file_name", "coco_url", "flickr_url")}
    return {**image, "sentences": [_text(sentence["raw"]) for sentence in image["sentences"]]}


def _coco(images: Iterable[Mapping[str, Any]], texts: Mapping[Any, list[str]]) -> Iterator[Annotated]:
    for image in images:
        if image["id"] is None:
            raise KeyError("id")
        url = image["coco_url"] or image["flickr_url"] or ""
        name = _text(image["file_name"] or PurePosixPath(_text(url)).name)
        yield Annotated(str(image["id"]), name, tuple(texts.get(image["id"], ())), _text(url))


def _karpathy(images: Iterable[Mapping[str, Any]], splits: Collection[str]) -> list[Annotated]:
    found = _Split() if splits else []
    for image in images:
        if splits and image["split"] not in splits:
            continue
        name = f"{image['filepath']}/{image['filename']}" if image.get("filepath") else _text(image["filename"])
        found.append(Annotated(str(image.get("cocoid", image.get("imgid", name))), name, tuple(image["sentences"])))
    return found


def _regions(rows: Iterable[Mapping[str, Any]], file: str) -> Iterator[Annotated]:
    """Visual Genome: one entry a picture, with the phrases of its regions, of which some are there twice."""
    urls = _addresses(file)
    for row in rows:
        key = row.get("id", row.get("image_id"))
        if key is None:
            raise KeyError("id")
        texts = dict.fromkeys(_text(region["phrase"]) for region in row["regions"])
        url = urls.get(key, "")
        # Its pictures come in two folders, which only their addresses tell.
        name = "/".join(url.split("/")[-2:]) if url else f"{key}.jpg"
        yield Annotated(str(key), name, tuple(texts), url)


def _addresses(file: str) -> dict[Any, str]:
    try:
        with open_read(_beside(file)) as stream:
            rows = _elements(Scanner(stream, file))
            return {row.get("image_id", row.get("id")): _text(row["url"]) for row in rows}
    except SourceError:
        return {}


def _beside(file: str) -> str:
    folder, slash, _ = file.rpartition("/")
    return f"{folder}{slash}{VG_PICTURES}"


def _blip(rows: Iterable[Mapping[str, Any]]) -> Iterator[Annotated]:
    """A list with one entry a picture and a list of captions (test files), or one entry a caption (training files)."""
    texts: dict[str, list[str]] = {}
    for row in rows:
        said = row["caption"]
        told = map(_text, said) if isinstance(said, list) else [_text(said)]
        texts.setdefault(_text(row["image"]), []).extend(told)
    for name, each in texts.items():
        yield Annotated(name, name, tuple(each))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a caption is {value!r}")
    return text_of(value) or ""

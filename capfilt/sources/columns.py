"""Which column is meant: by its name, whatever its case, or by the names that known corpora use.

Knows names and single values; knows no format.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from capfilt.errors import SourceError, meant
from capfilt.sources.base import SourceConfig

_ALIASES = {
    "url": ("url", "image_url", "img_url", "imageurl", "image_link", "link", "uri", "image_urls", "urls"),
    "caption": ("caption", "text", "alt_text", "alt", "title", "top_caption", "captions", "sentence", "description"),
    "image": ("image", "jpg", "jpeg", "png", "webp", "img", "picture", "image_bytes", "bytes"),
    "key": ("key", "uid", "sample_id", "image_id", "id"),
}
"""In lower case, the likeliest first; looked for only when the recipe keeps the default name."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are used for; None where there is none."""

    url: str | None
    """Addresses; None only where pictures are."""
    caption: str | None
    """Texts."""
    key: str | None
    """The source's own keys."""
    image: str | None
    """Encoded pictures."""

    @property
    def used(self) -> dict[str, str]:
        """From role to column, of those that are there."""
        return {role: name for role, name in vars(self).items() if name is not None}


def find_columns(names: Sequence[str], config: SourceConfig, file: str, pictures: Collection[str] = ()) -> Columns:
    """The columns that a recipe means.

    Args:
        names: all columns.
        config: what they are called.
        file: for errors.
        pictures: those of a type that can hold pictures.

    Raises:
        SourceError: one is not there; the error lists those that are.
    """
    image = _image(names, config, file, pictures)
    rest = [name for name in names if name != image]
    url = _named(rest, config.url_column, "url")
    if url is None and (image is None or config.url_column != "url"):
        raise _missing(names, config.url_column, "url", file)
    caption = _named(rest, config.caption_column, "caption") if config.caption_column else None
    # A table of pictures alone is a table still; one of addresses without texts is more likely misread.
    if caption is None and config.caption_column and (image is None or config.caption_column != "caption"):
        raise _missing(names, config.caption_column, "caption", file)
    key = _named(rest, config.key_column, "key") if config.key_column else None
    if key is None and config.key_column not in ("", "key"):
        raise _missing(names, config.key_column, "key", file)
    return Columns(url, caption, key, image)


def text_of(value: Any) -> str | None:
    """A cell as text: empty for null and NaN, None for what is no text (a list, a struct)."""
    if value is None or value != value:  # noqa: PLR0124 - only NaN differs from itself
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        # JSON may spell lone surrogates, which no UTF-8 column can hold.
        return value.encode("utf-8", "replace").decode()
    return str(value) if isinstance(value, bool | int | float) else None


def texts_of(value: Any) -> list[str] | None:
    """A cell as captions: a text or a list of texts, without the blank ones; None for what is neither."""
    found = [text_of(item) for item in value] if isinstance(value, list) else [text_of(value)]
    return None if None in found else [text for text in found if text and text.strip()]


def key_of(value: Any) -> str | None:
    """A cell as the source's key; None for null, a blank and what is no text."""
    # Whole numbers that passed through pandas are floats.
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return text_of(whole) or None


def _image(names: Sequence[str], config: SourceConfig, file: str, pictures: Collection[str]) -> str | None:
    if not config.image_column:
        return None
    found = _named([name for name in names if name in pictures], config.image_column, "image")
    if found is None and config.image_column != "image":
        raise _missing(names, config.image_column, "image", file)
    return found


def _named(names: Sequence[str], wanted: str, role: str) -> str | None:
    if wanted in names:
        return wanted
    folded = {name.lower(): name for name in reversed(names)}
    tried = _ALIASES[role] if wanted == role else (wanted.lower(),)
    return next((folded[name] for name in tried if name in folded), None)


def _missing(names: Sequence[str], wanted: str, role: str, file: str) -> SourceError:
    listed = ", ".join(name[:40] for name in names[:30]) or "none"
    none = {"caption": " (empty if it has no texts)", "key": " (empty if it has no keys)"}.get(role, "")
    kind = "column of pictures" if role == "image" else "column"
    return SourceError(
        f"it has no {kind} {wanted!r}; its columns are: {listed}",
        where=file,
        mend=f"{meant(wanted, names)}Set source.{role}_column to one of them{none}.",
    )

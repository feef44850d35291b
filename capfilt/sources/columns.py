"""Which column is meant: by its name, whatever its case, or by the names that known corpora use.

Knows names and single values; knows no format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capfilt.errors import SourceError
from capfilt.sources.base import SourceConfig

_ALIASES = {
    "url": ("url", "image_url", "img_url", "imageurl", "image_link", "link", "uri"),
    "caption": ("caption", "text", "alt_text", "alt", "title", "top_caption", "sentence", "description"),
}
"""In lower case, the likeliest first; looked for only when the recipe keeps the default name."""


def find_columns(names: Sequence[str], config: SourceConfig, file: str) -> tuple[str, str | None]:
    """The columns of addresses and of texts; None for texts when the recipe says that there are none.

    Raises:
        SourceError: one is not there; the error lists those that are.
    """
    url = _find(names, config.url_column, "url", file)
    return url, _find(names, config.caption_column, "caption", file) if config.caption_column else None


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


def _find(names: Sequence[str], wanted: str, role: str, file: str) -> str:
    if wanted in names:
        return wanted
    folded = {name.lower(): name for name in reversed(names)}
    tried = _ALIASES[role] if wanted == role else (wanted.lower(),)
    for name in tried:
        if name in folded:
            return folded[name]
    listed = ", ".join(name[:40] for name in names[:30]) or "none"
    none = " (empty if it has no texts)" if role == "caption" else ""
    raise SourceError(
        f"it has no column {wanted!r}; its columns are: {listed}",
        where=file,
        mend=f"Set source.{role}_column to one of them{none}.",
    )

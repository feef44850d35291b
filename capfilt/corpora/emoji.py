"""Emoji drawn by several hands: their names from CLDR, their vectors, and which of their variants are used.

A *concept* is an emoji without its skin tone, gender and direction: man, woman and person running are one concept
and fall on one side of the split. Knows the packages' files; renders nothing and writes nothing.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capfilt.corpora.packages import read_npm
from capfilt.corpora.sides import chance

NAMES = "emojibase-data"
"""The package of names."""
VARIANTS = 3
"""Most pictures of one concept in one style, skin tones not counted: else roles and families fill the corpus."""
TONED = 0.1
"""The share of concepts with skin tones that show one of them, beside the picture without."""

_TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})
_MODIFIERS = _TONES | {"fe0f", "200d", "2640", "2642", "27a1"}
_PEOPLE = {"1f468": "1f9d1", "1f469": "1f9d1", "1f474": "1f9d3", "1f475": "1f9d3"}
_SAME = {"1f936": "1f385", "1f478": "1f934"}
"""Mrs. Claus is Santa Claus, the princess the prince: one concept in two genders, with code points of their own."""
_GATHERINGS = ("family", "kiss", "couple with heart", "men holding", "women holding", "people holding", "woman and man")
_COMPONENT, _SYMBOLS, _GEOMETRIC = 2, 8, 96


@dataclass(frozen=True, kw_only=True)
class Style:
    """One hand's drawings of the emoji."""

    name: str
    package: str
    trained: bool
    """Whether it may be trained on; one that may not is for measuring only."""


STYLES = (
    Style(name="noto", package="@iconify-json/noto", trained=True),
    Style(name="noto-v1", package="@iconify-json/noto-v1", trained=True),
    Style(name="twemoji", package="@iconify-json/twemoji", trained=True),
    Style(name="openmoji", package="@iconify-json/openmoji", trained=True),
    Style(name="emojione", package="@iconify-json/emojione", trained=True),
    Style(name="emojione-v1", package="@iconify-json/emojione-v1", trained=True),
    Style(name="streamline", package="@iconify-json/streamline-emojis", trained=True),
    Style(name="fluent", package="@iconify-json/fluent-emoji", trained=False),
    Style(name="fluent-flat", package="@iconify-json/fluent-emoji-flat", trained=False),
)


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One emoji: what CLDR says of it."""

    code: str
    """Code points in lower case hex, joined by hyphens, without variation selectors."""
    label: str
    tags: tuple[str, ...]
    """Keywords, those of most emoji first: they say of what kind it is."""
    concept: str
    symbol: bool
    """A sign, not a thing."""
    toned: bool


def read_names(archive: Path) -> dict[str, Emoji]:
    """Every emoji that CLDR names, by code; components (lone skin tones, hair) are left out."""
    entries = json.loads(read_npm(archive, "en/data.json"))
    return {emoji.code: emoji for emoji in named(entries)}


def named(entries: Iterable[Mapping[str, Any]]) -> list[Emoji]:
    """The emoji of emojibase's ``data.json``, with and without skin tones; their keywords the commonest first."""
    used = [entry for entry in entries if entry.get("group") not in (None, _COMPONENT)]
    common = Counter(tag for entry in used for tag in entry.get("tags", ()))
    found = []
    for entry in used:
        tags = tuple(sorted(entry.get("tags", ()), key=lambda tag: (-common[tag], tag)))
        found.append(_emoji(entry, tags, entry["label"]))
        found.extend(_emoji(skin, tags, entry["label"]) for skin in entry.get("skins", ()))
    return found


def _emoji(entry: Mapping[str, Any], tags: tuple[str, ...], base_label: str) -> Emoji:
    code = plain_code(entry["hexcode"])
    return Emoji(
        code=code,
        label=entry["label"].replace("’", "'"),
        tags=tags,
        concept=concept_of(code, base_label),
        symbol=entry["group"] == _SYMBOLS and entry.get("subgroup") != _GEOMETRIC,
        toned=not _TONES.isdisjoint(code.split("-")),
    )


def plain_code(code: str) -> str:
    """``1F575-FE0F-200D-2642-FE0F`` as ``1f575-200d-2642``: packages differ in where they put the selector."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def concept_of(code: str, label: str) -> str:
    """The name of the concept: the code without tone, gender and direction; families and couples are one each."""
    for gathering in _GATHERINGS:
        if label.startswith(gathering):
            return "holding-hands" if "hold" in gathering or " and " in gathering else gathering.replace(" ", "-")
    # A lone modifier is an emoji of its own: the female sign, the arrow to the right.
    parts = [part for part in code.split("-") if part not in _MODIFIERS] or [code]
    if parts[0] in _PEOPLE and len(parts) == 1:
        return _PEOPLE[parts[0]]
    return "-".join(_PEOPLE.get(part, _SAME.get(part, part)) for part in parts)


def read_vectors(archives: Mapping[str, Path], style: Style, names: Mapping[str, Emoji]) -> dict[str, str]:
    """The style's pictures as SVG, by emoji code; icons that are no emoji by name or code are left out.

    Args:
        archives: from package name to its archive.
        style: whose pictures.
        names: every emoji that may be asked for.
    """
    archive = archives[style.package]
    icons = json.loads(read_npm(archive, "icons.json"))
    chars = json.loads(read_npm(archive, "chars.json"))
    by_code = {plain_code(code): name for code, name in chars.items()}
    for emoji in names.values():
        # Some sets tell no code points; their icons are called as CLDR calls the emoji.
        by_code.setdefault(emoji.code, slug(emoji.label))
    found = {code: svg_of(icons, by_code[code]) for code in names if code in by_code}
    return {code: svg for code, svg in found.items() if svg is not None}


def slug(label: str) -> str:
    """``man: light skin tone`` as ``man-light-skin-tone``."""
    ascii_only = unicodedata.normalize("NFKD", label.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only.replace("'", "")).strip("-")


def svg_of(icons: Mapping[str, Any], name: str) -> str | None:
    """An icon of Iconify's ``icons.json`` as a whole SVG, by its name or alias; None if it is not there or turned."""
    for _ in range(3):
        alias = icons.get("aliases", {}).get(name)
        if alias is None:
            break
        if alias.keys() & {"rotate", "hFlip", "vFlip"}:
            return None
        name = alias["parent"]
    icon = icons["icons"].get(name)
    if icon is None:
        return None
    box = {key: icon.get(key, icons.get(key, 16 if key in ("width", "height") else 0)) for key in _BOX}
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{box["width"]}" height="{box["height"]}" '
        f'viewBox="{box["left"]} {box["top"]} {box["width"]} {box["height"]}">{icon["body"]}</svg>'
    )


_BOX = ("left", "top", "width", "height")


def chosen(style: str, emoji: Iterable[Emoji]) -> list[Emoji]:
    """Which variants of each concept the style shows, in order of their codes.

    The plainest always; of the others as many as :data:`VARIANTS` allows; one skin tone for one concept in ten.
    """
    concepts: dict[str, list[Emoji]] = {}
    for one in emoji:
        concepts.setdefault(one.concept, []).append(one)
    picked: list[Emoji] = []
    for concept, variants in concepts.items():
        rank = {one.code: chance("variant", style, one.code) for one in variants}
        plain = sorted((one for one in variants if not one.toned), key=lambda one: (one.code.count("-"), one.code))
        picked += plain[:1] + sorted(plain[1:], key=lambda one: rank[one.code])[: VARIANTS - 1]
        toned = sorted((one for one in variants if one.toned), key=lambda one: rank[one.code])
        picked += toned[:1] if chance("toned", style, concept) < TONED else []
    return sorted(picked, key=lambda one: one.code)

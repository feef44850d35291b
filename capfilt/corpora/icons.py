"""Icons of many sets, named by those who drew them: far more things than there are emoji, and in plainer looks.

They are the filter's only (``embedded``): what shows a concept that the emoji hold out is left out by its name, and no
word of theirs comes into the vocabulary. Knows the packages' files and names; renders nothing and writes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capfilt.corpora.emoji import svg_of
from capfilt.corpora.packages import read_npm
from capfilt.corpora.sides import pick


@dataclass(frozen=True, kw_only=True)
class IconSet:
    """One set of icons."""

    name: str
    only: frozenset[str] = frozenset()
    """Of these variants of each icon alone, by the last word of the icon's name; empty: of all."""
    without: frozenset[str] = frozenset()
    """Icons with one of these words are left out: they are another icon with a mark beside it."""
    numbered: bool = False
    """Whether a number in words at the end tells variants of one icon apart, as "two" does in "bottle-two"."""
    categories: frozenset[str] = frozenset()
    """The icons of these of the package's own categories alone; empty: of all."""

    @property
    def package(self) -> str:
        """Where it is."""
        return f"@iconify-json/{self.name}"


_MARKED = frozenset(
    re.findall(
        r"\w+",
        """off outline plus minus cog check alert filled x pause up down share edit cancel bolt code dollar exclamation
        heart pin question search star brand alpha letter number box circle square settings config""",
    )
)
SETS = (
    IconSet(name="game-icons"),
    IconSet(name="icon-park", numbered=True),
    IconSet(name="ph", only=frozenset({"fill", "duotone"})),
    IconSet(name="healthicons", without=frozenset({"outline", "negative", "24px"})),
    IconSet(name="streamline-color"),
    IconSet(name="streamline-plump-color"),
    IconSet(name="streamline-flex-color"),
    IconSet(name="streamline-sharp-color"),
    IconSet(name="streamline-ultimate-color"),
    IconSet(name="streamline-freehand-color"),
    IconSet(name="streamline-kameleon-color"),
    IconSet(name="streamline-cyber-color"),
    IconSet(name="flat-color-icons"),
    IconSet(name="maki"),
    IconSet(name="temaki"),
    IconSet(name="tabler", without=_MARKED),
    IconSet(name="mdi", without=_MARKED),
)
_NO_THINGS = frozenset(
    re.findall(
        r"\w+",
        """adilette agender android apple arduino aroace aromantic artstation asexual bdsm bigender bisexual bluesky
        canary captain chrome chromium circled combining converse cplusplus crocs csharp darth delete demiboy
        demigender demigirl demisexual discord dotnet dude ecosia edge element facebook facetime firefox gay
        genderfluid genderqueer github gitlab gmund golang google greta greysexual hfg ibeacon imac inaturalist
        indicator instagram internet intersex intricate javascript jellyfin kotlin lesbian lettersymbol linkedin
        macbook magicmouse markdown mastodon musicbrainz netscape nonbinary openfoodfact openstreetmap opera pansexual
        peertube pinterest pixelfed polyamory polysexual raspberry reddit responsive retina rounded ruby safari
        service simple star svg symbol trump twitter typescript ubuntu webassembly wikidata windows winrar youtube""",
    )
)
"""Firms, people, signs and identities: what their icons show is no thing that the name says."""
EXTRAS = (
    IconSet(name="openmoji", categories=frozenset({"Extras Openmoji", "Extras Unicode"}), without=_NO_THINGS),
    IconSet(name="streamline-stickies-color"),
    IconSet(name="flat-ui", without=_NO_THINGS),
    IconSet(name="fluent-color", only=frozenset({"32"})),
)
"""Coloured drawings as large and plain as the emoji are, of things that Unicode has no emoji of."""
COLOURS = (
    *("#000",) * 4,
    *("#333", "#555", "#888", "#c62828", "#1565c0", "#2e7d32", "#ef6c00", "#6a1b9a", "#4e342e", "#00838f"),
)
"""What an icon of one colour is drawn in: mostly black, else dark enough to be seen on white."""
LONGEST = 4
"""Most words of a name: longer ones list what is on a screen."""

_VARIANTS = frozenset(
    re.findall(r"\w+", "flat duo fill filled duotone outline negative line 24px bold light thin alt off")
)
_COUNTED = frozenset({"one", "two", "three", "four", "five"})
_LOGOS = frozenset({"logo", "logos", "brand"})
_SMALL = frozenset(re.findall(r"\w+", "a an and in of on the to with for by at"))


@dataclass(frozen=True)
class Icon:
    """One icon: ``name`` as words, and its picture as SVG."""

    set: str
    key: str
    name: str
    svg: str


def read_icons(archives: Mapping[str, Path], *, hidden: Hidden, sets: Iterable[IconSet] = SETS) -> Iterator[Icon]:
    """Every icon that is named by words and shows nothing of what is hidden, set by set, by key.

    Args:
        archives: from package name to its archive.
        hidden: the concepts that no icon may show.
        sets: :data:`SETS` or :data:`EXTRAS`.
    """
    for one in sets:
        icons = json.loads(read_npm(archives[one.package], "icons.json"))
        for key in _keys(icons, archives, one):
            name = name_of(key, one)
            if name is None or hidden.shown_by(name):
                continue
            svg = svg_of(icons, key)
            if svg is not None:
                colour = COLOURS[pick(len(COLOURS), "colour", f"icon:{one.name}/{key}")]
                yield Icon(one.name, key, name, svg.replace("currentColor", colour))


def _keys(icons: Mapping[str, Any], archives: Mapping[str, Path], of: IconSet) -> list[str]:
    if not of.categories:
        return sorted(icons["icons"])
    told = json.loads(read_npm(archives[of.package], "metadata.json"))["categories"]
    return sorted({key for category in of.categories for key in told[category]} & icons["icons"].keys())


def name_of(key: str, of: IconSet) -> str | None:
    """``fire-extinguisher-2-flat`` as ``fire extinguisher``; None for what is no name, or one that is not wanted."""
    parts = key.split("-")
    if (of.only and parts[-1] not in of.only) or not of.without.isdisjoint(parts):
        return None
    while parts and (parts[-1] in _VARIANTS or parts[-1].isdigit() or (of.numbered and parts[-1] in _COUNTED)):
        parts.pop()
    parts = [part for part in parts if not part.isdigit()]
    name = " ".join(parts)
    named = re.fullmatch(r"[a-z][a-z ]{2,}", name) and len(parts) <= LONGEST and _LOGOS.isdisjoint(parts)
    return name if named else None


class Hidden:
    """Concepts that are held out, by their names.

    A text shows one of them if it holds a word that stands in names of held-out concepts only, all words of such a
    name, or nothing but words of one.

    Args:
        held_out, trained: names of either side.
    """

    def __init__(self, held_out: Iterable[str], trained: Iterable[str]) -> None:
        self._names = frozenset(words(name) for name in held_out) - {frozenset()}
        self._only = frozenset().union(*self._names) - frozenset().union(*map(words, trained))

    def shown_by(self, text: str) -> bool:
        """Whether a text tells of one; what says nothing is taken for one."""
        said = words(text)
        return not said.isdisjoint(self._only) or any(name <= said or said <= name for name in self._names) or not said


def words(text: str) -> frozenset[str]:
    """The words that mean something, singular where that is plain."""
    return frozenset(_singular(word) for word in re.findall("[a-z]+", text.lower()) if word not in _SMALL)


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word

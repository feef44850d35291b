"""Open Clip Art: pictures with what their uploaders wrote about them, and whether they are in the public domain.

Knows the RDF that stands in the drawings and the folders of the packages; renders nothing and writes nothing.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from capfilt.captions import clean
from capfilt.corpora.packages import read_debian
from capfilt.corpora.sides import SERIES_ALWAYS_TRAINED, chance, held_out

PICTURES, TITLES = "openclipart-png", "openclipart-svg"
"""The two packages."""
LEFT_OUT = frozenset({"decorations/sunwheel_vikingdread_01"})
"""Drawings that are shown to nobody: a sign of hate."""
REPEATS = 3
"""Most pictures with one title in the balanced training set: what repeats most is noise by itself."""

_WORK = re.compile(r"<cc:Work\b.*?</cc:Work>|<Work\b.*?</Work>", re.DOTALL)
_OTHERS = re.compile(r"<dc:(publisher|creator|rights|contributor)\b.*?</dc:\1>", re.DOTALL)
_LICENCE = re.compile(r"<(?:cc:)?license\b[^>]*?rdf:(?:resource|about)\s*=\s*[\"']([^\"']*)[\"']")
_DATE = re.compile(r"mon|tue|wed|thu|fri|sat|sun|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec")


@dataclass(frozen=True, kw_only=True)
class About:
    """What a drawing's RDF says of it; empty where it says nothing."""

    title: str
    description: str
    public_domain: bool

    @property
    def text(self) -> str:
        """What stands for an alt text: the title, or the description of an untitled one."""
        return self.title or self.description


def read_about(svg: str) -> About:
    """The RDF of one drawing; nothing at all for one without.

    Read by patterns, not as XML: many drawings are not well-formed, and a stranger's XML can be a bomb.
    """
    work = _WORK.search(svg)
    block = work.group(0) if work else ""
    own = _OTHERS.sub("", block)
    licences = _LICENCE.findall(block)
    return About(
        title=_element(own, "title"),
        description=_element(own, "description"),
        public_domain=bool(licences) and all(_is_public_domain(url) for url in licences),
    )


def _element(block: str, name: str) -> str:
    found = re.search(rf"<dc:{name}\b[^>]*>(.*?)</dc:{name}>", block, re.DOTALL)
    text = html.unescape(re.sub(r"<[^>]*>", " ", found.group(1))) if found else ""
    return re.sub(r"\s+", " ", text).strip()


def _is_public_domain(url: str) -> bool:
    name = url.rstrip("/").rsplit("/", 1)[-1].lower()
    return name == "publicdomain"


def read_all_about(archive: Path) -> dict[str, About]:
    """What every drawing of the package of titles says, by its path without the ending."""
    return {name: read_about(data.decode("utf-8", "replace")) for name, data in _files(archive, "svg")}


def usable(every: Mapping[str, About]) -> dict[str, About]:
    """Those in the public domain of which something is written and that may be shown."""
    return {name: one for name, one in every.items() if one.public_domain and clean(one.text) and name not in LEFT_OUT}


def read_pictures(archive: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """(path without the ending, PNG bytes) of the named pictures, in the archive's order."""
    wanted = frozenset(names)
    return (pair for pair in _files(archive, "png") if pair[0] in wanted)


def _files(archive: Path, ending: str) -> Iterator[tuple[str, bytes]]:
    folder = f"usr/share/openclipart/{ending}/"
    for name, data in read_debian(archive, lambda n: n.startswith(folder) and n.endswith(f".{ending}")):
        yield name.removeprefix(folder).removesuffix(f".{ending}"), data


def series_of(name: str) -> str:
    """Pictures that differ by a number in their file name are of one series: near-identical drawings."""
    return re.sub(r"\d+", "#", name)


def series_of_all(pictures: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """The series of each picture; series that share a picture to the byte are one."""
    parent: dict[str, str] = {}
    first: dict[str, str] = {}
    own: dict[str, str] = {}

    def root(series: str) -> str:
        while parent.setdefault(series, series) != series:
            series = parent[series]
        return series

    for name, data in pictures:
        own[name] = series_of(name)
        twin = first.setdefault(hashlib.sha256(data).hexdigest(), own[name])
        low, high = sorted((root(twin), root(own[name])))
        parent[high] = low
    return {name: root(series) for name, series in own.items()}


def sides(series: Mapping[str, str]) -> dict[str, bool]:
    """Whether each picture is held out; a whole series is, or none of it."""
    sizes = Counter(series.values())
    return {name: sizes[one] <= SERIES_ALWAYS_TRAINED and held_out("clipart", one) for name, one in series.items()}


def title_key(text: str) -> str:
    """What titles are counted by: cleaned, without numbers and dates, for these change and the rest repeats."""
    words = clean(text).split(" ")
    kept = [word for word in words if not any(c.isdigit() for c in word) and not _DATE.fullmatch(word)]
    return " ".join(kept) or " ".join(words)


def balanced(texts: Mapping[str, str]) -> set[str]:
    """The names that stay when no title stands more than :data:`REPEATS` times; which ones stay is by chance, fixed."""
    groups: dict[str, list[str]] = {}
    for name, text in texts.items():
        groups.setdefault(title_key(text), []).append(name)
    return {
        name for names in groups.values() for name in sorted(names, key=lambda name: chance("balance", name))[:REPEATS]
    }

"""Short honest sentences for an emoji, from the name and the keywords that CLDR gives it.

The name leads: a captioner must learn the words for things, not a phrase around them. Which sentence an image gets
depends on its own name only. Knows words; knows no pictures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from capfilt.corpora.sides import pick

_PLURAL = re.compile(r"(?:[^sui]s|skis|people|men|women|teeth|dice|feet)$")
_BARE = frozenset({"a", "an", "the", "keycap", "two", "three", "men", "women", "people"})
_MASS = frozenset(
    re.findall(
        r"\w+",
        """rice bread bacon butter salt cheese ice fog rain snow fire money wood bamboo ginger garlic honey tofu curry
        spaghetti sushi sake milk tea popcorn chocolate oil water mail rock clothing basketball baseball football
        tennis golf rugby bowling curling judo fencing hockey lacrosse polo soccer volleyball softball badminton""",
    )
)
_WORD = re.compile(r"[a-z][a-z'-]{2,}(?: [a-z'-]{2,}){0,2}", re.ASCII)
_SAID_NOT_SEEN = frozenset(
    re.findall(
        r"\w+",
        """omg brb omw lol yolo wow aah eek yeah yes love like good cool nice amazing awesome you me not ily bae xoxo
        whatever bff bestie bestfriend bro babe feels fine ripped ugly dating flirt flirting date crush adorbs excited
        hbd lmao rofl tbh idk smh wtf ugh yikes yuck meh duh fab lit goat boss slay savage omgwow sus thx ty well
        great perfect fab gorgeous beautiful boom dope hbu hey hello dude dang welp nope yum yummy yup yas true""",
    )
)
"""Keywords by which people look an emoji up when they chat: nobody sees them on the picture."""
_HEAD_KEYWORDS = 4
"""How many keywords, commonest first, the second one is drawn from."""


def phrase(label: str) -> str:
    """The label as words: ``flag: Chad`` is the flag of Chad, ``man: red hair`` a man with red hair."""
    if time := re.fullmatch(r"(\w+)(?: o'clock|-thirty)", label):
        return f"clock showing {time.group(0).replace('-', ' ')}"
    head, colon, tail = label.partition(": ")
    return _joined(head, tail) if colon else label.replace("“", "").replace("”", "")


def _joined(head: str, tail: str) -> str:
    if head in ("family", "kiss", "couple with heart"):
        return _members(head, tail)
    whole = {"flag": f"the flag of {tail}", "keycap": f"keycap {tail}"}.get(head)
    if whole is None and tail.startswith("facing"):
        whole = f"{head} {tail}"
    if whole is None and tail == "bald":
        whole = f"bald {head}"
    return whole or f"{head} with {tail.replace(', ', ' and ')}"


def _members(head: str, tail: str) -> str:
    # "family: man, woman, boy, light skin tone" in a toned variant: the tone is not a member.
    who = [name for name in tail.split(", ") if "skin tone" not in name]
    if not who:
        return head
    listed = who[0] if len(who) == 1 else f"{', '.join(who[:-1])} and {who[-1]}"
    return f"{head} of {listed}" if head == "family" else f"{head}, {listed}"


def with_article(words: str) -> str:
    """``a red apple``, ``an octopus``; unchanged if it is plural, a mass, or has its article."""
    first, last = words.split(" ", 1)[0], words.rsplit(" ", 1)[-1].lower()
    # What is before "with", "in" and "of" is what is counted: a face with tears.
    counted = re.split(r" (?:with|in|of|on|over|and|between|holding|wearing|without) ", words)[0].rsplit(" ", 1)[-1]
    proper = all(word[:1].isupper() for word in words.split(" "))
    if proper or first in _BARE or counted in _MASS or _PLURAL.search(counted) or last in _MASS:
        return words
    vowel = re.match(r"(?:[aeio]|u(?!ni|s[ae])|hourglass|honest)", first.lower()) is not None
    return f"{'an' if vowel else 'a'} {words}"


def keywords(words: str, tags: Sequence[str]) -> list[str]:
    """The tags that say something the words do not, and something that can be seen, in their order."""
    said = _forms(words)
    good = (tag for tag in tags if _WORD.fullmatch(tag) and tag not in _SAID_NOT_SEEN)
    return [tag for tag in good if not said & _forms(tag)]


def _forms(text: str) -> set[str]:
    words = set(re.findall(r"[a-z]+", text.lower()))
    return words | {word + "s" for word in words} | {word.removesuffix("s") for word in words}


def sentences(label: str, tags: Sequence[str], *, symbol: bool, seed: str) -> list[str]:
    """One or two captions, the plainest first: ``a pear`` and ``pear, fruit``.

    The same thing is called the same by whoever draws it, so that two drawings of it in one batch are known
    to be no negatives of each other; "an icon of a pear" would say nothing of the thing.

    Args:
        label: the CLDR short name.
        tags: the CLDR keywords, commonest first.
        symbol: a sign, which takes no article.
        seed: names the picture; decides which keywords are used.
    """
    words = phrase(label)
    out = [words if symbol else with_article(words)]
    if extra := _two(keywords(words, tags), seed):
        out.append(f"{words}, {', '.join(extra)}")
    return out


def _two(words: list[str], seed: str) -> list[str]:
    """The commonest, which says of what kind the thing is, and one of the next."""
    others = words[1:_HEAD_KEYWORDS]
    return [*words[:1], *([others[pick(len(others), seed, "keyword")]] if others else [])]

"""Builds the corpora of the embedded model: packages in, shards and a vocabulary out.

    DEST/splits.json                    which concepts, styles and clip art are trained on; written first
    DEST/human-train-00000.tar ...      emoji of trained concepts in trained styles, with CLDR's words
    DEST/web-train-00000.tar ...        clip art with its uploaders' titles, repeated titles capped
    DEST/heldout-picture-*.tar          trained concepts in trained styles, but one style's drawing of them held out
    DEST/heldout-seen-style-*.tar       held-out concepts, trained styles
    DEST/heldout-unseen-style-*.tar     held-out concepts, styles never trained on
    DEST/unseen-style-*.tar             trained concepts, styles never trained on
    DEST/heldout-clipart-*.tar          held-out clip art
    DEST/icons-train-*.tar              icons of other things, with the names that their files have
    DEST/extras-train-*.tar             coloured drawings of things that are no emoji, named so too
    DEST/vocab.txt                      word pieces: those of a BERT encoder that captions and CLDR's words need
    DEST/words.safetensors              the encoder's vectors of these pieces (pieces, 384) float32
    DEST/backbone.safetensors           ImageNet weights for a model whose stem is an EfficientNet-Lite0
    DEST/titles.json                    how often each title of the training clip art stands, before the cap
    DEST/boilerplate.txt                those of them that stand below many pictures, and so describe none
    DEST/corpora.json                   counts, packages and licences; written last

The same packages give the same bytes. Joins the rooms' other modules; draws and splits nothing itself.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.numpy import save
from safetensors.torch import save as save_tensors

from capfilt.captions import clean
from capfilt.corpora import clipart, emoji, icons
from capfilt.corpora.backbone import BACKBONE, read_backbone
from capfilt.corpora.drawing import Job, draw_all
from capfilt.corpora.packages import Package, locked, obtain
from capfilt.corpora.pictures import SIDE, Unfit
from capfilt.corpora.sentences import phrase, sentences, with_article
from capfilt.corpora.sides import HELD_OUT_ONE_IN, chance, pick, split
from capfilt.corpora.vocabulary import ENCODER, needed, read_encoder
from capfilt.records import Caption, Origin, row_id
from capfilt.shards.sample import Sample, key_of
from capfilt.shards.tar import write_tar
from capfilt.storage import Store

SHARD_ROWS = 1500
"""Pictures in one shard."""
UNSEEN_STYLE_SHARE = 0.25
"""The share of trained concepts that the set ``unseen-style`` shows."""
PICTURE_SHARE = 0.3
"""The share of trained concepts of which one trained style's drawings are held out."""
PICTURE_STYLES = 3
"""Such a concept must be drawn in so many trained styles, so that it is still seen in two."""
TRAINED = ("human-train", "web-train")
"""The sets that are trained on."""
HELD_OUT = ("heldout-picture", "heldout-seen-style", "heldout-unseen-style", "unseen-style", "heldout-clipart")
"""The sets that are measured on."""
ICONS = "icons-train"
"""The set that a filter may be trained on too; the vocabulary takes no word of it."""
EXTRAS = "extras-train"
"""Another one for the filter, in looks like the emoji's."""
SETS = (*TRAINED, *HELD_OUT, ICONS, EXTRAS)
BOILERPLATE_FROM = 10
"""A title below so many pictures of the training clip art is that of a series or its uploader."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One picture of a set, before it is drawn."""

    url: str
    texts: tuple[str, ...]
    origin: str
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Clips:
    """The clip art that may be used: what is written of it, its side, and what was left out."""

    about: dict[str, clipart.About]
    held_out: dict[str, bool]
    left_out: dict[str, int]

    def text(self, held_out: bool) -> dict[str, str]:
        return {name: self.about[name].text for name, held in self.held_out.items() if held == held_out}


def build(
    dest: str, *, cache: str, processes: int = 2, packages: Mapping[str, Package] | None = None
) -> dict[str, Any]:
    """Builds everything below ``dest`` and returns what ``corpora.json`` says.

    Args:
        dest: a folder; files of an earlier build are overwritten.
        cache: a folder for the packages' archives, which are downloaded into it if they are not there.
        processes: how many processes draw.
        packages: by name, if they are to be others than those of the lock.

    Raises:
        EngineError: a registry's client or the renderer is not installed, or a download failed.
        SourceError: an archive is not the locked one.
        DestinationError: ``dest`` cannot be written to.
    """
    store = Store(dest)
    store.check_writable()
    packages = packages or locked()
    archives = {name: obtain(package, Path(cache)) for name, package in packages.items()}
    names = emoji.read_names(archives[emoji.NAMES])
    clips = _read_clips(archives)
    plans = _plan(archives, names, clips)
    store.write_json("splits.json", _splits(names, clips, plans.lent))
    jobs = _sources(archives, plans)
    report = _write(store, plans, jobs, processes)
    store.write("backbone.safetensors", save_tensors(read_backbone(archives[BACKBONE])))
    told = {
        **_tell(store, plans, clips, report, _write_words(store, archives, names, report)),
        "packages": [asdict(package) for package in packages.values()],
    }
    store.write_json("corpora.json", told)
    return told


def _read_clips(archives: Mapping[str, Path]) -> _Clips:
    every = clipart.read_all_about(archives[clipart.TITLES])
    about = clipart.usable(every)
    series = clipart.series_of_all(clipart.read_pictures(archives[clipart.PICTURES], about))
    public = sum(one.public_domain for one in every.values())
    left_out = {
        "not_public_domain": len(every) - public,
        "no_text_or_not_shown": public - len(about),
        "same_file_as_another": len(about) - len(series),
    }
    return _Clips(about, clipart.sides(series), left_out)


def _splits(names: Mapping[str, emoji.Emoji], clips: _Clips, lent: frozenset[tuple[str, str]]) -> dict[str, Any]:
    return {
        "rule": f"by blake2b of the name; one in {HELD_OUT_ONE_IN} is held out; clip art by series",
        "concepts": split("concept", (one.concept for one in names.values())),
        "styles": {
            "train": [style.name for style in emoji.STYLES if style.trained],
            "held_out": [style.name for style in emoji.STYLES if not style.trained],
        },
        "drawings_held_out": [f"{style}/{concept}" for style, concept in sorted(lent)],
        "clipart": {
            "train": sorted(name for name, held in clips.held_out.items() if not held),
            "held_out": sorted(name for name, held in clips.held_out.items() if held),
        },
    }


@dataclass
class _Plans:
    """What each set shows, and the vectors it is drawn from."""

    sets: dict[str, list[Plan]]
    vectors: dict[str, str]
    lent: frozenset[tuple[str, str]]
    capped: int


def _plan(archives: Mapping[str, Path], names: Mapping[str, emoji.Emoji], clips: _Clips) -> _Plans:
    sides = split("concept", (one.concept for one in names.values()))
    held = frozenset(sides["held_out"])
    drawn = {style: emoji.read_vectors(archives, style, names) for style in emoji.STYLES}
    chosen = {style: emoji.chosen(style.name, (names[code] for code in sorted(drawn[style]))) for style in drawn}
    lent = _pictures_held_out(chosen)
    plans = _Plans({name: [] for name in SETS}, {}, lent, 0)
    for style, shown in chosen.items():
        for one in shown:
            target = _set_of(style, one, held, lent)
            if target is not None:
                plan = _emoji_plan(style, one)
                plans.sets[target].append(plan)
                plans.vectors[plan.url] = drawn[style][one.code]
    texts = clips.text(held_out=False)
    kept = clipart.balanced(texts)
    plans.capped = len(texts) - len(kept)
    plans.sets["web-train"] = [_clip_plan(name, texts[name]) for name in sorted(kept)]
    _plan_icons(plans, archives, names, held)
    plans.sets["heldout-clipart"] = [_clip_plan(*pair) for pair in sorted(clips.text(held_out=True).items())]
    return plans


def _plan_icons(
    plans: _Plans, archives: Mapping[str, Path], names: Mapping[str, emoji.Emoji], held: frozenset[str]
) -> None:
    labels = {
        side: [phrase(e.label) for e in names.values() if (e.concept in held) == side and not e.toned]
        for side in (True, False)
    }
    hidden = icons.Hidden(labels[True], labels[False])
    for target, sets in ((ICONS, icons.SETS), (EXTRAS, icons.EXTRAS)):
        for icon in icons.read_icons(archives, hidden=hidden, sets=sets):
            url = f"icon:{icon.set}/{icon.key}"
            meta = {"concept": icon.name, "style": icon.set}
            plans.sets[target].append(Plan(url=url, texts=(with_article(icon.name),), origin=Origin.HUMAN, meta=meta))
            plans.vectors[url] = icon.svg


def _pictures_held_out(chosen: Mapping[emoji.Style, list[emoji.Emoji]]) -> frozenset[tuple[str, str]]:
    """(style, concept) of the trained styles' drawings that are held out while other styles' are trained on."""
    styles: dict[str, list[str]] = {}
    for style, shown in chosen.items():
        for concept in sorted({one.concept for one in shown} if style.trained else ()):
            styles.setdefault(concept, []).append(style.name)
    return frozenset(
        (of[pick(len(of), "picture", "style", concept)], concept)
        for concept, of in styles.items()
        if len(of) >= PICTURE_STYLES and chance("picture", concept) < PICTURE_SHARE
    )


def _set_of(style: emoji.Style, one: emoji.Emoji, held: frozenset[str], lent: frozenset[tuple[str, str]]) -> str | None:
    if style.trained and one.concept not in held:
        return "heldout-picture" if (style.name, one.concept) in lent else "human-train"
    if style.trained:
        return "heldout-seen-style"
    if one.concept in held:
        return "heldout-unseen-style"
    # By concept, so that the two unseen styles show the same ones.
    return "unseen-style" if chance("unseen", one.concept) < UNSEEN_STYLE_SHARE else None


def _emoji_plan(style: emoji.Style, one: emoji.Emoji) -> Plan:
    url = f"emoji:{style.name}/{one.code}"
    texts = sentences(one.label, one.tags, symbol=one.symbol, seed=url)
    meta = {"concept": one.concept, "style": style.name}
    return Plan(url=url, texts=tuple(texts), origin=Origin.HUMAN, meta=meta)


def _clip_plan(name: str, text: str) -> Plan:
    meta = {"concept": clipart.series_of(name), "style": "clipart"}
    return Plan(url=f"openclipart:{name}", texts=(text,), origin=Origin.WEB, meta=meta)


def _sources(archives: Mapping[str, Path], plans: _Plans) -> Iterator[Job]:
    """Every picture of every set; the clip art in its archive's order, since it is read as a stream."""
    for url, svg in plans.vectors.items():
        yield Job(url, svg)
    prefix = "openclipart:"
    wanted = [plan.url.removeprefix(prefix) for name in SETS for plan in plans.sets[name]]
    for name, data in clipart.read_pictures(archives[clipart.PICTURES], wanted):
        yield Job(prefix + name, data)


@dataclass
class _Written:
    """What came of the drawing: the shards, the pictures a set holds, and those that could not be used."""

    shards: dict[str, list[dict[str, Any]]]
    plans: dict[str, list[Plan]]
    unfit: dict[str, int]
    twins: int
    """Pictures left out of training since a held-out one is the same to the last pixel, whatever it is called."""


def _write(store: Store, plans: _Plans, jobs: Iterable[Job], processes: int) -> _Written:
    drawn = {done.name: done.picture for done in draw_all(jobs, processes=processes)}
    unfit = Counter(picture.reason for picture in drawn.values() if isinstance(picture, Unfit))
    seen = {drawn[plan.url] for name in HELD_OUT for plan in plans.sets[name] if plan.url in drawn}
    written = _Written({}, {}, dict(sorted(unfit.items())), 0)
    shard = 0
    for name in SETS:
        fit = [plan for plan in plans.sets[name] if isinstance(drawn.get(plan.url), bytes)]
        good = [plan for plan in fit if name in HELD_OUT or drawn[plan.url] not in seen]
        written.twins += len(fit) - len(good)
        written.plans[name] = sorted(good, key=lambda plan: chance("order", plan.url))
        written.shards[name] = []
        for start in range(0, len(good), SHARD_ROWS):
            rows = written.plans[name][start : start + SHARD_ROWS]
            file = f"{name}-{start // SHARD_ROWS:05d}.tar"
            written.shards[name].append(_write_shard(store, file, shard, rows, drawn))
            shard += 1
    return written


def _write_shard(
    store: Store, file: str, shard: int, rows: Iterable[Plan], drawn: Mapping[str, bytes | Unfit]
) -> dict[str, Any]:
    with store.write_file(file) as out:
        count = write_tar(out, (_sample(shard, row, plan, drawn[plan.url]) for row, plan in enumerate(rows)))
    data = store.read(file)
    return {"file": file, "pictures": count, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _sample(shard: int, row: int, plan: Plan, picture: bytes | Unfit) -> Sample:
    if isinstance(picture, Unfit):
        raise TypeError(f"{plan.url} was not drawn: {picture.reason}")
    captions = [Caption(text=text, origin=plan.origin, itm=None, itc=None, kept=True) for text in plan.texts]
    meta = {
        "id": row_id(plan.url, plan.texts[0]),
        "url": plan.url,
        "width": SIDE,
        "height": SIDE,
        "sha256": hashlib.sha256(picture).hexdigest(),
        **plan.meta,
    }
    return Sample(key_of(shard, row), picture, captions, meta)


def _write_words(
    store: Store, archives: Mapping[str, Path], names: Mapping[str, emoji.Emoji], written: _Written
) -> int:
    """Writes the vocabulary and the vectors of its pieces; returns how many there are.

    All of CLDR's names are covered, those of held-out concepts too: that a word exists says nothing of a picture.
    """
    pieces, vectors = read_encoder(archives[ENCODER])
    captions = (text for name in TRAINED for plan in written.plans[name] for text in plan.texts)
    words = (text for one in names.values() for text in (one.label, *one.tags))
    kept = needed(pieces, (*captions, *words))
    ids = {piece: number for number, piece in enumerate(pieces)}
    store.write("vocab.txt", ("\n".join(kept) + "\n").encode())
    store.write("words.safetensors", save({"words": vectors[[ids[piece] for piece in kept]]}))
    return len(kept)


def _tell(store: Store, plans: _Plans, clips: _Clips, written: _Written, pieces: int) -> dict[str, Any]:
    """Writes the count of titles, and which are boilerplate; returns what ``corpora.json`` says."""
    titles = Counter(clean(text) for text in clips.text(held_out=False).values())
    store.write_json("titles.json", dict(titles.most_common()))
    boilerplate = [title for title, count in titles.most_common() if count >= BOILERPLATE_FROM]
    store.write("boilerplate.txt", "".join(f"{title}\n" for title in boilerplate).encode())
    return {
        "sets": {name: _counts(written, name) for name in SETS},
        "vocabulary": pieces,
        "left_out": {
            "clipart": clips.left_out,
            "clipart_repeats_capped": plans.capped,
            "unfit": written.unfit,
            "same_as_held_out": written.twins,
        },
    }


def _counts(written: _Written, name: str) -> dict[str, Any]:
    rows = written.plans[name]
    return {
        "pictures": len(rows),
        "captions": sum(len(plan.texts) for plan in rows),
        "concepts": len({plan.meta["concept"] for plan in rows}),
        "styles": dict(sorted(Counter(plan.meta["style"] for plan in rows).items())),
        "bytes": sum(shard["bytes"] for shard in written.shards[name]),
        "shards": written.shards[name],
    }


def read_splits(dest: str) -> dict[str, Any]:
    """What an earlier :func:`build` wrote as ``splits.json``.

    Raises:
        SourceError: there is none.
    """
    found: dict[str, Any] = json.loads(Store(dest).read("splits.json"))
    return found

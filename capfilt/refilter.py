"""A data set made anew from another one's scores: other verdicts, no model run, nothing fetched.

Each part's ledger and shards are read, judged by another rule and committed to another place, as the main job commits
them: files, then the marker, the manifest last. Stopped half-way, the same call goes on. A picture that the first run
dropped is not in its shards; a rule that would keep it is refused before anything is written. Knows a finished
destination; runs no model and reads no source.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any

from capfilt.errors import DestinationError, RecipeError, SourceError
from capfilt.inputs import open_read
from capfilt.records import LEDGER_SCHEMA, Caption, Drop, Origin, Tally, table_of
from capfilt.report.page import write_report
from capfilt.shards.card import write_cards
from capfilt.shards.claim import claim, digest_of
from capfilt.shards.commit import SinkConfig, commit_part, remove_strangers, write_manifest
from capfilt.shards.lease import Lease, leased
from capfilt.shards.marker import PartMarker, committed
from capfilt.shards.parquet import read_ledger
from capfilt.shards.rows import rows_of
from capfilt.shards.rule import SCORES, Rule, Score
from capfilt.shards.verify import of_manifest
from capfilt.storage import Store

_JUDGED = (None, str(Drop.NO_CAPTION_KEPT))
"""What stands in ``drop`` of rows that the rule decides on; all others stay dropped as they are."""
_MOST_WORKERS = 8
"""Parts at once where nothing else is asked for: each is in memory with its pictures."""


@dataclass(frozen=True, kw_only=True)
class Refiltered:
    """What came of it."""

    dest: str
    """The new destination, absolute."""
    rule: Rule
    before: Tally
    """The books of the data set that the scores are from."""
    after: Tally
    """The books of the new one."""
    parts: int
    done_before: int
    """Parts that an earlier run of the same call had committed."""
    manifest: dict[str, Any] | None
    """Of the new data set; None after a dry run."""


def refilter(
    dest: str,
    new: str,
    *,
    itm: float | None = None,
    itc: float | None = None,
    best: int | None = None,
    origins: Sequence[str] | None = None,
    workers: int | None = None,
    dry_run: bool = False,
    on_part: Callable[[int, int, Tally], None] | None = None,
) -> Refiltered:
    """Writes a data set with the rows, scores and pictures of another one, and other verdicts.

    >>> import capfilt
    >>> told = capfilt.refilter("clean", "stricter", itm=0.7)
    >>> told.after.kept <= told.before.kept
    True

    Args:
        dest: a finished destination of the main job, or of this one; it is only read.
        new: where the new data set goes: a local folder or any URL fsspec knows.
        itm: least P(match) of a text that is kept, in [0, 1].
        itc: least cosine of a text that is kept, in [-1, 1], instead of ``itm``. Without either, the threshold stays.
        best: most texts of a picture; None leaves the bound as it was.
        origins: whose texts may stay; None leaves them as they were.
        workers: parts at once; None takes as many as there are cores, 8 at most.
        dry_run: only count; write nothing.
        on_part: told of parts done, parts in all, and the books of those that are done.

    Raises:
        SourceError: ``dest`` is no finished data set, has not the scores, or not the pictures or texts that the rule
            would keep.
        DestinationError: ``new`` is something else's, or cannot be written.
        RecipeError: a value out of range.
    """
    source = Store(dest)
    manifest, markers = _finished(source)
    old = Rule.of_manifest(manifest)
    rule = _rule(old, itm, itc, best, origins)
    before, after = _foreseen(source, manifest, markers, old, rule)
    told = Refiltered(
        dest=Store(new).url, rule=rule, before=before, after=after, parts=len(markers), done_before=0, manifest=None
    )
    if dry_run:
        return told
    return _write(source, Store(new), manifest, markers, told, workers, on_part or (lambda done, total, tally: None))


def _rule(old: Rule, itm: float | None, itc: float | None, best: int | None, origins: Sequence[str] | None) -> Rule:
    if itm is not None and itc is not None:
        raise RecipeError("one score decides, not two", where="itm and itc", mend="Give one of them.")
    rule = old if best is None else replace(old, best=best)
    rule = rule if origins is None else replace(rule, origins=tuple(dict.fromkeys(origins)))
    given: dict[Score, float | None] = {"itm": itm, "itc": itc}
    for score, threshold in given.items():
        if threshold is not None:
            rule = replace(rule, judge_by=score, threshold=threshold)
    return rule


def _finished(store: Store) -> tuple[dict[str, Any], dict[int, PartMarker]]:
    if not store.exists("manifest.json"):
        raise SourceError(
            "there is no finished data set there",
            where=store.url,
            mend="Let `capfilt bootstrap` come to its end first.",
        )
    manifest: dict[str, Any] = store.read_json("manifest.json")
    markers = committed(store)
    if sum((marker.tally for marker in markers.values()), Tally()).to_json() != manifest["totals"]:
        raise SourceError(
            "its manifest is not the sum of its parts: something works there, or was cut off",
            where=store.url,
            mend="Let it come to its end, or run the same command again; `capfilt verify` tells what is wrong.",
        )
    return manifest, markers


@dataclass
class _Missing:
    """What the rule would keep or ask for, and the data set has not."""

    pictures: int = 0
    best: float = -math.inf
    """The highest deciding score among their texts."""
    texts: int = 0
    unscored: int = 0


def _foreseen(
    source: Store, manifest: Mapping[str, Any], markers: Mapping[int, PartMarker], old: Rule, rule: Rule
) -> tuple[Tally, Tally]:
    """The books as they are and as they will be, from the ledgers alone: both are counted in one way, whoever counted
    when the markers were written.

    Raises:
        SourceError: the rule cannot be followed with what is there.
    """
    missing, before, after = _Missing(), Tally(), Tally()
    forgetful = not manifest["recipe"]["sink"]["keep_rejected_text"]
    for marker in markers.values():
        with open_read(source.path(marker.ledger.name)) as file:
            ledger = read_ledger(file, LEDGER_SCHEMA.names)
        rows = ledger.to_pylist()
        for row in rows:
            if row["drop"] in _JUDGED:
                _look(row, old, rule, missing, forgetful=forgetful)
        before += Tally.of(ledger)
        after += Tally.of(table_of(_rejudged(row, rule) for row in rows))
    _refuse(source, manifest, rule, missing)
    return before, after


def _look(row: Mapping[str, Any], old: Rule, rule: Rule, missing: _Missing, *, forgetful: bool) -> None:
    captions: list[Caption] = row["captions"]
    if rule.threshold is not None:
        missing.unscored += sum(
            caption[rule.judge_by] is None and caption["origin"] != Origin.HUMAN for caption in captions
        )
    if forgetful:
        missing.texts += sum(
            not caption["kept"] and not caption["text"] and rule.passes(caption) and _forgotten(caption, old)
            for caption in captions
        )
    if row["drop"] is not None and any(rule.verdicts(captions)):
        missing.pictures += 1
        scores = [caption[rule.judge_by] for caption in captions if rule.passes(caption)]
        # A human text needs no score: no threshold would leave its picture out.
        missing.best = max([missing.best, *(math.inf if score is None else score for score in scores)])


def _forgotten(caption: Caption, old: Rule) -> bool:
    """Whether a rejected, empty text was a text once; one that passed was empty from the start."""
    return old.best is not None or not old.passes(caption)


def _refuse(source: Store, manifest: Mapping[str, Any], rule: Rule, missing: _Missing) -> None:
    first = manifest.get("refilter", {}).get("from")
    higher = math.floor(missing.best * 1000 + 1) / 1000 if math.isfinite(missing.best) else math.inf
    setting = "" if rule.threshold is None else f" with --set capfilt.threshold={rule.threshold:g}"
    setting += (
        "" if rule.judge_by == manifest["recipe"]["capfilt"]["judge_by"] else f" --set capfilt.judge_by={rule.judge_by}"
    )
    if missing.unscored:
        what = f"{missing.unscored:,} texts have no score to decide by, {SCORES[rule.judge_by]}"
        ways = [f"give --{'itc' if rule.judge_by == 'itm' else 'itm'}"]
        setting = " with a filter that gives this score"
    elif missing.pictures:
        what = (
            f"{missing.pictures:,} pictures would be kept whose bytes are not there: they were dropped when none of "
            "their texts was kept"
        )
        ways = [f"give --{rule.judge_by} {higher:g} or more"] if higher <= 1 else []
    elif missing.texts:
        what = (
            f"{missing.texts:,} texts would be kept whose words are not there: this data set forgot what it rejected "
            "(sink.keep_rejected_text: false)"
        )
        ways = []
    else:
        return
    ways += [f"refilter {first}, from which this one was made"] if first else []
    ways += [f"run `capfilt bootstrap` into a new folder{setting}"]
    mend = ", or ".join(ways)
    raise SourceError(what, where=source.url, mend=f"{mend[0].upper()}{mend[1:]}.")


def _write(
    source: Store,
    new: Store,
    manifest: Mapping[str, Any],
    markers: Mapping[int, PartMarker],
    told: Refiltered,
    workers: int | None,
    on_part: Callable[[int, int, Tally], None],
) -> Refiltered:
    if new.url == source.url:
        raise DestinationError(
            "it is the data set that is read", where=new.url, mend="Choose a new folder; nothing is changed in place."
        )
    new.check_writable()
    recipe, identity = _recipe(manifest, told.rule), _identity(markers)
    sink = SinkConfig(**recipe["sink"])
    with leased(new) as lease:
        new.remove_temporaries()
        claim(new, recipe, identity, job=None)
        done = committed(new)
        left = [marker for part, marker in markers.items() if part not in done]
        meter = _Meter(on_part, len(markers), done, lease)
        if left:
            _commit(source, new, left, told.rule, sink, workers, meter)
            if _identity(committed(source)) != identity:
                raise SourceError(
                    "it changed while it was read",
                    where=source.url,
                    mend=f"Let what works there come to its end, remove {new.url}, and run again.",
                )
        lease.check()
        stale = not left and any(of_manifest(new, done))
        written = _finish(new, manifest, recipe, told, source, anew=bool(left) or stale)
    return replace(told, done_before=len(done), manifest=written)


def _recipe(manifest: Mapping[str, Any], rule: Rule) -> dict[str, Any]:
    """The first recipe with the new rule: what a run would have been asked for, and what none can be asked for."""
    recipe = dict(manifest["recipe"])
    stage = recipe["capfilt"] | {"judge_by": rule.judge_by}
    stage |= {} if rule.threshold is None else {"threshold": rule.threshold}
    return recipe | {"capfilt": stage, "refilter": {"best": rule.best, "origins": list(rule.origins)}}


def _identity(markers: Mapping[int, PartMarker]) -> str:
    return digest_of([marker.to_json() for marker in markers.values()])


@dataclass
class _Meter:
    tell: Callable[[int, int, Tally], None]
    total: int
    there: Mapping[int, PartMarker]
    lease: Lease
    done: int = field(init=False)
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.done = len(self.there)
        self.tally = sum((marker.tally for marker in self.there.values()), Tally())
        self.tell(self.done, self.total, self.tally)

    def __call__(self, marker: PartMarker) -> None:
        self.lease.check()
        self.done, self.tally = self.done + 1, self.tally + marker.tally
        self.tell(self.done, self.total, self.tally)


def _commit(
    source: Store,
    new: Store,
    markers: Sequence[PartMarker],
    rule: Rule,
    sink: SinkConfig,
    workers: int | None,
    meter: _Meter,
) -> None:
    def work(marker: PartMarker) -> PartMarker:
        rows = (_rejudged(row, rule) for row in rows_of(source, marker))
        return commit_part(new, table_of(rows), marker, sink)

    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, _MOST_WORKERS), "refilter") as pool:
        futures = [pool.submit(work, marker) for marker in markers]
        try:
            for future in as_completed(futures):
                meter(future.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _rejudged(row: dict[str, Any], rule: Rule) -> dict[str, Any]:
    if row["drop"] not in (*_JUDGED, str(Drop.DUPLICATE)):
        return row
    verdicts = rule.verdicts(row["captions"])
    captions = [{**caption, "kept": kept} for caption, kept in zip(row["captions"], verdicts, strict=True)]
    if row["drop"] == Drop.DUPLICATE:
        # Its picture is there once already. Its texts stay in the ledger, which tells of one rule only.
        return row | {"captions": captions}
    if any(verdicts):
        return row | {"captions": captions, "drop": None, "detail": None}
    dropped = {"drop": str(Drop.NO_CAPTION_KEPT), "detail": _why(captions, rule)}
    return row | {"captions": captions, **dropped} | ({"image": None} if "image" in row else {})


def _why(captions: Sequence[Mapping[str, Any]], rule: Rule) -> str:
    if not captions:
        return "The picture has no caption."
    scores = [caption[rule.judge_by] for caption in captions if caption[rule.judge_by] is not None]
    best = f"; the best score was {max(scores):.2f}" if scores else ""
    what = f"None of its {len(captions)} captions" if len(captions) > 1 else "Its caption"
    return f"{what} {'was' if len(captions) > 1 else 'was not'} kept ({rule.told()}){best}."


def _finish(
    new: Store,
    manifest: Mapping[str, Any],
    recipe: Mapping[str, Any],
    told: Refiltered,
    source: Store,
    *,
    anew: bool,
) -> dict[str, Any]:
    if anew := anew or not new.exists("manifest.json"):
        markers = committed(new)
        remove_strangers(new, markers)
        more = {name: manifest[name] for name in ("changes", "dedup") if name in manifest}
        more["refilter"] = {
            "from": source.url,
            "manifest_sha256": hashlib.sha256(source.read("manifest.json")).hexdigest(),
            "rule": told.rule.told(),
            "before": told.before.to_json(),
            "earlier": manifest.get("refilter"),
        }
        write_manifest(
            new,
            recipe=recipe,
            source=manifest["source"],
            models=manifest["models"],
            parts_planned=told.parts,
            more=more,
            markers=markers,
        )
    written = write_cards(new, anew=anew)
    if anew or not new.exists("report.html"):
        write_report(new)
    return written

"""Everything the report says, gathered from a destination in one pass and constant memory.

Reads the commit markers, the manifest if the run is finished, ``pairs/*.parquet`` one part at a time and a few
shards for pictures. Knows no HTML.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from capfilt.errors import DataError, DestinationError
from capfilt.records import LEDGER_SCHEMA, Origin, Tally, judged_of
from capfilt.report.gallery import Card, Gallery, Verdict, change, shorten, thumbnail, with_pictures
from capfilt.report.hosts import HostLoss, HostLosses
from capfilt.report.measures import CaptionMeasures, Counts, OriginFacts
from capfilt.report.sizes import SizeFacts, Sizes
from capfilt.report.sketches import Pick, hash64
from capfilt.shards.marker import PartMarker, committed
from capfilt.shards.read import samples
from capfilt.shards.rule import Rule
from capfilt.storage import Store

BATCH_ROWS = 8192
MAX_GALLERY = 80
"""Most pictures of one gallery: with bounded texts and thumbnails the page stays under 10 MB, whatever they hold."""
HOSTS = 10
"""Hosts shown of those that lost most rows."""
EXAMPLES = 3
"""Rows shown for each reason of dropping."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One dropped row: where it was and what was the matter with it."""

    url: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What the report says, as values."""

    url: str
    """Where the data set is."""
    tally: Tally
    """The books, counted from the ledger."""
    promised: Tally
    """The books as the commit markers say them; equal to ``tally`` unless something was damaged."""
    parts: int
    """Committed parts."""
    parts_planned: int | None
    """Parts of the whole run; None while it is not finished."""
    threshold: float | None
    """The recipe's threshold on P(match); None if the run had no filter, or judged by the cosine."""
    cosine_threshold: float | None
    """The recipe's threshold on the cosine, in [-1, 1]; None if it judged by P(match) or not at all."""
    rule: Rule
    """By which the texts were judged; that of a run without a filter has a threshold that met no score."""
    refiltered: Mapping[str, Any]
    """From which data set's scores it was judged anew (``from``) and by what rule (``rule``); empty if it was not."""
    decoding: str
    """How synthetic captions were written; empty if unknown."""
    origins: tuple[OriginFacts, ...]
    """Facts by origin, original texts first."""
    best: Counts
    """Pictures by the best ITM score of a text that may be kept."""
    examples: Mapping[str, tuple[Example, ...]]
    """A few rows for each reason of dropping."""
    hosts: tuple[HostLoss, ...]
    """Hosts that lost most rows in fetching."""
    hosts_exact: bool
    """Whether their counts are counts and not lower bounds."""
    sizes: SizeFacts
    """Of all pictures that the filter could see."""
    sizes_kept: SizeFacts
    """Of those that were kept."""
    gallery: Mapping[Verdict, tuple[Card, ...]]
    """The shown rows by verdict."""
    mix: tuple[Card, ...]
    """A random choice of all of them, in the shares that the verdicts have."""
    seen: Mapping[Verdict, int]
    """How many rows of each verdict there are in all."""
    recipe: Mapping[str, Any]
    """The resolved recipe; empty while the run is not finished."""
    models: Mapping[str, Any]
    """What is known of the models; empty while the run is not finished."""

    @property
    def finished(self) -> bool:
        """Whether every planned part is there."""
        return self.parts_planned == self.parts


def gather(
    store: Store, *, gallery: int = 48, seed: int = 0, markers: Mapping[int, PartMarker] | None = None
) -> ReportData:
    """Reads a finished or unfinished destination.

    Args:
        store: the destination of a run.
        gallery: pictures shown of each verdict, and of all together, within [0, ``MAX_GALLERY``]; more are cut to that.
        seed: chooses which ones.
        markers: all that are there, as :func:`capfilt.shards.marker.committed` has just read them; None reads them.

    Raises:
        DestinationError: no part of a run is finished there.
        DataError: a ledger file that a marker vouches for is missing or damaged.
    """
    markers = committed(store) if markers is None else markers
    if not markers:
        raise DestinationError(
            "there is nothing to report: no part of a run is finished here",
            where=store.url,
            mend="Name the DEST of a `capfilt bootstrap` run.",
        )
    manifest = _manifest(store)
    sums = _Sums(Gallery(min(max(gallery, 0), MAX_GALLERY), seed, sorted(markers)), seed, _measures(manifest))
    for part, batch in _ledgers(store, markers):
        sums.add(part, batch)
    return _data(store, manifest, sums, markers)


class _Sums:
    """The running sums over the ledger."""

    def __init__(self, gallery: Gallery, seed: int, captions: CaptionMeasures) -> None:
        self.tally = Tally()
        self._parts: defaultdict[int, Tally] = defaultdict(Tally)
        self._older: defaultdict[int, Tally] = defaultdict(Tally)
        self.captions = captions
        self.gallery = gallery
        self.hosts = HostLosses()
        self.sizes = Sizes()
        self.examples: dict[str, Pick[Example]] = {}
        self._seed = seed

    def add(self, part: int, table: pa.Table) -> None:
        tally = Tally.of(table)
        self.tally += tally
        self._parts[part] += tally
        self._older[part] += Tally.with_duplicates(table)
        self.hosts.add(table)
        judged = judged_of(table)
        reached = table.filter(judged)
        if reached.num_rows:
            self.captions.add(reached)
            self.gallery.add(reached)
            self.sizes.add(reached)
        self._add_dropped(table.filter(pc.invert(judged)))

    def promised(self, markers: Mapping[int, PartMarker]) -> Tally:
        """The sum of the markers; one that counts texts of duplicates, as they once did, is no damage."""
        told = (self._parts[at] if one.tally == self._older[at] else one.tally for at, one in markers.items())
        return sum(told, Tally())

    def _add_dropped(self, table: pa.Table) -> None:
        for row in table.select(["id", "part", "row", "url", "drop", "detail"]).to_pylist():
            pick = self.examples.setdefault(row["drop"], Pick(EXAMPLES))
            key = (hash64(self._seed, row["id"]), row["part"], row["row"])
            if pick.wants(key):
                pick.put(key, Example(url=shorten(row["url"] or ""), detail=shorten(row["detail"] or "")))


def _data(store: Store, manifest: Mapping[str, Any], sums: _Sums, markers: Mapping[int, PartMarker]) -> ReportData:
    stage = manifest.get("recipe", {}).get("capfilt") or {}
    scored, by_cosine = any(sums.tally.texts.values()), stage.get("judge_by") == "itc"
    cards = {verdict: sums.gallery.chosen(verdict) for verdict in Verdict}
    # The clearest changes first, from whichever part they are.
    cards[Verdict.CHANGED].sort(key=change, reverse=True)
    mix = sums.gallery.mix()
    small = _thumbnails(store, markers, [card for chosen in (*cards.values(), mix) for card in chosen])
    return ReportData(
        url=store.url,
        tally=sums.tally,
        promised=sums.promised(markers),
        parts=len(markers),
        parts_planned=manifest.get("parts"),
        threshold=_itm_threshold(manifest) if scored else None,
        cosine_threshold=float(stage.get("threshold", 0.5)) if scored and by_cosine else None,
        rule=sums.captions.rule,
        refiltered=manifest.get("refilter") or {},
        decoding=str(stage.get("decoding", "")),
        origins=sums.captions.facts([Origin.WEB, Origin.HUMAN, Origin.SYNTHETIC]),
        best=sums.captions.best,
        examples={reason: tuple(pick.chosen()) for reason, pick in sorted(sums.examples.items())},
        hosts=sums.hosts.top(HOSTS),
        hosts_exact=sums.hosts.exact,
        sizes=sums.sizes.seen,
        sizes_kept=sums.sizes.kept,
        gallery={verdict: with_pictures(chosen, small) for verdict, chosen in cards.items()},
        mix=with_pictures(mix, small),
        seen={verdict: sums.gallery.seen(verdict) for verdict in Verdict},
        recipe=manifest.get("recipe", {}),
        models=manifest.get("models", {}),
    )


def _itm_threshold(manifest: Mapping[str, Any]) -> float | None:
    stage = manifest.get("recipe", {}).get("capfilt") or {}
    return None if stage.get("judge_by") == "itc" else float(stage.get("threshold", 0.5))


def _measures(manifest: Mapping[str, Any]) -> CaptionMeasures:
    recipe = manifest.get("recipe", {})
    stage, again, sink = (recipe.get(name) or {} for name in ("capfilt", "refilter", "sink"))
    rule = Rule(
        threshold=float(stage.get("threshold", 0.5)),
        judge_by="itc" if stage.get("judge_by") == "itc" else "itm",
        best=again.get("best"),
        origins=tuple(again.get("origins", map(str, Origin))),
    )
    return CaptionMeasures(rule, forgetful=not sink.get("keep_rejected_text", True))


def _manifest(store: Store) -> dict[str, Any]:
    """The manifest; of an unfinished run only its recipe."""
    if store.exists("manifest.json"):
        manifest: dict[str, Any] = store.read_json("manifest.json")
        return manifest
    try:
        recipe = yaml.safe_load(store.read("recipe.yaml")) if store.exists("recipe.yaml") else {}
    except yaml.YAMLError:
        # `bootstrap` refuses such a folder with its reason; the page can do without.
        recipe = {}
    return {"recipe": recipe if isinstance(recipe, dict) else {}}


def _ledgers(store: Store, markers: Mapping[int, PartMarker]) -> Iterator[tuple[int, pa.Table]]:
    """Each part's rows, batch by batch, with its number."""
    contents = store.read_each([marker.ledger.name for marker in markers.values()])
    for marker in markers.values():
        try:
            file = pq.ParquetFile(pa.BufferReader(next(contents)))
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield marker.part, pa.Table.from_batches([batch]).cast(LEDGER_SCHEMA)
        except (ValueError, KeyError, OSError) as error:
            raise DataError(
                f"the ledger of a finished part cannot be read: {error}",
                where=store.path(marker.ledger.name),
                mend=f"Remove parts/{marker.part:05d}.json and run the bootstrap again; only that part is redone.",
            ) from error


def _thumbnails(store: Store, markers: Mapping[int, PartMarker], cards: Sequence[Card]) -> dict[str, bytes]:
    """Small pictures by row id, for those cards whose picture the shards hold."""
    wanted: dict[int, set[str]] = {}
    for card in cards:
        if card.verdict is not Verdict.NOTHING:
            wanted.setdefault(card.part, set()).add(card.id)
    found: dict[str, bytes] = {}
    for part, ids in sorted(wanted.items()):
        # Where a run wrote both formats either will do.
        for shard in markers[part].shards[:1]:
            found.update(_pictures(store.path(shard.name), ids))
    return found


def _pictures(url: str, ids: set[str]) -> Iterator[tuple[str, bytes]]:
    # A damaged shard is `verify`'s to tell; the page says of a picture that it could not be read.
    for sample in samples([url], on_bad=_pass_over):
        id_ = str(sample.meta.get("id", ""))
        if id_ in ids:
            ids.remove(id_)
            yield id_, thumbnail(sample.image)
        if not ids:
            return


def _pass_over(_name: str, _reason: str) -> None:
    pass

"""Writing captions: nucleus sampling and beam search over the decoder with its cache.

Shapes: B images, K captions an image, R rows = B * K (or B * beams), L tokens, W words.

Lengths count the prompt's tokens and [DEC], as BLIP counts them. Every draw comes from the row's own
seed, so neither the batch, its order nor the number of workers changes a caption. Knows no text: ids in, ids out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from capfilt.med.device import sent
from capfilt.med.text import LayerCache, TextStack

LOOKS = {"cpu": 1, "cuda": 4}
"""Steps after which it is looked which captions have ended: on a GPU each look waits for all that was queued there."""
_FEWER = 0.5
"""Images with captions that go on leave the others behind when no more than this share is left: moving costs a copy."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What every caption must obey."""

    max_length: int
    """Tokens at most, prompt counted."""
    min_length: int
    """Tokens at least, prompt counted; [SEP] is not drawn before."""
    end: int
    """Id that ends a caption ([SEP])."""
    forbidden: tuple[int, ...] = ()
    """Ids that are never drawn: the other special tokens."""


@dataclass(frozen=True, kw_only=True)
class Nucleus:
    """Nucleus sampling (Holtzman et al. 2020; paper, section 4.2)."""

    top_p: float = 0.9
    """Probability mass, in (0, 1]."""
    top_k: int = 0
    """At most so many tokens, applied before ``top_p``; 0 sets no bound."""
    repetition_penalty: float = 1.1
    """Divides positive and multiplies negative logits of tokens already there; 1 is off."""


def uniforms(seed: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """``count`` numbers in [0, 1) from a counter-based generator keyed by ``seed`` (0 <= seed < 2**128)."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def penalise_repeats(logits_RW: Tensor, ids_RL: Tensor, penalty: float) -> Tensor:
    """Logits with every token of ``ids_RL`` made less likely (Keskar et al. 2019, equation 2)."""
    if penalty == 1.0:
        return logits_RW
    there = logits_RW.gather(1, ids_RL)
    return logits_RW.scatter(1, ids_RL, torch.where(there < 0, there * penalty, there / penalty))


def forbid(logits_RW: Tensor, limits: Limits, length: int) -> Tensor:
    """Logits with forbidden tokens, and the end where the text is still too short, at minus infinity."""
    barred = limits.forbidden + ((limits.end,) if length < limits.min_length else ())
    return logits_RW.index_fill(1, _ids(barred, logits_RW.device), float("-inf")) if barred else logits_RW


@functools.cache
def _ids(ids: tuple[int, ...], device: torch.device) -> Tensor:
    # Made once: sent to a GPU at every step, the host would wait for it. And never freed, for recordings read it there.
    with torch.inference_mode(mode=False):  # whoever asks first, others may want to learn through it
        return sent(torch.tensor(ids), device)


def draw(logits_RW: Tensor, uniform_R: Tensor, *, top_p: float, top_k: int = 0) -> Tensor:
    """One token a row from the smallest set of likeliest tokens whose mass reaches ``top_p``, renormalised.

    Args:
        logits_RW: float32.
        uniform_R: float64 in [0, 1), one for each row: the draw is the inverse of the cumulative mass there.
        top_p: in (0, 1]. top_k: tokens at most, 0 for no bound.

    Returns:
        int64 (R,).
    """
    values, order = torch.sort(logits_RW, dim=-1, descending=True, stable=True)
    if top_k:
        values, order = values[:, :top_k], order[:, :top_k]
    mass = torch.softmax(values.double(), dim=-1)
    cumulated = mass.cumsum(-1)
    # What is forbidden has no mass, and rounding must not let the last draw fall on it.
    inside = (cumulated - mass < top_p) & (mass > 0)
    total = (mass * inside).sum(-1)
    place = torch.searchsorted(cumulated, (uniform_R * total)[:, None], right=True)[:, 0]
    # Rounding may put the last draw one past the set.
    place = torch.minimum(place, inside.sum(-1) - 1).clamp(min=0)  # of numbers that are none, none is inside
    return order.gather(1, place[:, None])[:, 0]


@dataclass
class Written:
    """Where sampling is. ``start`` makes it, ``go_on`` moves it; neither reads anything back from the device."""

    ids_RL: Tensor
    """int64, the tokens so far, prompt counted."""
    fresh_RL: Tensor
    """Those of them that the cache has not seen."""
    done_R: Tensor
    """bool, which captions have ended."""
    uniform_RS: Tensor
    """float64 in [0, 1), a draw for each step; a caption's own, whatever stands beside it."""
    caches: list[LayerCache]

    @classmethod
    def start(
        cls, text: TextStack, image_BNV: Tensor, prompt_L: Sequence[int], uniform_RS: Tensor, limits: Limits
    ) -> Written:
        """Before the first step."""
        rows, device = len(uniform_RS), image_BNV.device
        ids_RL = _ids(tuple(prompt_L), device).expand(rows, -1)
        done_R = torch.zeros(rows, dtype=torch.bool, device=device)
        caches = text.start_cache(image_BNV, repeat=rows // len(image_BNV), max_length=limits.max_length)
        return cls(ids_RL, ids_RL, done_R, uniform_RS, caches)

    def go_on(self, text: TextStack, step: int, how: Nucleus, limits: Limits) -> None:
        """Draws the token of a step, counted from 0."""
        length = self.ids_RL.shape[1]
        logits_RW = text.write_step(self.fresh_RL, self.caches, length - self.fresh_RL.shape[1]).float()
        logits_RW = penalise_repeats(logits_RW, self.ids_RL, how.repetition_penalty)
        logits_RW = forbid(logits_RW, limits, length)
        drawn_R = draw(logits_RW, self.uniform_RS[:, step], top_p=how.top_p, top_k=how.top_k)
        drawn_R = torch.where(self.done_R, limits.end, drawn_R)
        self.done_R = self.done_R | (drawn_R == limits.end)
        self.fresh_RL = drawn_R[:, None]
        self.ids_RL = torch.cat([self.ids_RL, self.fresh_RL], dim=1)

    def keep(self, rows: Sequence[int], images: Sequence[int]) -> None:
        """Leaves only these rows, which are those of these images."""
        device = self.ids_RL.device
        rows_R, images_B = (sent(torch.tensor(list(some)), device) for some in (rows, images))
        self.ids_RL, self.fresh_RL = self.ids_RL[rows_R], self.fresh_RL[rows_R]
        self.done_R, self.uniform_RS = self.done_R[rows_R], self.uniform_RS[rows_R]
        for cache in self.caches:
            cache.keep(rows_R, images_B)


def draws(seeds: Sequence[Sequence[int]], steps: int) -> Tensor:
    """For B images with K seeds each float64 (R, S): the draws of every caption."""
    return torch.from_numpy(np.stack([uniforms(seed, max(steps, 1)) for row in seeds for seed in row]))


def nucleus(
    text: TextStack,
    image_BNV: Tensor,
    prompt_L: Sequence[int],
    seeds: Sequence[Sequence[int]],
    how: Nucleus,
    limits: Limits,
    *,
    look_every: int | None = None,
) -> list[list[list[int]]]:
    """K captions an image by nucleus sampling. Images whose captions have ended take no more part when half have.

    Args:
        image_BNV: image tokens.
        prompt_L: [DEC] and the prompt's ids.
        seeds: B lists of K seeds, each in [0, 2**128).
        look_every: steps from one look at what has ended to the next; None takes :data:`LOOKS`.

    Returns:
        For each image K lists of ids, prompt and end left out.
    """
    repeat, steps, device = len(seeds[0]), limits.max_length - len(prompt_L), image_BNV.device
    every = look_every or LOOKS.get(device.type, 4)
    now = Written.start(text, image_BNV, prompt_L, sent(draws(seeds, steps), device), limits)
    places = list(range(len(now.ids_RL)))
    ended: dict[int, list[int]] = {}
    for step in range(steps):
        now.go_on(text, step, how, limits)
        if (step + 1) % every:
            continue
        done = now.done_R.tolist()
        if all(done):
            break
        # Captions of one image stay together, for they read its keys together.
        images = [at // repeat for at in range(0, len(done), repeat) if not all(done[at : at + repeat])]
        if len(images) * repeat <= _FEWER * len(done):
            kept = [image * repeat + k for image in images for k in range(repeat)]
            left = set(kept)
            ended |= {places[at]: ids for at, ids in enumerate(now.ids_RL.tolist()) if at not in left}
            places = [places[at] for at in kept]
            now.keep(kept, images)
    ended |= dict(zip(places, now.ids_RL.tolist(), strict=True))
    return texts([ended[at] for at in range(len(ended))], repeat, len(prompt_L), limits)


def texts(rows: Sequence[list[int]], repeat: int, start: int, limits: Limits) -> list[list[list[int]]]:
    """Rows of ids as K captions an image, without the ``start`` tokens of the prompt and what follows the end."""
    cut = [_cut(row[start:], limits.end) for row in rows]
    return [cut[i : i + repeat] for i in range(0, len(cut), repeat)]


@dataclass(frozen=True)
class _Ended:
    score: float
    ids: tuple[int, ...]


def beam(
    text: TextStack,
    image_BNV: Tensor,
    prompt_L: Sequence[int],
    beams: int,
    keep: int,
    limits: Limits,
    *,
    repetition_penalty: float = 1.0,
) -> list[list[list[int]]]:
    """The ``keep`` best captions an image by beam search; greedy decoding with one beam.

    As transformers 5 searches: scores are summed log-probabilities over the number of tokens written, the end counted
    (length penalty 1), and a search ends when the best open beam, as it stands, is not above the ``beams`` best that
    have ended. (Version 4.15, with which BLIP was published, divides by the whole length, with the prompt, without the
    end.)

    Args:
        image_BNV: image tokens.
        prompt_L: [DEC] and the prompt's ids.
        beams: hypotheses kept, 1 or more. keep: captions given, at most ``beams``.
        repetition_penalty: multiplies log-probabilities of tokens already there, with one beam it changes their logits
            as in nucleus sampling; 1 is off, as BLIP has it here.

    Returns:
        For each image ``keep`` lists of ids, best first, prompt and end left out.
    """
    images, start, device = image_BNV.shape[0], len(prompt_L), image_BNV.device
    caches = text.start_cache(image_BNV, repeat=beams, max_length=limits.max_length)
    ids_RL = torch.tensor([list(prompt_L)] * (images * beams), device=device)
    # Only the first beam of an image counts at first, or all beams would be the same.
    score_BK = torch.full((images, beams), float("-inf"), device=device)
    score_BK[:, 0] = 0.0
    ended: list[list[_Ended]] = [[] for _ in range(images)]
    finished = [False] * images
    fresh = ids_RL
    while ids_RL.shape[1] < limits.max_length and not all(finished):
        logits_RW = text.write_step(fresh, caches, ids_RL.shape[1] - fresh.shape[1]).float()
        if beams == 1:  # greedy: as in nucleus sampling, the penalty is the logits'
            logits_RW = penalise_repeats(logits_RW, ids_RL, repetition_penalty)
        log_RW = logits_RW.log_softmax(-1)
        if beams > 1:
            log_RW = penalise_repeats(log_RW, ids_RL, repetition_penalty)
        log_RW = forbid(log_RW, limits, ids_RL.shape[1])
        total_BX = (score_BK.view(-1, 1) + log_RW).view(images, -1)
        best = total_BX.topk(2 * beams, dim=1)
        origin, token, score_BK = _advance(best, log_RW.shape[1], ids_RL, ended, finished, beams, start, limits)
        rows = (origin + torch.arange(images, device=device)[:, None] * beams).view(-1)
        ids_RL = torch.cat([ids_RL[rows], token.view(-1, 1)], dim=1)
        fresh = ids_RL[:, -1:]
        _reorder(caches, rows)
    for image in range(images):
        if not finished[image]:
            for k in range(beams):
                row = ids_RL[image * beams + k].tolist()
                _add(ended[image], float(score_BK[image, k]) / max(len(row) - start, 1), row, beams)
    return [
        [_cut(list(e.ids)[start:], limits.end) for e in sorted(rows_, key=lambda e: -e.score)[:keep]] for rows_ in ended
    ]


def _advance(
    best: torch.return_types.topk,
    words: int,
    ids_RL: Tensor,
    ended: list[list[_Ended]],
    finished: list[bool],
    beams: int,
    start: int,
    limits: Limits,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sort candidates into ended captions and the beams that go on."""
    scores, places = best.values.tolist(), best.indices.tolist()
    origins, tokens, totals = [], [], []
    written = ids_RL.shape[1] + 1 - start
    for image, (row_scores, row_places) in enumerate(zip(scores, places, strict=True)):
        open_: list[tuple[int, int, float]] = []
        for rank, (score, place) in enumerate(zip(row_scores, row_places, strict=True)):
            origin, token = divmod(place, words)
            if token == limits.end:
                # Only an end among the best counts; a worse one would push out a better open beam.
                if rank < beams and not finished[image]:
                    row = ids_RL[image * beams + origin].tolist()
                    _add(ended[image], score / written, row, beams)
            elif len(open_) < beams:
                open_.append((origin, token, score))
        # The best beam that is still open can only fall, and its mean over no more tokens than these.
        if len(ended[image]) >= beams and open_[0][2] / written <= min(e.score for e in ended[image]):
            finished[image] = True
        origins.append([o[0] for o in open_])
        tokens.append([o[1] for o in open_])
        totals.append([o[2] for o in open_])
    device = ids_RL.device
    return (
        torch.tensor(origins, device=device),
        torch.tensor(tokens, device=device),
        torch.tensor(totals, device=device),
    )


def _add(ended: list[_Ended], score: float, ids: list[int], beams: int) -> None:
    ended.append(_Ended(score, tuple(ids)))
    if len(ended) > beams:
        ended.remove(min(ended, key=lambda e: e.score))


def _reorder(caches: list[LayerCache], rows: Tensor) -> None:
    """Each beam takes the past of the beam it came from; images stay, since beams never change image."""
    for cache in caches:
        cache.keys = cache.keys[rows]
        cache.values = cache.values[rows]


def _cut(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids

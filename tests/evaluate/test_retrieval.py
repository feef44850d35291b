"""Recall against plain sorting, ties by chance, and a model's ranking by ITC and ITM."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from capfilt.errors import DataError, ModelError
from capfilt.evaluate import retrieval
from capfilt.evaluate.filtering import judged
from capfilt.evaluate.references import Referenced, decode
from capfilt.evaluate.retrieval import RANKS, recall, reranked, retrieve
from capfilt.med.filter import MEDFilter
from capfilt.med.model import MED
from capfilt.med.pixels import batch_of
from tests.conftest import COLOURS, SHAPES, shape_picture


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_recall_is_that_of_sorted_lists(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(7, 23, generator=generator)
    right = torch.rand(7, 23, generator=generator) < 0.1
    right[torch.arange(7), torch.randint(23, (7,), generator=generator)] = True
    found = recall(scores, right)
    for rank, got in zip(RANKS, (found.at_1, found.at_5, found.at_10), strict=True):
        order = scores.argsort(dim=1, descending=True)[:, :rank]
        assert got == pytest.approx(float(right.gather(1, order).any(1).double().mean()))


def test_equal_scores_count_as_if_shuffled() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 3, (5, 12), generator=generator).float()
    right = torch.zeros(5, 12, dtype=torch.bool)
    right[torch.arange(5), torch.tensor([0, 3, 3, 7, 11])] = True
    right[0, 5] = right[4, 1] = True
    draw, hits, tries = random.Random(0), dict.fromkeys(RANKS, 0), 3000
    for _ in range(tries):
        for q in range(5):
            order = sorted(range(12), key=lambda c: (-float(scores[q, c]), draw.random()))
            for rank in RANKS:
                hits[rank] += any(bool(right[q, c]) for c in order[:rank])
    found = recall(scores, right)
    for rank, got in zip(RANKS, (found.at_1, found.at_5, found.at_10), strict=True):
        assert got == pytest.approx(hits[rank] / (5 * tries), abs=0.015)
    one = recall(torch.zeros(4, 20), torch.eye(4, 20, dtype=torch.bool))
    assert (one.at_1, one.at_5, one.at_10) == (pytest.approx(0.05), pytest.approx(0.25), pytest.approx(0.5))


def shown(count: int) -> list[Referenced]:
    draw = random.Random(0)
    items = []
    for i in range(count):
        colour, shape = list(COLOURS)[i % 4], SHAPES[i // 4 % 2]
        items.append(
            Referenced(
                str(i), (f"a {colour} {shape}", "...", f"{shape} {colour}"), data=shape_picture(colour, shape, draw)
            )
        )
    return items


@torch.inference_mode()
def test_a_ranking_is_that_of_the_models_own_scores(tiny_architecture: Path) -> None:
    """With every candidate reranked, recall is that of ITM's logits plus cosines, computed one pair at a time."""
    torch.manual_seed(0)
    model, items = MED.new(tiny_architecture).eval(), shown(8)
    for p in model.text.parameters():  # larger weights give a random model opinions
        p.mul_(4 if p.dim() > 1 else 1)
    got = retrieve(model, items, rerank=100, batch_size=3)
    assert (got.pictures, got.texts, got.reranked_texts, got.reranked_pictures) == (8, 16, 16, 8)
    texts = [(i, text) for i, item in enumerate(items) for text in (item.texts[0], item.texts[2])]
    scores, cosines = torch.zeros(8, 16), torch.zeros(8, 16)
    for i, item in enumerate(items):
        image = model.encode_image(batch_of([decode(item)], 32))
        for t, (_, text) in enumerate(texts):
            tokens = model.tokenizer([text], max_tokens=35)
            cosines[i, t] = (model.embed_image(image) * model.embed_text(tokens)).sum()
            scores[i, t] = model.match(image, tokens)[0, 1] + cosines[i, t]
    right = torch.tensor([[owner == i for owner, _ in texts] for i in range(8)])
    assert got.text_by_itc == recall(cosines, right)
    assert got.image_by_itc == recall(cosines.T, right.T)
    assert got.text == recall(scores, right)
    assert got.image == recall(scores.T, right.T)
    assert got.text != got.text_by_itc or got.image != got.image_by_itc


def test_what_was_not_reranked_stands_behind_what_was(tiny_architecture: Path) -> None:
    """One candidate each: whatever ITM says of it, the order is that of ITC."""
    torch.manual_seed(1)
    model = MED.new(tiny_architecture).eval()
    got = retrieve(model, shown(9), rerank=1)
    assert got.text is not None
    assert got.text.at_1 == pytest.approx(got.text_by_itc.at_1, abs=1e-9)
    assert retrieve(model, shown(9), rerank=0).text is None


def by_table(table: Tensor, asked: list[tuple[int, int]], *, transposed: bool = False) -> Callable[..., Tensor]:
    """ITM's logits of a match as a table of pictures by texts has them; remembers which pairs were asked for."""

    def logits(query: Tensor, candidate: Tensor) -> Tensor:
        asked.extend(zip(query.tolist(), candidate.tolist(), strict=True))
        return table[candidate, query] if transposed else table[query, candidate]

    return logits


PLACES = (1, 2, 5, 6, 10, 11, 13, 20)
"""Where ITC puts the right answer of each of 8 queries among 20 candidates, from 1."""
LIFTED = (1, 5, 6, 2, 1, 10, 13, 20)
"""Where it stands once ITM has ranked the first 12 again: what ITC has at 13 or behind, ITM does not see."""


def hand_made() -> tuple[Tensor, Tensor, Tensor]:
    """Cosines, logits and right answers. ITC ranks candidate c of query q at place (c - q) mod 20, from 0."""
    queries, places = torch.arange(8)[:, None], torch.arange(20)[None]
    candidate = (queries + places) % 20
    cosine = torch.zeros(8, 20).scatter(1, candidate, 0.9 - places.expand(8, 20) / 100)
    right, logits = torch.zeros(8, 20, dtype=torch.bool), torch.zeros(8, 20)
    for q, (itc, itm) in enumerate(zip(PLACES, LIFTED, strict=True)):
        order = [place for place in range(20) if place != itc - 1]
        order.insert(itm - 1, itc - 1)
        if itc > 12:
            order = list(range(20))
            logits[q, candidate[q, itc - 1]] = 1e6  # it would be first, were it asked for
        for place, at in enumerate(order):
            logits[q, candidate[q, at]] += -3.0 * place
        right[q, candidate[q, itc - 1]] = True
    return cosine, logits, right


def test_recall_by_itm_is_that_of_the_places_it_gives() -> None:
    cosine, logits, right = hand_made()
    by_itc, asked = recall(cosine, right), []
    assert (by_itc.at_1, by_itc.at_5, by_itc.at_10) == (1 / 8, 3 / 8, 5 / 8)
    got = recall(reranked(cosine, 12, by_table(logits, asked)), right)
    assert (got.at_1, got.at_5, got.at_10) == (2 / 8, 4 / 8, 6 / 8)
    assert sorted(asked) == sorted((q, (q + place) % 20) for q in range(8) for place in range(12))


def test_the_other_direction_asks_for_the_pair_the_other_way_round() -> None:
    """Texts look for pictures: queries are columns of the table, and fewer candidates than there are."""
    cosine, logits, right = hand_made()
    asked: list[tuple[int, int]] = []
    pictures_by_texts = logits.T.contiguous()
    got = recall(reranked(cosine, 12, by_table(pictures_by_texts, asked, transposed=True)), right)
    assert (got.at_1, got.at_5, got.at_10) == (2 / 8, 4 / 8, 6 / 8)
    assert len(asked) == 8 * 12


def test_pairs_are_laid_out_in_blocks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cosine, logits, _ = hand_made()
    whole, sizes = reranked(cosine, 12, by_table(logits, [])), []
    monkeypatch.setattr(retrieval, "PAIRS", 30)

    def counted(query: Tensor, candidate: Tensor) -> Tensor:
        sizes.append(len(query))
        return logits[query, candidate]

    assert torch.equal(reranked(cosine, 12, counted), whole)
    assert sizes == [24, 24, 24, 24]


@torch.inference_mode()
def test_with_fewer_candidates_than_there_are_both_directions_rank_their_own(tiny_architecture: Path) -> None:
    """Three of 8 pictures and of 16 texts, found and ordered pair by pair with the model itself."""
    torch.manual_seed(3)
    model, items = MED.new(tiny_architecture).eval(), shown(8)
    for p in model.text.parameters():
        p.mul_(4 if p.dim() > 1 else 1)
    got = retrieve(model, items, rerank=3, batch_size=5)
    texts = [(i, text) for i, item in enumerate(items) for text in (item.texts[0], item.texts[2])]
    images = [model.encode_image(batch_of([decode(item)], 32)) for item in items]
    tokens = [model.tokenizer([text], max_tokens=35) for _, text in texts]
    cosine = torch.tensor([[float((model.embed_image(i) * model.embed_text(t)).sum()) for t in tokens] for i in images])
    logit = torch.tensor([[float(model.match(i, t)[0, 1]) for t in tokens] for i in images])
    right = torch.tensor([[owner == i for owner, _ in texts] for i in range(8)])
    for told, scores, match, good in ((got.text, cosine, logit, right), (got.image, cosine.T, logit.T, right.T)):
        want = scores - 100
        for query, row in enumerate(scores):
            first = row.argsort(descending=True)[:3]
            want[query, first] = match[query, first] + row[first]
        assert told == recall(want, good)


def test_a_model_whose_scores_are_no_numbers_has_no_recall(tiny_architecture: Path) -> None:
    for part in ("itm_head.bias", "text_proj.bias"):
        model = MED.new(tiny_architecture).eval()
        with torch.no_grad():
            model.get_parameter(part).fill_(float("nan"))
        with pytest.raises(ModelError, match="not numbers"):
            retrieve(model, shown(4), rerank=2)
        with pytest.raises(ModelError, match="not numbers"):
            judged(MEDFilter(model), shown(8))


def test_nothing_to_rank_and_no_filter_are_users_errors(tiny_architecture: Path) -> None:
    model = MED.new(tiny_architecture).eval()
    with pytest.raises(DataError, match="no picture with a text"):
        retrieve(model, [Referenced("a", ("...",), data=b"")])
    with pytest.raises(ModelError, match="is a captioner"):
        retrieve(model.only("captioner"), shown(3))

"""Nucleus and beam: the set, the draw, the limits, and seeds that do not care for batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capfilt.errors import ModelError
from capfilt.med.captioner import MEDCaptioner
from capfilt.med.decoding import Limits, Nucleus, beam, draw, forbid, nucleus, penalise_repeats, uniforms
from capfilt.med.model import MED
from capfilt.roles import Writing


@pytest.fixture(scope="module")
def model(tiny_architecture: Path) -> MED:
    torch.manual_seed(0)
    model = MED.new(tiny_architecture).eval()
    with torch.no_grad():  # larger weights give a random model opinions
        for p in model.text.parameters():
            if p.dim() > 1:
                p.mul_(6)
    return model


def images(model: MED, count: int) -> torch.Tensor:
    size = model.config.vision.image_size
    with torch.no_grad():
        return model.encode_image(torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=2, max_size=12), st.floats(0.05, 1.0))
def test_the_nucleus_is_the_smallest_set_that_reaches_p(logits: list[float], p: float) -> None:
    row = torch.tensor([logits], dtype=torch.float32)
    grid = torch.linspace(0, 1, 501, dtype=torch.float64)[:-1]
    drawn = set(draw(row.expand(500, -1), grid, top_p=p).tolist())
    probabilities = torch.softmax(row[0].double(), 0)
    order = torch.sort(row[0], descending=True, stable=True).indices.tolist()
    smallest, mass = set[int](), 0.0
    for token in order:
        if mass >= p:
            break
        smallest.add(token)
        mass += float(probabilities[token])
    assert drawn <= smallest
    big = {t for t in smallest if float(probabilities[t]) / mass > 0.01}
    assert big <= drawn


def test_draws_are_as_frequent_as_the_renormalised_probabilities() -> None:
    row = torch.tensor([[2.0, 1.0, 0.5, -1.0, -3.0]])
    n = 20000
    u = torch.from_numpy(uniforms(7, n))
    counts = torch.bincount(draw(row.expand(n, -1), u, top_p=0.9), minlength=5).double()
    p = torch.softmax(row[0].double(), 0)
    p[3:] = 0  # 0.57 + 0.21 + 0.13 = 0.91 reaches 0.9
    p /= p.sum()
    assert counts[3:].sum() == 0
    chi = float((((counts - n * p) ** 2)[:3] / (n * p[:3])).sum())
    assert chi < 13.8  # two degrees of freedom, p = 0.001


def test_top_k_bounds_the_set() -> None:
    row = torch.zeros(300, 6)
    u = torch.linspace(0, 1, 301, dtype=torch.float64)[:-1]
    assert len(set(draw(row, u, top_p=1.0, top_k=2).tolist())) == 2


def test_forbidden_tokens_and_early_ends_have_no_probability() -> None:
    limits = Limits(max_length=9, min_length=5, end=3, forbidden=(0, 1))
    assert forbid(torch.zeros(1, 5), limits, 4)[0].isinf().tolist() == [True, True, False, True, False]
    assert forbid(torch.zeros(1, 5), limits, 5)[0].isinf().tolist() == [True, True, False, False, False]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=4, max_size=9),
    st.sets(st.integers(0, 8), max_size=6),
    st.sampled_from([0.3, 0.9, 1.0]),
    st.sampled_from([0.0, 0.5, 1 - 2**-30, 1 - 2**-53]),
)
def test_what_is_forbidden_is_never_drawn(logits: list[float], barred: set[int], top_p: float, uniform: float) -> None:
    barred = {token for token in barred if token < len(logits)}
    if len(barred) == len(logits):
        barred.pop()
    limits = Limits(max_length=9, min_length=0, end=0, forbidden=tuple(barred))
    row = forbid(torch.tensor([logits]), limits, 5)
    assert int(draw(row, torch.tensor([uniform], dtype=torch.float64), top_p=top_p)) not in barred


def test_the_last_draw_of_a_large_vocabulary_is_not_a_forbidden_word() -> None:
    rows = forbid(
        torch.randn(64, 30524, generator=torch.Generator().manual_seed(0)),
        Limits(max_length=9, min_length=0, end=3, forbidden=(0, 1, 2, 30522, 30523)),
        5,
    )
    drawn = draw(rows, torch.full((64,), 1 - 2**-53, dtype=torch.float64), top_p=1.0)
    assert not torch.isin(drawn, torch.tensor([0, 1, 2, 30522, 30523])).any()


def test_the_repetition_penalty_lowers_what_is_there_on_both_sides_of_zero() -> None:
    got = penalise_repeats(torch.tensor([[2.0, -2.0, 1.0]]), torch.tensor([[0, 1, 0]]), 2.0)
    assert got.tolist() == [[1.0, -4.0, 1.0]]


def test_uniforms_depend_on_the_seed_alone_and_fill_the_interval() -> None:
    assert np.array_equal(uniforms(2**127, 8), uniforms(2**127, 8))
    assert not np.array_equal(uniforms(1, 8), uniforms(2, 8))
    many = uniforms(3, 10000)
    assert many.min() >= 0
    assert many.max() < 1
    assert abs(many.mean() - 0.5) < 0.01


def test_a_caption_depends_neither_on_its_batch_nor_on_its_place(model: MED) -> None:
    image = images(model, 6)
    tokenizer = model.tokenizer
    prompt = [tokenizer.dec, *tokenizer.pieces("a picture of")]
    limits = Limits(max_length=14, min_length=6, end=tokenizer.sep, forbidden=())
    how = Nucleus()
    seeds = [[10 * i, 10 * i + 1, 10 * i + 2] for i in range(6)]
    together = nucleus(model.text, image, prompt, seeds, how, limits)
    order = [4, 1, 5, 0, 3, 2]
    mixed = nucleus(model.text, image[order], prompt, [seeds[i] for i in order], how, limits)
    alone = [nucleus(model.text, image[i : i + 1], prompt, [seeds[i]], how, limits)[0] for i in range(6)]
    assert [mixed[order.index(i)] for i in range(6)] == together == alone
    assert len({tuple(ids) for rows in together for ids in rows}) > 6


@pytest.mark.parametrize("look_every", [1, 3, 100])
def test_captions_that_have_ended_leave_and_change_nothing(model: MED, look_every: int) -> None:
    prompt, limits = [model.tokenizer.dec], Limits(max_length=20, min_length=2, end=model.tokenizer.sep)
    seeds = [[i, 100 + i] for i in range(12)]
    rows: list[int] = []
    write_step = model.text.write_step

    def counted(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        rows.append(len(ids))
        return write_step(ids, *rest)

    model.text.write_step = counted  # type: ignore[method-assign]
    assert model.text.lm_head
    ends = model.text.lm_head.bias[model.tokenizer.sep]
    with torch.no_grad():
        ends += 1.0  # random weights seldom end a text
    try:
        image = images(model, 12)
        found = nucleus(model.text, image, prompt, seeds, Nucleus(), limits, look_every=look_every)
        together, rows = rows, []
        alone = [
            nucleus(model.text, image[i : i + 1], prompt, seeds[i : i + 1], Nucleus(), limits)[0] for i in range(12)
        ]
    finally:
        model.text.write_step = write_step  # type: ignore[method-assign]
        with torch.no_grad():
            ends -= 1.0
    assert found == alone
    assert len({len(ids) for row in found for ids in row}) > 4
    assert (together[0], min(together) <= 6) == (24, look_every < 100), together


def test_the_device_is_read_at_the_looks_only(model: MED, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each read waits for all that was queued: a step without one costs only its own launch."""
    reads: list[str] = []
    for name in ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__"):
        plain = getattr(torch.Tensor, name)

        def read(self: torch.Tensor, *args: Any, name: str = name, plain: Any = plain, **how: Any) -> Any:
            reads.append(name)
            return plain(self, *args, **how)

        monkeypatch.setattr(torch.Tensor, name, read)
    prompt, limits = [model.tokenizer.dec], Limits(max_length=25, min_length=25, end=model.tokenizer.sep)
    image = images(model, 3)
    reads.clear()
    written = nucleus(model.text, image, prompt, [[1], [2], [3]], Nucleus(), limits, look_every=8)
    assert [len(row[0]) for row in written] == [24] * 3
    assert reads == ["tolist"] * (24 // 8 + 1)


def test_captions_obey_their_lengths(model: MED) -> None:
    tokenizer = model.tokenizer
    prompt = [tokenizer.dec, *tokenizer.pieces("a picture of")]
    limits = Limits(max_length=9, min_length=7, end=tokenizer.sep)
    for rows in (
        nucleus(model.text, images(model, 4), prompt, [[1], [2], [3], [4]], Nucleus(), limits),
        beam(model.text, images(model, 4), prompt, 3, 1, limits),
    ):
        assert all(3 <= len(ids) <= 5 for row in rows for ids in row)


@torch.no_grad()
def test_beam_finds_the_best_caption_that_a_full_search_finds(model: MED) -> None:
    """With as many beams as there are texts, beam search is exhaustive search."""
    tokenizer, image = model.tokenizer, images(model, 1)
    prompt = [tokenizer.dec]
    words = tokenizer.size
    limits = Limits(max_length=3, min_length=0, end=tokenizer.sep)
    got = beam(model.text, image, prompt, words, 1, limits)[0][0]
    first = model.text.write(torch.tensor([prompt]), image)[0, -1].log_softmax(-1)
    best, want = float(first[tokenizer.sep]), list[int]()
    for a in range(words):
        if a == tokenizer.sep:
            continue
        second = model.text.write(torch.tensor([[*prompt, a]]), image)[0, -1].log_softmax(-1)
        for b in range(words):
            score = float(first[a] + second[b]) / 2
            if score > best:
                best, want = score, [a] if b == tokenizer.sep else [a, b]
    assert got == want


@torch.no_grad()
def test_one_beam_takes_the_likeliest_token_at_every_step(model: MED) -> None:
    tokenizer, image = model.tokenizer, images(model, 5)
    prompt = [tokenizer.dec, *tokenizer.pieces("a picture of")]
    limits = Limits(max_length=12, min_length=7, end=tokenizer.sep, forbidden=(tokenizer.cls, tokenizer.pad))
    got = beam(model.text, image, prompt, 1, 1, limits)
    for place in range(5):
        ids = list(prompt)
        while len(ids) < limits.max_length:
            logits = forbid(model.text.write(torch.tensor([ids]), image[place : place + 1])[0, -1:], limits, len(ids))
            ids.append(int(logits.argmax()))
            if ids[-1] == tokenizer.sep:
                break
        assert got[place][0] == [token for token in ids[len(prompt) :] if token != tokenizer.sep]


def test_more_captions_than_one_are_different_and_best_first(model: MED) -> None:
    tokenizer = model.tokenizer
    limits = Limits(max_length=8, min_length=0, end=tokenizer.sep)
    rows = beam(model.text, images(model, 3), [tokenizer.dec], 4, 3, limits)
    assert all(len({tuple(ids) for ids in row}) == 3 for row in rows)


def test_a_prompt_longer_than_the_caption_is_a_users_error(model: MED) -> None:
    with pytest.raises(ModelError, match="do not fit"):
        MEDCaptioner(model, Writing(max_length=4, min_length=0))

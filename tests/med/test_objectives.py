"""ITC, ITM and LM against plain loops, and the momentum twin with its queue."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capfilt.errors import RecipeError
from capfilt.med import objectives
from capfilt.med.model import MED
from capfilt.med.momentum import FeatureQueue, MomentumTwin
from capfilt.med.tasks import Batch, CaptionerFinetune, FilterFinetune, Pretrain, Unmatched
from capfilt.train.begin import task_of
from capfilt.train.config import ObjectiveConfig, TrainConfig


def test_alpha_rises_over_two_epochs_and_stays() -> None:
    at = [objectives.alpha_at(s, steps_per_epoch=10) for s in (0, 5, 10, 20, 99)]
    assert at == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.4])


def test_itc_is_the_mean_of_both_directions_cross_entropies() -> None:
    image, text = (torch.randn(3, 5, dtype=torch.float64) for _ in range(2))
    positive = torch.eye(3, 5, dtype=torch.bool)
    hard = objectives.itc_targets(torch.randn(3, 5), positive, 0.0)
    got = objectives.itc(image, text, hard.double(), hard.double())
    want = 0.0
    for sims in (image, text):
        for i in range(3):
            want -= math.log(math.exp(sims[i, i]) / sum(math.exp(v) for v in sims[i])) / 6
    assert float(got) == pytest.approx(want, rel=1e-9)


def test_soft_targets_mix_the_twin_and_the_truth_and_sum_to_one() -> None:
    positive = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0]], dtype=torch.bool)
    similarity = torch.randn(2, 4)
    targets = objectives.itc_targets(similarity, positive, 0.4)
    torch.testing.assert_close(targets.sum(1), torch.ones(2))
    torch.testing.assert_close(targets[0], 0.4 * similarity[0].softmax(0) + 0.6 * torch.tensor([0.5, 0, 0.5, 0]))


def test_hard_negatives_are_never_matches_and_prefer_the_similar() -> None:
    similarity = torch.tensor([[9.0, 5.0, 0.0, -5.0]]).repeat(4000, 1)
    positive = torch.tensor([[1, 0, 0, 0]], dtype=torch.bool).repeat(4000, 1)
    drawn = objectives.hard_negatives(similarity, positive, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=4)
    assert counts[0] == 0
    assert counts[1] > 20 * max(1, int(counts[2]))


def test_a_high_floor_draws_negatives_evenly() -> None:
    similarity = torch.tensor([[9.0, 5.0, 0.0, -5.0]]).repeat(6000, 1)
    positive = torch.tensor([[1, 0, 0, 0]], dtype=torch.bool).repeat(6000, 1)
    drawn = objectives.hard_negatives(similarity, positive, floor=100.0, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=4)
    assert counts[0] == 0
    assert ((counts[1:] - 2000).abs() < 150).all()


def test_without_a_floor_what_is_far_away_is_still_a_negative() -> None:
    similarity, positive = torch.tensor([[900.0, 0.0, 1.0]]), torch.tensor([[True, False, False]])
    drawn = {int(objectives.hard_negatives(similarity, positive, floor=0.0)[0]) for _ in range(60)}
    assert drawn == {1, 2}


def test_itc_of_half_precision_is_that_of_its_features_in_float32(tiny_architecture: Path) -> None:
    """bfloat16 keeps 8 bits: similarities over the temperature, tens of units, would be off by an eighth."""
    torch.manual_seed(0)
    task = FilterFinetune(MED.new(tiny_architecture), queue_size=64, momentum=0.9, random_queue=True)
    pairs = batch(task.model, ["a red circle", "a blue square", "a black circle", "a green square"])
    exact: list[torch.Tensor] = []
    with torch.autocast("cpu", torch.bfloat16):
        image = task.model.encode_image(pairs.pixels)
        real = task._contrast

        def noting(b: Batch, image_BP: torch.Tensor, text_BP: torch.Tensor, alpha: float, **rest: bool):  # type: ignore[no-untyped-def]
            assert image_BP.dtype == text_BP.dtype == torch.float32
            exact.extend((image_BP.detach(), text_BP.detach()))
            return real(b, image_BP, text_BP, alpha, **rest)

        task._contrast = noting  # type: ignore[method-assign]
        loss, image_BM, _ = task.contrast(pairs, image, 0.4)
    assert loss.dtype == image_BM.dtype == torch.float32
    assert not torch.equal(image_BM, image_BM.bfloat16().float())


def test_a_query_to_which_everything_belongs_has_no_negative() -> None:
    positive = torch.tensor([[True, True], [False, True]])
    assert objectives.hard_negatives(torch.zeros(2, 2), positive).tolist() == [-1, 0]


def test_lm_predicts_the_next_token_and_counts_neither_pads_nor_prompt() -> None:
    ids = torch.tensor([[9, 5, 6, 7, 3, 0]])
    labels = objectives.lm_labels(ids, ids != 0, prompt_tokens=3)
    assert labels.tolist() == [[-100, -100, -100, 7, 3, -100]]
    logits = torch.randn(1, 6, 10, dtype=torch.float64)
    log = logits.log_softmax(-1)
    smooth = lambda at, token: 0.9 * log[0, at, token] + 0.1 * log[0, at].mean()  # noqa: E731
    want = -(smooth(2, 7) + smooth(3, 3)) / 2
    assert float(objectives.lm(logits, labels)) == pytest.approx(float(want), rel=1e-5)


def cross_entropy(logits: list[torch.Tensor], target: list[float]) -> torch.Tensor:
    """Written out: the sum of target times minus the log of the softmax, one number after the other."""
    total = torch.stack([value.exp() for value in logits]).sum()
    return torch.stack([-t * (value.exp() / total).log() for value, t in zip(logits, target, strict=True)]).sum()


def gradients(loss: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, inputs))


def test_the_gradients_are_those_of_plain_loops_in_float64() -> None:
    """ITC of features over a learned temperature, with soft targets; ITM; and LM with smoothing, pads and a prompt."""
    generator = torch.Generator().manual_seed(3)
    made = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    image, text = made(3, 4).requires_grad_(), made(3, 4).requires_grad_()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    keys_of_text, keys_of_image = made(5, 4), made(5, 4)
    positive = torch.eye(3, 5, dtype=torch.bool)
    positive[0, 3] = True
    soft_image, soft_text, alpha = made(3, 5), made(3, 5), 0.4
    targets = [objectives.itc_targets(soft, positive, alpha) for soft in (soft_image, soft_text)]
    got = objectives.itc(image @ keys_of_text.T / temperature, text @ keys_of_image.T / temperature, *targets)
    assert got.dtype == torch.float64
    terms = []
    for rows, keys, soft in ((image, keys_of_text, soft_image), (text, keys_of_image, soft_text)):
        for i in range(3):
            logits = [sum(rows[i, p] * keys[k, p] for p in range(4)) / temperature for k in range(5)]
            belongs = [k for k in range(5) if positive[i, k]]
            mass = sum(math.exp(v) for v in soft[i].tolist())
            target = [
                alpha * math.exp(soft[i, k].item()) / mass + (1 - alpha) * (k in belongs) / len(belongs)
                for k in range(5)
            ]
            terms.append(cross_entropy(logits, target))
    want = torch.stack(terms).sum() / 6
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    inputs = (image, text, temperature)
    torch.testing.assert_close(gradients(got, *inputs), gradients(want, *inputs), rtol=1e-10, atol=1e-12)

    logits, matched = made(6, 2).requires_grad_(), [1, 1, 0, 0, 1, 0]
    got = objectives.itm(logits, torch.tensor(matched))
    want = torch.stack([cross_entropy(list(logits[i]), [1.0 - m, float(m)]) for i, m in enumerate(matched)]).sum() / 6
    torch.testing.assert_close(gradients(got, logits), gradients(want, logits), rtol=1e-10, atol=1e-14)

    ids = torch.tensor([[9, 5, 6, 7, 3, 0], [9, 5, 2, 3, 0, 0]])
    logits = made(2, 6, 10).requires_grad_()
    got = objectives.lm(logits, objectives.lm_labels(ids, ids != 0, prompt_tokens=2), label_smoothing=0.1)
    counted = [(b, at) for b in range(2) for at in range(2, 6) if ids[b, at] != 0]
    want = torch.stack(
        [
            cross_entropy(list(logits[b, at - 1]), [0.1 / 10 + 0.9 * (w == ids[b, at].item()) for w in range(10)])
            for b, at in counted
        ]
    ).sum() / len(counted)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients(got, logits), gradients(want, logits), rtol=1e-10, atol=1e-14)


def test_the_temperature_stays_within_its_range(tiny_architecture: Path) -> None:
    model = MED.new(tiny_architecture)
    task = FilterFinetune(model, queue_size=4, momentum=0.9)
    for far, near in ((3.0, 0.5), (-1.0, 0.001)):
        with torch.no_grad():
            model.temperature.fill_(far)
        task(batch(model, ["a red circle", "a blue square"]), alpha=0.0)
        assert model.temperature.item() == pytest.approx(near)


def test_the_queue_takes_any_batch_and_keeps_the_newest() -> None:
    queue = FeatureQueue(5, 2)
    for start in (0, 3, 6):
        ids = torch.arange(start, start + 3)
        queue.push(ids[:, None].float().expand(3, 2), -ids[:, None].float().expand(3, 2), ids, ids + 100)
    image, text, images, texts = queue.features()
    assert sorted(images.tolist()) == [4, 5, 6, 7, 8]
    assert torch.equal(image[:, 0].long(), images)
    assert torch.equal(-text[:, 0].long(), images)
    assert torch.equal(texts, images + 100)
    queue.push(torch.zeros(9, 2), torch.zeros(9, 2), torch.arange(9), torch.arange(9))
    assert sorted(queue.features()[2].tolist()) == [4, 5, 6, 7, 8]


def test_an_empty_queue_gives_nothing_and_takes_nothing() -> None:
    queue = FeatureQueue(0, 2)
    queue.push(torch.zeros(3, 2), torch.zeros(3, 2), torch.arange(3), torch.arange(3))
    assert all(len(t) == 0 for t in queue.features())


def batch(model: MED, texts: list[str]) -> Batch:
    size = model.config.vision.image_size
    n = len(texts)
    tokens = model.tokenizer(texts, max_tokens=30)
    return Batch(torch.randn(n, 3, size, size), tokens, torch.arange(n), torch.tensor([hash(t) for t in texts]))


def test_the_twin_follows_by_its_momentum(tiny_architecture: Path) -> None:
    model = MED.new(tiny_architecture)
    twin = MomentumTwin(model)
    before = twin.vision_proj.weight.clone()
    with torch.no_grad():
        model.vision_proj.weight.add_(1.0)
    twin.follow(model, 0.9)
    torch.testing.assert_close(twin.vision_proj.weight, before + 0.1)


def test_pretraining_moves_every_weight_and_never_the_twin(tiny_architecture: Path) -> None:
    torch.manual_seed(0)
    model = MED.new(tiny_architecture)
    task = Pretrain(model, queue_size=8, momentum=0.995, label_smoothing=0.1)
    losses = task(batch(model, ["a red circle", "a blue square", "a black circle", "a green square"]), alpha=0.4)
    assert set(losses) == {"itc", "itm", "lm"}
    torch.stack(list(losses.values())).sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None]
    assert still == []
    assert all(p.grad is None for p in task.twin.parameters())


def test_held_out_itc_is_the_same_however_full_the_queue_is(tiny_architecture: Path) -> None:
    torch.manual_seed(0)
    model = MED.new(tiny_architecture).eval()
    task = Pretrain(model, queue_size=8, momentum=0.995, label_smoothing=0.1).eval()
    pairs = batch(model, ["a red circle", "a blue square", "a black circle", "a green square"])
    with torch.no_grad():
        empty = task(pairs, alpha=0.0, follow=False, push=False)["itc"]
        task.queue.fill_randomly()
        full = task(pairs, alpha=0.0, follow=False, push=False)["itc"]
        trained = task(pairs, alpha=0.0, follow=False)["itc"]
    assert torch.equal(full, empty)
    assert trained > full + 0.3, "training meets what is queued"


def positives(model: MED, task: str, exact: str | None) -> torch.Tensor:
    """Which of four pairs match which: the first two share an image, the last two a text."""
    config = TrainConfig(task=task, objective=ObjectiveConfig(queue_size=4, exact=exact))
    made = task_of(config, model)
    pairs = batch(model, ["a red circle", "a circle", "a blue square", "a blue square"])
    pairs.images[1] = pairs.images[0]
    assert made.queue.features()[0].shape[0] == (4 if exact else 0)
    return made._positive(pairs, pairs.images, pairs.texts)


def test_one_image_or_one_text_makes_no_negatives_unless_the_papers_code_is_asked_for(tiny_architecture: Path) -> None:
    model = MED.new(tiny_architecture)
    own, image, text = torch.eye(4, dtype=torch.bool), torch.zeros(4, 4), torch.zeros(4, 4)
    image[0, 1] = image[1, 0] = text[2, 3] = text[3, 2] = 1
    for task in ("pretrain", "filter"):
        assert torch.equal(positives(model, task, None), own | image.bool() | text.bool())
    assert torch.equal(positives(model, "pretrain", "blip"), own)
    assert torch.equal(positives(model, "filter", "blip"), own | image.bool())


def test_a_random_queue_is_full_of_unit_vectors_that_match_nothing() -> None:
    queue = FeatureQueue(6, 8)
    queue.fill_randomly()
    image, text, images, texts = queue.features()
    for vectors in (image, text):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(6))
    assert not torch.equal(image, text)
    assert set(images.tolist()) == set(texts.tolist()) == {-1}


def test_without_a_twin_itc_compares_the_batch_with_itself_and_both_sides_learn(tiny_architecture: Path) -> None:
    torch.manual_seed(0)
    model = MED.new(tiny_architecture).eval()
    pairs = batch(model, ["a red circle", "a blue square", "a black circle", "a green square"])
    task = FilterFinetune(model, queue_size=0, momentum=None)
    assert not any(name.startswith("twin") for name in task.state_dict())
    loss = task(pairs, alpha=0.0)["itc"]
    image_BP, text_BP = model.embed_image(model.encode_image(pairs.pixels)), model.embed_text(pairs.tokens)
    logits = image_BP @ text_BP.T / model.temperature
    rows = torch.arange(4)
    want = (torch.nn.functional.cross_entropy(logits, rows) + torch.nn.functional.cross_entropy(logits.T, rows)) / 2
    torch.testing.assert_close(loss, want)
    # The gradient is that of both sides; a twin's keys would give each side half of it.
    mine, theirs = (torch.autograd.grad(x, model.vision_proj.weight)[0] for x in (loss, want))
    torch.testing.assert_close(mine, theirs)


def test_a_queue_needs_a_twin() -> None:
    with pytest.raises(RecipeError, match="momentum twin"):
        ObjectiveConfig(momentum=None, alpha=0.0)
    assert ObjectiveConfig(momentum=None, alpha=0.0, queue_size=0).momentum is None


def test_the_captioner_learns_nothing_from_its_prompt(tiny_architecture: Path) -> None:
    model = MED.new(tiny_architecture)
    task = CaptionerFinetune(model, label_smoothing=0.0)
    assert task.prompt_tokens == 4
    losses = task(batch(model, ["a picture of a red circle"]), alpha=0.0)
    assert set(losses) == {"lm"}


def test_what_a_batch_names_as_unmatched_counts_as_one_more_negative_each(tiny_architecture: Path) -> None:
    torch.manual_seed(0)
    model = MED.new(tiny_architecture).eval()
    task = FilterFinetune(model, queue_size=0, momentum=None)
    pairs = batch(model, ["a red circle", "a blue square", "green"])
    image, texts = model.encode_image(pairs.pixels), torch.tensor([1, 2, 0])
    images = torch.tensor([2, 0, 1])
    nothing = model.tokenizer(["a picture of white on white"], max_tokens=30)  # longer than the batch's own
    found = task.match(replace(pairs, unmatched=Unmatched(nothing, torch.tensor([1]))), image, images, texts)
    # By hand: nine rows of the batch, and the second picture with the text.
    nine = task.match(pairs, image, images, texts)
    alone = torch.nn.functional.cross_entropy(model.match(image[1:2], nothing), torch.tensor([0]))
    torch.testing.assert_close(found, (9 * nine + alone) / 10, rtol=1e-5, atol=1e-6)

"""Our losses, gradients and momentum step beside those of the published BLIP code on the same weights and batch.

``fixtures/original.json`` holds the numbers that code gave (``fixtures/make_original.py``).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from capfilt.med.config import MEDConfig, TextConfig, VisionConfig
from capfilt.med.model import MED
from capfilt.med.momentum import MomentumTwin
from capfilt.med.names import originals
from capfilt.med.objectives import NEGATIVE_FLOOR, negative_weights
from capfilt.med.released import Released, build, original_weights
from capfilt.med.tasks import Batch, Pretrain
from capfilt.med.tokenizer import MEDTokenizer, Tokens
from tests.med.drawn import drawn, first_name, weight

TOLERANCE = 1e-4
"""Relative to the size of what is compared: both sum in float32, in another order."""
TOLD = json.loads((Path(__file__).parent / "fixtures" / "original.json").read_text())


def med(salt: str = "") -> MED:
    v, t = TOLD["vision"], TOLD["text"]
    config = MEDConfig(
        vision=VisionConfig(
            image_size=v["img_size"],
            patch_size=v["patch_size"],
            width=v["embed_dim"],
            depth=v["depth"],
            heads=v["num_heads"],
        ),
        text=TextConfig(
            vocab_size=t["vocab_size"],
            width=t["hidden_size"],
            depth=t["num_hidden_layers"],
            heads=t["num_attention_heads"],
            ffn_width=t["intermediate_size"],
            max_positions=t["max_position_embeddings"],
            dropout=0.0,
        ),
        embed_dim=TOLD["embed_dim"],
    )
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"word{i}" for i in range(t["vocab_size"] - 6))]
    tokenizer = MEDTokenizer(pieces)
    shapes = {name: tensor.shape for name, tensor in original_weights(MED(config, tokenizer)).items()}
    weights = {name: weight(first_name(name), shape, salt) for name, shape in shapes.items()}
    weights["temp"] = torch.tensor(0.07)
    return build(Released(weights, "original", {}, Path("drawn")), tokenizer, config).requires_grad_(True)


@pytest.fixture(scope="module")
def step():
    """One pretraining step as theirs: losses, the model with its gradients, and the task after it."""
    task = Pretrain(med(), queue_size=TOLD["queue_size"], momentum=TOLD["momentum"], label_smoothing=0.1)
    task.mask_same_image = task.mask_same_text = False
    task.twin.load_state_dict(MomentumTwin(med("twin ")).state_dict())
    task.queue.fill_randomly()
    for room, name in ((task.queue.image_QP, "image_queue"), (task.queue.text_QP, "text_queue")):
        room.copy_(F.normalize(drawn(name, room.shape), dim=1))
    task.eval()
    ids = torch.tensor([row + [0] * (30 - len(row)) for row in TOLD["ids"]])
    side, pairs = TOLD["vision"]["img_size"], len(ids)
    batch = Batch(drawn("pixels", (pairs, 3, side, side)), Tokens(ids, ids != 0), torch.arange(pairs), ids[:, 1])
    # The parts of Pretrain.forward, with the negatives that theirs drew.
    image_BNV = task.model.encode_image(batch.pixels)
    itc, image_BB, text_BB = task.contrast(batch, image_BNV, TOLD["alpha"])
    drawn_images, drawn_texts = (torch.tensor(TOLD[f"negative_{what}"]) for what in ("images", "texts"))
    losses = {
        "itc": itc,
        "itm": task.match(batch, image_BNV, drawn_images, drawn_texts),
        "lm": task.language(batch, image_BNV),
    }
    torch.stack(list(losses.values())).sum().backward()
    return task, batch, losses, (image_BB, text_BB)


def test_the_three_losses_are_theirs(step):
    losses = {name: float(loss.detach()) for name, loss in step[2].items()}
    assert losses == pytest.approx(TOLD["losses"], rel=TOLERANCE)


def test_every_gradient_is_as_large_as_theirs(step):
    ours, theirs = dict(step[0].model.named_parameters()), TOLD["gradient_norms"]
    found = {}
    for name, parameter in ours.items():
        (there,) = {n for n in originals(name) if n in theirs}  # a shared weight stands there once
        found[there] = float(parameter.grad.norm())
    assert found.keys() == theirs.keys()
    # A bias of keys has no gradient but rounding's: softmax does not see it.
    small = {name for name in theirs if theirs[name] < 1e-3}
    assert all(name.endswith("self.key.bias") for name in small)
    assert {n: found[n] for n in found.keys() - small} == pytest.approx(
        {n: theirs[n] for n in theirs.keys() - small}, rel=TOLERANCE
    )
    assert max(found[name] for name in small) < 1e-3


def test_the_twin_moves_as_theirs(step):
    twin = {n: float(p.double().norm()) for n, p in step[0].twin.named_parameters() if ".decode." not in n}
    theirs, compared = TOLD["twin_norms"], set()
    for name, norm in twin.items():
        if name.startswith("text.lm_head."):
            continue  # theirs has no decoder in its twin
        head, _, tail = next(n for n in originals(name) if not n.startswith("text_decoder.")).partition(".")
        # Cross-attention takes no part in a twin; theirs follows too.
        assert norm == pytest.approx(theirs[f"{head}_m.{tail}"], rel=1e-6), name
        compared.add(f"{head}_m.{tail}")
    assert compared == theirs.keys()


def test_the_queue_takes_the_batch_as_theirs(step):
    queue = step[0].queue
    assert int(queue.state[0]) == TOLD["queue_ptr"]
    torch.testing.assert_close(queue.image_QP, torch.tensor(TOLD["image_queue"]), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(queue.text_QP, torch.tensor(TOLD["text_queue"]), atol=TOLERANCE, rtol=0)


def test_negatives_are_as_likely_as_theirs_and_never_of_the_pair_itself(step):
    task, batch, _, (image_BB, text_BB) = step
    own = torch.eye(len(TOLD["ids"]), dtype=torch.bool)
    found = [negative_weights(similarity, own, floor=NEGATIVE_FLOOR) for similarity in (text_BB, image_BB)]
    torch.testing.assert_close(torch.cat(found), torch.tensor(TOLD["negative_weights"]), atol=1e-6, rtol=TOLERANCE)
    for negatives in task.draw_negatives(batch, image_BB, text_BB):
        assert all(i != row and i >= 0 for row, i in enumerate(negatives.tolist()))

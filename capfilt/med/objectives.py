"""ITC, ITM and LM as pure functions (paper, section 3.2; ALBEF for hard negatives and soft targets).

Shapes: B pairs of the batch, M keys (the batch's momentum features, then the queue), P channels of
the contrastive space, L tokens, W words.

Knows tensors only: no model, no state, no data.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
"""Label of a position that LM does not count."""
NEGATIVE_FLOOR = 1e-4
"""Of the paper's code: negatives are drawn nearly by similarity alone."""


def alpha_at(step: int, *, steps_per_epoch: int, alpha: float = 0.4, ramp_epochs: float = 2.0) -> float:
    """Weight of the soft targets at a step: rises linearly from 0 to ``alpha`` over the ramp."""
    ramp = ramp_epochs * steps_per_epoch
    return alpha * min(1.0, step / ramp) if ramp else alpha


def same(ids_B: Tensor, keys_M: Tensor) -> Tensor:
    """Whether query and key have the same id (of their image, or of their text): bool (B, M) from int64."""
    return ids_B[:, None] == keys_M[None, :]


def itc_targets(similarity_BM: Tensor, positive_BM: Tensor, alpha: float) -> Tensor:
    """alpha * softmax(momentum similarity) + (1 - alpha) * positives, each row summing to 1.

    Args:
        similarity_BM: the momentum twin's similarities over temperature.
        positive_BM: bool; at least one true in a row.
        alpha: in [0, 1].
    """
    similarity_BM = _exact(similarity_BM)
    hard = positive_BM.to(similarity_BM.dtype)
    hard = hard / hard.sum(1, keepdim=True)
    return alpha * similarity_BM.softmax(1) + (1 - alpha) * hard


def itc(image_BM: Tensor, text_BM: Tensor, image_targets_BM: Tensor, text_targets_BM: Tensor) -> Tensor:
    """Image-text contrastive loss: mean of both directions' cross-entropy with soft targets.

    Args:
        image_BM: similarity of each image to the text keys, over temperature.
        text_BM: similarity of each text to the image keys, over temperature.
        image_targets_BM, text_targets_BM: rows that sum to 1, without gradient.
    """
    image_BM, text_BM = _exact(image_BM), _exact(text_BM)
    image = -(image_BM.log_softmax(1) * image_targets_BM).sum(1).mean()
    text = -(text_BM.log_softmax(1) * text_targets_BM).sum(1).mean()
    return (image + text) / 2


def hard_negatives(
    similarity_BB: Tensor,
    positive_BB: Tensor,
    *,
    floor: float = NEGATIVE_FLOOR,
    generator: torch.Generator | None = None,
) -> Tensor:
    """For each query one key that is no match, drawn by how similar it looks (ALBEF, section 3.2).

    Args:
        similarity_BB: similarity of queries to the batch's keys, over temperature.
        positive_BB: bool, true where query and key belong together and must not be drawn.
        floor: added to every key's probability before drawing, 0 or more; far above 1 / B draws evenly.

    Returns:
        int64 (B,); -1 for a query to which every key belongs.
    """
    weights = negative_weights(similarity_BB, positive_BB, floor=floor)
    none = positive_BB.all(1)
    # A floor of 0 lets weights of what is far from the query underflow: better the even draw than none.
    none_left = (weights.sum(1) == 0) & ~none
    weights = torch.where(none_left[:, None], (~positive_BB).to(weights.dtype), weights)
    drawn = torch.multinomial(weights.masked_fill(none[:, None], 1.0), 1, generator=generator)[:, 0]
    return drawn.masked_fill(none, -1)


def negative_weights(similarity_BB: Tensor, positive_BB: Tensor, *, floor: float) -> Tensor:
    """How likely each key is drawn as a query's negative, up to the row's sum: softmax plus floor, 0 for matches."""
    return (similarity_BB.detach().float().softmax(1) + floor).masked_fill(positive_BB, 0.0)


def itm(logits_R2: Tensor, matched_R: Tensor) -> Tensor:
    """Image-text matching loss: two-way cross-entropy.

    Args:
        logits_R2: (unmatched, matched) for every row. matched_R: int64, 1 where the pair is true.
    """
    return F.cross_entropy(_exact(logits_R2), matched_R)


def lm_labels(ids_BL: Tensor, mask_BL: Tensor, *, prompt_tokens: int = 0) -> Tensor:
    """Labels of LM: the ids, with pads and the first ``prompt_tokens`` positions not counted."""
    labels = ids_BL.masked_fill(~mask_BL, IGNORE)
    labels[:, :prompt_tokens] = IGNORE
    return labels


def lm(logits_BLW: Tensor, labels_BL: Tensor, *, label_smoothing: float = 0.1) -> Tensor:
    """Language-modelling loss: each position predicts the next token; mean over the counted tokens."""
    return F.cross_entropy(
        _exact(logits_BLW[:, :-1].flatten(0, 1)),
        labels_BL[:, 1:].flatten(),
        ignore_index=IGNORE,
        label_smoothing=label_smoothing,
    )


def _exact(logits: Tensor) -> Tensor:
    """float32 for what is less: sums over words or rows of a half-precision softmax would lose what they add up."""
    return logits if logits.dtype == torch.float64 else logits.float()

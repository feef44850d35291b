"""Retrieval: which of all texts is this picture's, and the other way round (paper, section 5.1).

Shapes: I pictures, T texts, P channels, N image tokens, V vision width.

All pairs are ranked by ITC, the first k of each query again by ITM. Knows the MED; knows no files of data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from capfilt.captions import clean
from capfilt.errors import DataError, ModelError
from capfilt.evaluate.references import Referenced, decode
from capfilt.med.filter import longest
from capfilt.med.model import MED
from capfilt.med.pixels import batch_of
from capfilt.med.tokenizer import Tokens

RANKS = (1, 5, 10)
PAIRS = 1 << 18
"""Pairs whose places are laid out at once; thousands of pictures have millions of them."""


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Shares of queries, in [0, 1], with a right answer among the first 1, 5 and 10."""

    at_1: float
    at_5: float
    at_10: float


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Both directions, ranked by ITC alone and with the first candidates of each query again by ITM."""

    pictures: int
    texts: int
    reranked_texts: int
    """Texts of each picture that ITM ranked again."""
    reranked_pictures: int
    """Pictures of each text that ITM ranked again."""
    text_by_itc: Recall
    """Texts for a picture (TR)."""
    image_by_itc: Recall
    """Pictures for a text (IR)."""
    text: Recall | None
    """TR after ITM; None where nothing was reranked."""
    image: Recall | None


def retrieve(
    model: MED,
    items: Iterable[Referenced],
    *,
    rerank: int = 256,
    batch_size: int = 64,
    store: torch.dtype | None = None,
) -> Retrieval:
    """Measure a model that holds a filter.

    Args:
        model: in eval mode.
        items: every text of an item is a right answer for its picture.
        rerank: candidates of each query to be ranked again by ITM, 0 for none; the paper takes 256 (128 for Flickr30k).
        batch_size: pictures, texts or pairs at once.
        store: how image tokens are kept in the machine's memory, N * V of them a picture; None as they are.

    Raises:
        DataError: there is nothing to measure. ModelError: the model holds no filter, or gives no numbers.
    """
    if model.config.holds == "captioner":
        raise ModelError("this model is a captioner, it has no ITC and ITM", where="model", mend="Name a filter.")
    images, vectors_IP, texts, owner = _encode_images(model, items, batch_size, store)
    some = (texts[at : at + batch_size] for at in range(0, len(texts), batch_size))
    tokens = [model.tokenizer(part, max_tokens=longest(model)) for part in some]
    with torch.inference_mode():
        vectors_TP = torch.cat([model.embed_text(part.to(model.device)).float() for part in tokens])
        cosine_IT = _finite(vectors_IP @ vectors_TP.T)
    owner_T = torch.tensor(owner, device=cosine_IT.device)
    right_IT = torch.arange(len(images), device=cosine_IT.device)[:, None] == owner_T
    text_by_itc, image_by_itc = recall(cosine_IT, right_IT), recall(cosine_IT.T, right_IT.T)
    text = image = None
    if rerank:
        pairs = _Pairs(model, images, texts, batch_size)
        text = recall(reranked(cosine_IT, rerank, pairs.logits), right_IT)
        image = recall(reranked(cosine_IT.T, rerank, lambda text, image: pairs.logits(image, text)), right_IT.T)
    return Retrieval(
        pictures=len(images),
        texts=len(texts),
        reranked_texts=min(rerank, len(texts)),
        reranked_pictures=min(rerank, len(images)),
        text_by_itc=text_by_itc,
        image_by_itc=image_by_itc,
        text=text,
        image=image,
    )


def recall(scores_QC: Tensor, right_QC: Tensor) -> Recall:
    """Recall at 1, 5 and 10; equal scores count as if they were put into order by chance.

    The same words may belong to two pictures, and a model may give everything one score: neither the best nor the worst
    order would be fair.

    Args:
        scores_QC: of Q queries and C candidates. right_QC: bool, which candidates are right, at least one a query.
    """
    best_Q1 = scores_QC.masked_fill(~right_QC, float("-inf")).amax(1, keepdim=True)
    above_Q = (scores_QC > best_Q1).sum(1)
    level_QC = scores_QC == best_Q1
    right_Q, wrong_Q = (level_QC & right_QC).sum(1).double(), (level_QC & ~right_QC).sum(1).double()
    missed_Q, at = torch.ones_like(right_Q), []
    free_Q = torch.zeros_like(above_Q)  # places within the rank that those of the right answer's score fill
    for rank in range(1, max(RANKS) + 1):
        open_Q = above_Q < rank
        # The next of the equals is wrong again, all before it having been.
        next_Q = (wrong_Q - free_Q).clamp(min=0) / (wrong_Q + right_Q - free_Q).clamp(min=1)
        missed_Q = torch.where(open_Q, missed_Q * next_Q, missed_Q)
        free_Q = free_Q + open_Q.long()
        if rank in RANKS:
            at.append(float(1 - missed_Q.mean()))
    return Recall(at_1=at[0], at_5=at[1], at_10=at[2])


def reranked(cosine_QC: Tensor, k: int, logits_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Scores by which the first k candidates of each query stand by ITM, and behind them the others by ITC.

    Args:
        cosine_QC: ITC's, of Q queries and C candidates.
        k: candidates of each query that ITM ranks again, 1 or more.
        logits_of: given M queries and M candidates (int64, their places): ITM's logits of a match, M of them.

    Returns:
        As ``cosine_QC``: the logit plus the cosine for what was ranked again, as the paper's code has it.
    """
    k = min(k, cosine_QC.shape[1])
    places_QK = cosine_QC.topk(k, dim=1).indices
    logits_QK = torch.empty(places_QK.shape, device=cosine_QC.device)
    step = max(1, PAIRS // k)
    for at in range(0, len(places_QK), step):
        part = places_QK[at : at + step]
        queries = torch.arange(at, at + len(part), device=part.device)[:, None].expand_as(part)
        logits_QK[at : at + step] = _finite(logits_of(queries.flatten(), part.flatten()).view_as(part))
    # Whatever ITM says, what it did not see stands behind what it saw.
    behind_QC = cosine_QC + (logits_QK.min() - 4.0)
    return behind_QC.scatter_(1, places_QK, logits_QK + cosine_QC.gather(1, places_QK))


@torch.inference_mode()
def _encode_images(
    model: MED, items: Iterable[Referenced], batch_size: int, store: torch.dtype | None
) -> tuple[list[Tensor], Tensor, list[str], list[int]]:
    images: list[Tensor] = []
    vectors: list[Tensor] = []
    texts: list[str] = []
    owner: list[int] = []
    dtype = next(model.vision.parameters()).dtype
    for part in _batches(_said(items), batch_size):
        pictures = [decode(item) for item, _ in part]
        image_BNV = model.encode_image(batch_of(pictures, model.config.vision.image_size, model.device, dtype))
        vectors.append(model.embed_image(image_BNV).float())
        for (_, said), image_NV in zip(part, image_BNV.to(store or image_BNV.dtype), strict=True):
            texts += said
            owner += [len(images)] * len(said)
            images.append(image_NV.cpu())
    if not texts:
        raise DataError("no picture with a text to measure on", mend="Name shards or annotations with captions.")
    return images, torch.cat(vectors), texts, owner


def _said(items: Iterable[Referenced]) -> Iterator[tuple[Referenced, list[str]]]:
    """Items of whose texts something is left when they are cleaned, with that."""
    for item in items:
        if said := [text for text in map(clean, item.texts) if text]:
            yield item, said


def _batches(items: Iterable[tuple[Referenced, list[str]]], size: int) -> Iterator[list[tuple[Referenced, list[str]]]]:
    rows = iter(items)
    while part := list(islice(rows, size)):
        yield part


def _finite(scores: Tensor) -> Tensor:
    if not bool(torch.isfinite(scores).all()):
        raise ModelError("the model's scores are not numbers", where="model", mend="Its weights are damaged.")
    return scores


class _Pairs:
    """ITM over chosen pairs."""

    def __init__(self, model: MED, images: Sequence[Tensor], texts: Sequence[str], batch_size: int) -> None:
        self.model, self.images, self.batch_size = model, images, batch_size
        self.tokens = model.tokenizer(texts, max_tokens=longest(model)).to(model.device)
        self.lengths_T = self.tokens.mask.sum(1).cpu()

    @torch.inference_mode()
    def logits(self, image_M: Tensor, text_M: Tensor) -> Tensor:
        """Of a match of each of M pictures (by place) with the text beside it: float32, on the model's device."""
        image_M, text_M = image_M.cpu(), text_M.cpu()
        device, dtype = self.model.device, self.model.itm_head.weight.dtype
        found_M = torch.empty(len(text_M), device=device)
        # Texts of like length beside each other, so that little is padded.
        for rows_B in torch.split(self.lengths_T[text_M].argsort(), self.batch_size):
            image_BNV = torch.stack([self.images[i] for i in image_M[rows_B].tolist()]).to(device, dtype)
            chosen_B = text_M[rows_B]
            longest = int(self.lengths_T[chosen_B].max())
            chosen_B = chosen_B.to(device)
            tokens = Tokens(self.tokens.ids[chosen_B, :longest], self.tokens.mask[chosen_B, :longest])
            found_M[rows_B.to(device)] = self.model.match(image_BNV, tokens)[:, 1].float()
        return found_M

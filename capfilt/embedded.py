"""How the embedded model is made: pretrained, finetuned, measured, and written to `models/med-mini`.

The corpora are built before (``corpora.build``); pretraining sees all pairs first and human pairs last. What is
left to the eye, the contact sheet and the card's words, is made from what this writes. Knows training, measures and
the sheet; knows no pipeline.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from capfilt.catalog import model_folder
from capfilt.errors import ModelError
from capfilt.evaluate.captioning import wording, write
from capfilt.evaluate.filtering import separation
from capfilt.evaluate.references import Referenced, decode, read
from capfilt.inputs import expand
from capfilt.med.captioner import MEDCaptioner
from capfilt.med.config import Holds, MEDConfig
from capfilt.med.filter import MEDFilter
from capfilt.med.model import BACKBONE, MED, check_fit
from capfilt.med.soup import average
from capfilt.med.text import DIRECTIONS
from capfilt.recipe import load_config
from capfilt.report.sheet import SheetItem, contact_sheet
from capfilt.roles import Filter, Writing
from capfilt.train.config import MixConfig, TrainConfig
from capfilt.train.run import OnStep, train

NAME = "med-mini"
WIDE = "filter-wide"
"""The filter's second finetuning, on icons and clip art too."""
FREE = "filter-free"
"""Its third, with the later stages of the backbone free."""
MORE = "filter-more"
"""Its fourth, with drawings of more things; the mean of the third's weights and these is shipped."""
HELD_OUT = {
    "concepts seen, styles seen, these drawings never seen": "heldout-picture-*.tar",
    "concepts never seen, styles seen": "heldout-seen-style-*.tar",
    "concepts never seen, style never seen": "heldout-unseen-style-*.tar",
    "concepts seen, style never seen": "unseen-style-*.tar",
    "clip art never seen": "heldout-clipart-*.tar",
}
"""What is measured, and the shards of ``corpora`` that hold it."""
WORD_STD = 0.08
"""Of the word embeddings at the start. They stay frozen in pretraining and are tied to LM's output: with INIT_STD the
logits were too small to tell words apart, and LM stayed near 7 nats after 400 steps."""
SHOWN = 24
"""Pictures of each held-out set on the contact sheet."""


def build(corpora: Path, work: Path, *, overrides: tuple[str, ...] = (), on_step: OnStep | None = None) -> None:
    """Train the models; each run goes on where it stopped.

    Args:
        corpora: what ``corpora.build`` wrote: shards and ``vocab.txt``.
        work: folder of the runs; gets ``start``, ``pretrain``, ``human``, ``captioner``, ``filter``, :data:`WIDE`,
            :data:`FREE` and :data:`MORE`.
        overrides: ``field=value`` for all runs.

    Raises:
        SourceError: shards are missing. TrainingError: a run cannot go on.
    """
    architecture = work / "architecture"
    architecture.mkdir(parents=True, exist_ok=True)
    fit_vocabulary(corpora / "vocab.txt", architecture)
    start(corpora, architecture, work / "start" / "model")
    human, web, icons, extras = (
        tuple(expand(str(corpora / f"{name}-train-*.tar"))) for name in ("human", "web", "icons", "extras")
    )
    given = wide(corpora, human, (*web, *icons))
    for task, init, data in (
        ("pretrain", "start", {"shards": (*human, *web)}),
        ("human", "pretrain", {"shards": human}),
        ("captioner", "human", {"shards": human}),
        ("filter", "human", {"shards": human}),
        (WIDE, "filter", given),
        (FREE, WIDE, given),
        (MORE, FREE, more(corpora, human, (*web, *icons), extras)),
    ):
        config = load_config(TrainConfig, f"{NAME}/{task}", overrides)
        begin = str(work / init / "model")
        pairs = replace(config.data, **data)
        train(replace(config, model=str(architecture), init=begin, out=str(work / task), data=pairs), on_step)


def wide(corpora: Path, human: tuple[str, ...], others: tuple[str, ...]) -> dict[str, Any]:
    """The data of the filter's second and third finetuning: emoji twice as often as what else there is, and titles that
    describe nothing."""
    mix = (MixConfig(shards=human, weight=2.0), MixConfig(shards=others))
    return {"mix": mix, "boilerplate": str(corpora / "boilerplate.txt")}


def more(corpora: Path, human: tuple[str, ...], others: tuple[str, ...], extras: tuple[str, ...]) -> dict[str, Any]:
    """The data of its fourth: each of the few extras five times an epoch, icons and clip art every second one."""
    given = wide(corpora, human, others)
    emoji, rest = given["mix"]
    return {**given, "mix": (emoji, replace(rest, weight=0.5), MixConfig(shards=extras, weight=5.0))}


def fit_vocabulary(vocab: Path, architecture: Path) -> None:
    """Copy the vocabulary beside an architecture of its size."""
    from_catalogue = MEDConfig.load(model_folder(NAME))
    text = vocab.read_text(encoding="utf-8")
    size = len([line for line in text.split("\n") if line.strip()]) + 2
    replace(from_catalogue, text=replace(from_catalogue.text, vocab_size=size)).save(architecture)
    (architecture / "vocab.txt").write_text(text, encoding="utf-8")


def start(corpora: Path, architecture: Path, target: Path, *, seed: int = 0) -> None:
    """Write an untrained model whose words and whose image encoder's first part others have trained.

    Word embeddings are the main components of a BERT encoder's; the EfficientNet of the image encoder, if it has one,
    is that of ImageNet. BLIP starts from BERT and ImageNet too (paper, section 4.1).

    Args:
        corpora: ``words.safetensors`` with ``words`` (W, D) float32, a row for each line of ``vocab.txt``, D at least
            the model's width; ``backbone.safetensors`` by timm's names.
        architecture: ``model.yaml`` and ``vocab.txt``.
        target: the model folder.
        seed: of all other weights.

    Raises:
        ModelError: the vectors or weights do not fit the architecture.
    """
    torch.manual_seed(seed)
    model = MED.new(architecture)
    _take_words(model, corpora / "words.safetensors")
    if model.config.vision.stem == "efficientnet_lite0":
        _take_backbone(model, corpora / "backbone.safetensors")
    model.save(target)


def _take_words(model: MED, file: Path) -> None:
    vectors = load_file(file)["words"]
    width, pieces = model.config.text.width, len(model.tokenizer.vocab)
    if vectors.shape[0] != pieces or vectors.shape[1] < width:
        raise ModelError(
            f"vectors {tuple(vectors.shape)} for {pieces} word pieces and a width of {width}", where=str(file)
        )
    centred = vectors - vectors.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:width]
    reduced = centred @ axes.T
    with torch.no_grad():
        for direction in DIRECTIONS["both"]:
            word = model.text.embedding(direction).word
            word.weight[:pieces] = reduced * (WORD_STD / reduced.std())
            word.weight[word.padding_idx or 0] = 0.0


def _take_backbone(model: MED, file: Path) -> None:
    backbone = model.get_submodule(BACKBONE)
    weights = load_file(file)
    check_fit(backbone, weights, where=str(file))
    backbone.load_state_dict(weights)


def make(corpora: Path, work: Path, target: Path, *, on_step: OnStep | None = None) -> None:
    """The whole of it: train, ship, measure what was shipped, and lay out the contact sheet.

    Raises:
        SourceError: shards are missing. TrainingError: a run cannot go on.
    """
    build(corpora, work, on_step=on_step)
    ship(work, target)
    write_results(measure(corpora, target / "captioner", target / "filter"), target)
    (target / "sheet.html").write_text(sheet(corpora, target / "captioner", target / "filter"), encoding="utf-8")


def measure(corpora: Path, captioner: Path, judge: Path, *, device: str = "cpu") -> dict[str, Any]:
    """Figures on everything held out: the filter's separation and the captioner's wording."""
    writer = MEDCaptioner.load(captioner, Writing(), device=device)
    beams = MEDCaptioner(writer.model, Writing(beams=3))
    scorer = MEDFilter.load(judge, device=device)
    figures: dict[str, Any] = {}
    for name, file in HELD_OUT.items():
        held = list(read([str(corpora / file)]))
        figures[name] = {
            "filter": asdict(separation(scorer, held)),
            "captioner, nucleus": asdict(wording(write(writer, held), held)),
            "captioner, beam": asdict(wording(write(beams, held), held)),
        }
    return figures


def ship(work: Path, target: Path) -> None:
    """Write captioner and filter as float16 model folders, each without what only the other needs; the filter is the
    mean of its last two finetunings."""
    parts: dict[Holds, tuple[str, ...]] = {"captioner": ("captioner",), "filter": (FREE, MORE)}
    for part, runs in parts.items():
        mean = average([work / run / "model" for run in runs])
        shutil.rmtree(target / part, ignore_errors=True)
        mean.only(part).save(target / part, dtype=torch.float16)


def sheet(corpora: Path, captioner: Path, judge: Path) -> str:
    """The contact sheet: held-out pictures drawn by a fixed seed, their own text, the captions and scores."""
    writer, scorer = MEDCaptioner.load(captioner, Writing()), MEDFilter.load(judge)
    beams = MEDCaptioner(writer.model, Writing(beams=3))
    items: list[SheetItem] = []
    for name, file in HELD_OUT.items():
        held = list(read([str(corpora / file)]))
        drawn = random.Random(0).sample(held, min(SHOWN, len(held)))
        both = zip(drawn, write(writer, drawn), write(beams, drawn), strict=True)
        items += [_item(name, shown, sampled, searched, scorer) for shown, sampled, searched in both]
    return contact_sheet(items, title=f"{NAME}: captions of pictures it never saw", columns=6)


def _item(name: str, shown: Referenced, sampled: str, searched: str, scorer: Filter) -> SheetItem:
    texts = {"nucleus": sampled, "beam": searched, "theirs": shown.texts[0]}
    scores = scorer.score([decode(shown)], [list(texts.values())])[0]
    lines = [f"{who}: {text} ({score.itm:.2f})" for (who, text), score in zip(texts.items(), scores, strict=True)]
    return SheetItem(image=shown.image(), lines=[*lines, name], good=None)


def write_results(figures: Mapping[str, Any], target: Path) -> None:
    """``results.json``: figures only, sorted as measured."""
    (target / "results.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

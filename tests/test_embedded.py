"""The embedded model starts from the words of a BERT encoder and the eye of an ImageNet network."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from capfilt import embedded
from capfilt.catalog import model_folder
from capfilt.errors import ModelError
from capfilt.med.config import MEDConfig
from capfilt.med.model import BACKBONE, MED
from capfilt.records import Caption
from capfilt.shards.read import samples
from capfilt.shards.sample import Sample
from capfilt.shards.tar import write_tar
from capfilt.train.config import DataConfig
from capfilt.train.pairs import Pairs

ORIGINS = {"human": "human", "web": "web", "icons": "human", "extras": "human"}


@pytest.fixture
def architecture(tmp_path):
    folder = tmp_path / "architecture"
    folder.mkdir()
    shutil.copy(model_folder("med-mini") / "captioner" / "vocab.txt", tmp_path / "vocab.txt")
    embedded.fit_vocabulary(tmp_path / "vocab.txt", folder)
    config = MEDConfig.load(folder)
    replace(config, vision=replace(config.vision, stem="efficientnet_lite0", image_size=64, patch_size=32)).save(folder)
    return folder


def test_near_words_of_the_encoder_are_near_words_of_the_model(tmp_path, architecture):
    pieces = len(MED.new(architecture).tokenizer.vocab)
    # Words that differ along few directions, as real ones do: the main components then keep who is near whom.
    generator = torch.Generator().manual_seed(1)
    words = torch.randn(pieces, 24, generator=generator) @ torch.randn(24, 384, generator=generator) + 5.0
    save_file({"words": words}, tmp_path / "words.safetensors")
    save_file(MED.new(architecture).get_submodule(BACKBONE).state_dict(), tmp_path / "backbone.safetensors")
    embedded.start(tmp_path, architecture, tmp_path / "start")
    started = MED.load(tmp_path / "start").text.embedding("encode").word.weight.detach()
    assert not started[0].any()
    assert float(started[1:pieces].std()) == pytest.approx(embedded.WORD_STD, rel=0.05)
    centred = words - words.mean(0)
    theirs = torch.nn.functional.cosine_similarity(centred[5], centred[6:100])
    ours = torch.nn.functional.cosine_similarity(started[5], started[6:100])
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def test_vectors_of_another_vocabulary_are_refused(tmp_path, architecture):
    save_file({"words": torch.zeros(7, 384)}, tmp_path / "words.safetensors")
    with pytest.raises(ModelError, match=r"for \d+ word pieces"):
        embedded.start(tmp_path, architecture, tmp_path / "start")
    assert not (tmp_path / "start").exists()


def test_the_image_encoder_starts_from_the_backbones_weights(tmp_path, architecture):
    pieces = len(MED.new(architecture).tokenizer.vocab)
    save_file({"words": torch.randn(pieces, 384)}, tmp_path / "words.safetensors")
    torch.manual_seed(7)
    backbone = {n: torch.randn_like(t) for n, t in MED.new(architecture).get_submodule(BACKBONE).state_dict().items()}
    save_file(backbone, tmp_path / "backbone.safetensors")
    embedded.start(tmp_path, architecture, tmp_path / "start")
    started = MED.load(tmp_path / "start").get_submodule(BACKBONE).state_dict()
    assert started.keys() == backbone.keys()
    assert all(torch.equal(started[name], backbone[name]) for name in backbone)

    save_file(
        {name: t for name, t in backbone.items() if name != "conv_stem.weight"}, tmp_path / "backbone.safetensors"
    )
    with pytest.raises(ModelError, match=r"missing conv_stem\.weight"):
        embedded.start(tmp_path, architecture, tmp_path / "other")


@pytest.fixture
def corpora(tmp_path, architecture, shape_shard):
    """What ``corpora.build`` writes, as far as training reads it; of shapes, web texts and a boilerplate title."""
    folder = tmp_path / "corpora"
    folder.mkdir()
    shutil.copy(tmp_path / "vocab.txt", folder / "vocab.txt")
    some = [sample for sample, _ in zip(samples([str(shape_shard)]), range(24), strict=False)]
    for name, texts in (
        ("human", ["a red circle"]),
        ("web", ["part of a set", "a blue square"]),
        ("icons", ["a circle"]),
        ("extras", ["a thing"]),
    ):
        made = [
            Sample(
                one.key,
                one.image,
                [Caption(text=texts[at % len(texts)], origin=ORIGINS[name], itm=None, itc=None, kept=True)],
                {},
            )
            for at, one in enumerate(some)
        ]
        with (folder / f"{name}-train-00000.tar").open("wb") as file:
            write_tar(file, made)
    (folder / "boilerplate.txt").write_text("part of a set\n")
    model = MED.new(architecture)
    save_file({"words": torch.randn(len(model.tokenizer.vocab), 384)}, folder / "words.safetensors")
    save_file(model.get_submodule(BACKBONE).state_dict(), folder / "backbone.safetensors")
    return folder


def test_the_models_are_made_one_from_the_other_and_shipped_in_halves(corpora, tmp_path):
    work, target = tmp_path / "work", tmp_path / "shipped"
    short = ("steps=2", "batch_size=4", "checkpoint_every=2", "track=[]", "optim.warmup_steps=0", "precision=float32")
    embedded.build(corpora, work, overrides=short)
    runs = ("human", "captioner", "filter", embedded.WIDE, embedded.FREE, embedded.MORE)
    made = {run: MED.load(work / run / "model") for run in runs}
    # What the filter goes on from is the filter; frozen words are still those of the start.
    words = "text.embeddings.both.word.weight"
    assert torch.equal(made["human"].state_dict()[words], made[embedded.WIDE].state_dict()[words])
    assert not torch.equal(made["filter"].itm_head.weight, made[embedded.WIDE].itm_head.weight)
    # The backbone's first stages stay ImageNet's to the end, the later ones move in the last finetuning.
    for stage, stays in ((2, True), (3, False), (5, False)):
        weights = f"{BACKBONE}.blocks.{stage}.0.conv_pw.weight"
        start, wide, free = (made[run].state_dict()[weights] for run in ("human", embedded.WIDE, embedded.FREE))
        assert torch.equal(wide, start)
        assert torch.equal(free, start) == stays
    embedded.ship(work, target)
    captioner, judge = MED.load(target / "captioner"), MED.load(target / "filter")
    assert (captioner.config.holds, judge.config.holds) == ("captioner", "filter")
    last, more = (made[run].state_dict() for run in (embedded.FREE, embedded.MORE))
    assert not torch.equal(last["itm_head.weight"], more["itm_head.weight"])
    alike = judge.state_dict().keys() & last.keys()  # the others have another name in a whole model
    assert {"itm_head.weight", "vision.pos_embed", f"{BACKBONE}.blocks.5.0.conv_pw.weight"} < alike
    for name in alike:
        torch.testing.assert_close(judge.state_dict()[name], (last[name] + more[name]) / 2, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(captioner.vision.pos_embed, made["captioner"].vision.pos_embed, atol=1e-3, rtol=1e-3)


def test_the_wide_filter_sees_emoji_twice_and_no_boilerplate(corpora):
    human, others = (str(corpora / "human-train-00000.tar"),), (str(corpora / "web-train-00000.tar"),)
    pairs = Pairs(DataConfig(**embedded.wide(corpora, human, others)))
    assert pairs.count() == 2 * 24 + 12
    assert pairs.boilerplate == ("part of a set",)
    last = Pairs(DataConfig(**embedded.more(corpora, human, others, (str(corpora / "extras-train-00000.tar"),))))
    assert last.count() == 2 * 24 + 12 // 2 + 5 * 24
    assert last.boilerplate == pairs.boilerplate

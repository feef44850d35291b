"""Filters of Hugging Face: the scores are transformers' own, in any batch; a CLIP claims no probability."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from capfilt.errors import ModelError
from capfilt.images import decode
from capfilt.peers.opening import open_filter
from capfilt.peers.scoring import HuggingFaceFilter
from capfilt.shards.read import samples

Saved = Callable[[str], Path]
TEXTS = [["a red circle", "the blue square on white"], [], ["black"]]


@pytest.fixture(scope="module")
def pictures(shape_shard: Path) -> list[Image.Image]:
    return [decode(sample.image) for sample in list(samples([str(shape_shard)]))[:3]]


def logits_of(judge: HuggingFaceFilter, picture: Image.Image, text: str) -> float:
    inputs = judge.processor(images=picture, text=[text], padding="max_length", return_tensors="pt")
    with torch.inference_mode():
        return float(judge.model(**inputs).logits_per_image)


def test_a_clips_scores_are_its_cosines(saved: Saved, pictures) -> None:
    judge = HuggingFaceFilter.load(saved("clip"))
    got = judge.score(pictures, TEXTS)
    assert [len(row) for row in got] == [2, 0, 1]
    scale = float(judge.model.logit_scale.exp())
    for picture, texts, scores in zip(pictures, TEXTS, got, strict=True):
        for text, score in zip(texts, scores, strict=True):
            assert score.itm is None
            assert score.itc == pytest.approx(logits_of(judge, picture, text) / scale, abs=1e-6)


def test_a_siglips_scores_are_its_probabilities(saved: Saved, pictures) -> None:
    judge = HuggingFaceFilter.load(saved("siglip"))
    with torch.no_grad():
        judge.model.logit_scale.fill_(2.0)
        judge.model.logit_bias.fill_(-1.0)
    got = judge.score(pictures, TEXTS)
    for picture, texts, scores in zip(pictures, TEXTS, got, strict=True):
        for text, score in zip(texts, scores, strict=True):
            logit = torch.tensor(logits_of(judge, picture, text))
            assert score.itm == pytest.approx(float(logit.sigmoid()), abs=1e-6)
            assert -1 <= score.itc <= 1


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_scores_care_not_for_the_batch(kind: str, saved: Saved, pictures) -> None:
    judge = open_filter(saved(kind), device="cpu", dtype=torch.float32)
    together = judge.score(pictures, TEXTS)
    alone = [judge.score([picture], [texts])[0] for picture, texts in zip(pictures, TEXTS, strict=True)]
    for a, b in zip(together, alone, strict=True):
        assert [s.itc for s in a] == pytest.approx([s.itc for s in b], abs=1e-6)
    assert judge.score([], []) == []


def test_a_text_longer_than_the_model_reads_is_cut(saved: Saved, pictures) -> None:
    judge = HuggingFaceFilter.load(saved("clip"))
    long = "a red circle on " * 40
    assert judge.score(pictures[:1], [[long]])[0][0].itc == judge.score(pictures[:1], [[long + "white"]])[0][0].itc


def test_a_siglip_whose_tokenizer_tells_no_length_is_padded_and_cut_as_its_model_wants(
    saved: Saved, pictures, tmp_path: Path
) -> None:
    folder = shutil.copytree(saved("siglip"), tmp_path / "siglip")
    config = folder / "tokenizer_config.json"
    told = json.loads(config.read_text())
    assert told.pop("model_max_length") == 16
    config.write_text(json.dumps(told))
    texts = [["a red circle", "the blue square on white " * 20], ["black"], []]
    known, untold = (HuggingFaceFilter.load(one).score(pictures, texts) for one in (saved("siglip"), folder))
    assert untold == known


def test_weights_that_are_missing_are_not_drawn_at_random(saved: Saved, tmp_path: Path) -> None:
    folder = shutil.copytree(saved("clip"), tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 of the weights of a CLIPModel are not there: visual_projection\.weight"):
        HuggingFaceFilter.load(folder)
    with pytest.raises(ModelError, match="weights of a BlipModel are not there"):
        HuggingFaceFilter.load(saved("blip"))


def test_damaged_and_unequal_weights_are_told(saved: Saved, tmp_path: Path) -> None:
    cut = shutil.copytree(saved("clip"), tmp_path / "cut")
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    other = shutil.copytree(saved("clip"), tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"projection_dim": 24}))
    for folder in (cut, other):
        with pytest.raises(ModelError, match="no filter that transformers can load"):
            HuggingFaceFilter.load(folder)


def test_a_model_without_towers(saved: Saved) -> None:
    with pytest.raises(ModelError, match="gives no features of pictures and texts"):
        HuggingFaceFilter.load(saved("git"))


def test_a_model_of_no_known_kind(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "none of them"}')
    with pytest.raises(ModelError, match="no filter that transformers can load"):
        open_filter(tmp_path, device="cpu", dtype=torch.float32)

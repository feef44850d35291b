"""Captioners of Hugging Face: seeds alone decide, prompts are given and not repeated, wrong folders are told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel

from capfilt.errors import ModelError
from capfilt.images import decode
from capfilt.med.decoding import uniforms
from capfilt.peers.captioning import HuggingFaceCaptioner, SeededNucleus
from capfilt.peers.opening import open_captioner
from capfilt.roles import Captioner, Writing
from capfilt.shards.read import samples

Saved = Callable[[str], Path]
SEEDS = [[11, 12], [13, 14], [15, 16], [17, 18]]


@pytest.fixture(scope="module")
def pictures(shape_shard: Path) -> list[Image.Image]:
    return [decode(sample.image) for sample in list(samples([str(shape_shard)]))[:4]]


def opened(folder: Path, writing: Writing, prompt: str | None = None) -> Captioner:
    return open_captioner(folder, writing, prompt=prompt, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("kind", ["blip", "git", "llava"])
@pytest.mark.parametrize("prompt", [None, "a photo of"])
def test_a_pictures_own_seeds_alone_decide_its_captions(kind: str, prompt: str | None, saved: Saved, pictures) -> None:
    captioner = opened(saved(kind), Writing(max_length=8, min_length=2), prompt)
    together = captioner.write(pictures, SEEDS)
    assert [len(row) for row in together] == [2, 2, 2, 2]
    assert len({text for row in together for text in row}) > 4
    assert not any(text.startswith("a photo of a photo of") for row in together for text in row)
    assert captioner.write(pictures[::-1], SEEDS[::-1]) == together[::-1]
    assert captioner.write(pictures[2:3], SEEDS[2:3]) == together[2:3]
    assert captioner.write(pictures, [[seed + 100 for seed in row] for row in SEEDS]) != together


@pytest.mark.parametrize("kind", ["blip", "git", "llava"])
def test_beam_search_cares_for_no_seed(kind: str, saved: Saved, pictures) -> None:
    captioner = opened(saved(kind), Writing(beams=3, max_length=8, min_length=2))
    found = captioner.write(pictures, SEEDS)
    assert found == captioner.write(pictures, [[0, 0]] * 4)
    assert all(len(row) == 2 for row in found)
    assert any(row[0] != row[1] for row in found)


def generated(captioner: HuggingFaceCaptioner, pictures) -> tuple[list[list[str]], torch.Tensor]:
    """The captions and the tokens that transformers returned for them."""
    inner, seen = captioner.model.generate, []
    captioner.model.generate = lambda **given: seen.append(inner(**given)) or seen[-1]
    return captioner.write(pictures, SEEDS), seen[0]


def test_the_longest_and_the_shortest_caption(saved: Saved, pictures) -> None:
    captioner = opened(saved("blip"), Writing(max_length=6, min_length=6))
    _, ids = generated(captioner, pictures)
    start, end = captioner.model.config.text_config.bos_token_id, captioner.model.config.text_config.sep_token_id
    assert ids.shape == (8, 7)
    assert (ids[:, 0] == start).all()
    assert not (ids == end).any()


def test_what_was_asked_is_not_part_of_the_caption(saved: Saved, pictures) -> None:
    """GIT repeats its prompt before what it writes."""
    captioner = opened(saved("git"), Writing(max_length=8, min_length=2), "a photo of")
    got, ids = generated(captioner, pictures)
    decoded = captioner.processor.batch_decode(ids, skip_special_tokens=True)
    assert all(text.startswith("a photo of") for text in decoded)
    assert [f"a photo of {text}".strip() for row in got for text in row] == decoded


def test_the_nucleus_draws_by_the_rows_seed_and_from_it_alone() -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log().expand(2000, 4)
    seeds = list(range(2000))
    nucleus = SeededNucleus(seeds, Writing(top_p=0.6, max_length=3), device=torch.device("cpu"))
    ids = torch.zeros(2000, 1, dtype=torch.long)
    drawn = nucleus(ids, logits).argmax(1)
    shares = torch.bincount(drawn, minlength=4) / 2000
    assert shares.tolist() == pytest.approx([4 / 7, 3 / 7, 0, 0], abs=0.04)
    again = nucleus(ids, logits).argmax(1)
    assert not torch.equal(drawn, again)
    expected = [int(uniforms(seed, 3)[1] >= 4 / 7) for seed in seeds]
    assert again.tolist() == expected


def test_in_half_precision(saved: Saved, pictures) -> None:
    captioner = HuggingFaceCaptioner.load(
        saved("blip"), Writing(max_length=8, min_length=2), prompt=None, dtype=torch.bfloat16
    )
    assert captioner.model.dtype == torch.bfloat16
    assert all(text for row in captioner.write(pictures, SEEDS) for text in row)


def test_a_model_that_writes_nothing(tmp_path: Path) -> None:
    BertModel(BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ModelError, match="no captioner that transformers can load"):
        opened(tmp_path, Writing())


def test_a_folder_without_its_processor(saved: Saved, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(saved("blip") / name, tmp_path / name)
    with pytest.raises(ModelError, match="no captioner that transformers can load"):
        opened(tmp_path, Writing())


def test_only_safetensors_are_read(saved: Saved, tmp_path: Path) -> None:
    shutil.copytree(saved("blip"), tmp_path / "blip")
    (tmp_path / "blip" / "model.safetensors").rename(tmp_path / "blip" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        opened(tmp_path / "blip", Writing())


def test_code_of_the_folder_is_not_run(saved: Saved, tmp_path: Path) -> None:
    shutil.copytree(saved("blip"), tmp_path / "blip")
    config = tmp_path / "blip" / "config.json"
    text = config.read_text().replace('"model_type": "blip",', '"model_type": "mine",', 1)
    text = text.replace("{", '{"auto_map": {"AutoConfig": "mine.Mine", "AutoModel": "mine.Mine"},', 1)
    config.write_text(text)
    (tmp_path / "blip" / "mine.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nclass Mine: pass\n")
    with pytest.raises(ModelError):
        opened(tmp_path / "blip", Writing())
    assert not (tmp_path / "run").exists()

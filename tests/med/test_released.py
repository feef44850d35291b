"""Our MED beside transformers' BLIP with the same random weights, and the names of released weights."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from capfilt.errors import ModelError
from capfilt.med.captioner import MEDCaptioner
from capfilt.med.config import MEDConfig, TextConfig, VisionConfig
from capfilt.med.filter import MEDFilter
from capfilt.med.model import MED
from capfilt.med.names import is_training_state
from capfilt.med.released import (
    architecture,
    build,
    export_huggingface,
    export_original,
    import_model,
    original_weights,
    read,
)
from capfilt.med.tokenizer import MEDTokenizer
from capfilt.roles import Writing
from capfilt.train.config import TrainConfig
from capfilt.train.run import train
from tests.med import parity

transformers = pytest.importorskip("transformers")
TOLERANCE = 1e-4
WORDS = parity.SMALL.vocabulary()


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocab")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "captioner"
    model = parity.theirs("BlipForConditionalGeneration", folder)
    return folder, model, import_model(folder, folder, folder.with_name("ours-captioner"))


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "judge"
    model = parity.theirs("BlipForImageTextRetrieval", folder)
    return folder, model, import_model(folder, folder, folder.with_name("ours-judge"))


@pytest.fixture(scope="module")
def pixels():
    return parity.pixels()


def test_the_image_tokens_are_theirs(captioner, pixels):
    assert parity.image_tokens(captioner[1], captioner[2], pixels) < TOLERANCE


def test_the_captioners_logits_are_theirs(captioner, pixels):
    difference, spread = parity.captioner_logits(captioner[1], captioner[2], pixels)
    assert spread > 0.1
    assert difference < TOLERANCE


@pytest.mark.parametrize(
    ("beams", "keep", "penalty"), [(1, 1, 1.0), (2, 2, 1.0), (3, 3, 1.0), (5, 4, 1.0), (1, 1, 1.4), (3, 3, 1.4)]
)
def test_captions_by_beam_search_are_theirs_token_for_token(captioner, beams, keep, penalty):
    pictures = parity.pixels(count=16)
    found, wanted = parity.beam_captions(
        captioner[1], captioner[2], pictures, beams=beams, keep=keep, repetition_penalty=penalty
    )
    assert found == wanted
    lengths = {len(row) for rows in wanted for row in rows}
    assert len(lengths) > 3, "captions that all end at the longest length would show nothing"
    assert min(lengths) < 12


def test_itm_and_itc_are_theirs_as_they_compute_them_and_differ_with_enc(judge, pixels):
    found = parity.scores(judge[1], judge[0], pixels)
    assert found["ITM logits"] < TOLERANCE
    assert found["ITC similarities"] < TOLERANCE
    assert found["ITM logits, [ENC] against [CLS]"] > 10 * TOLERANCE


@pytest.mark.slow
def test_all_of_it_holds_at_the_size_of_blip_base(tmp_path):
    found = parity.compare(parity.BASE, tmp_path)
    assert found["parameters"] > 220e6
    assert found["spread of these logits"] > 0.1
    for what in ("image tokens", "captioner's logits", "ITM logits", "ITC similarities"):
        assert found[what] < TOLERANCE, what
    assert found["the same"] == found["captions by beam search, 3 a picture"] == 9
    assert len(found["their lengths"]) > 1
    assert found["different tokens in them"] > 3
    assert found["ITM logits, [ENC] against [CLS]"] > 10 * TOLERANCE


def test_what_a_folder_holds_is_told_by_its_weights(captioner, judge):
    assert captioner[2].config.holds == "captioner"
    assert judge[2].config.holds == "filter"
    assert captioner[2].config.text.heads == 12
    tokens = judge[2].tokenizer(["word1"], max_tokens=8)
    image = torch.zeros(1, 17, 96)
    with pytest.raises(ModelError, match="cannot caption"):
        judge[2].decode(image, tokens)
    with pytest.raises(ModelError, match="cannot score"):
        captioner[2].match(image, tokens)


@pytest.mark.parametrize("which", ["captioner", "judge"])
def test_exported_again_the_folder_loads_there_with_the_same_weights(which, request, tmp_path):
    _, hf, ours = request.getfixturevalue(which)
    holds = ours.config.holds
    export_huggingface(ours, tmp_path / "out", holds=holds)
    again, told = type(hf).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    before, after = hf.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    mine = ours.tokenizer(["a picture of word1 word22"], max_tokens=16)
    assert processor(text="a picture of word1 word22").input_ids == mine.ids[0][mine.mask[0]].tolist()
    assert processor.image_processor.size["height"] == 64


@pytest.fixture
def whole(vocab):
    torch.manual_seed(0)
    config = MEDConfig(
        vision=VisionConfig(image_size=32, patch_size=16, width=64, depth=2, heads=1),
        text=TextConfig(
            vocab_size=len(WORDS) + 2, width=64, depth=2, heads=1, ffn_width=128, max_positions=32, dropout=0.0
        ),
        embed_dim=16,
    )
    return MED(config, MEDTokenizer.load(vocab)).eval()


def test_the_original_layout_goes_out_and_comes_back(whole, vocab, tmp_path):
    export_original(whole, tmp_path / "med.pth")
    back = import_model(tmp_path / "med.pth", vocab, tmp_path / "back")
    assert back.config.shared == "all_but_self_attention"
    mine, theirs = whole.state_dict(), back.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert MED.load(tmp_path / "back").config == back.config


@pytest.mark.parametrize("shared", ["all", "all_but_cross_attention", "all_but_self_attention", "none"])
def test_the_sharing_is_told_by_the_weights(whole, vocab, tmp_path, shared):
    med = MED(dataclasses.replace(whole.config, shared=shared), whole.tokenizer)
    torch.save({"model": original_weights(med)}, tmp_path / "med.pth")
    assert architecture(read(tmp_path / "med.pth")).shared == shared


@pytest.mark.parametrize("shared", ["none", "all_but_cross_attention"])
def test_what_the_original_code_would_load_as_another_model_is_not_exported(whole, tmp_path, shared):
    med = MED(dataclasses.replace(whole.config, shared=shared), whole.tokenizer)
    with pytest.raises(ModelError, match=f"shares {shared}"):
        export_original(med, tmp_path / "med.pth")
    assert not (tmp_path / "med.pth").exists()
    export_original(med.only("captioner"), tmp_path / "captioner.pth")
    assert architecture(read(tmp_path / "captioner.pth")).holds == "captioner"


def test_twin_and_queue_of_a_pretraining_checkpoint_are_left_out(whole, vocab, tmp_path):
    weights = {name: tensor.clone() for name, tensor in original_weights(whole).items()}
    weights |= {"visual_encoder_m.cls_token": torch.zeros(1), "image_queue": torch.zeros(2, 2)}
    weights |= {"queue_ptr": torch.zeros(1), "text_encoder.embeddings.position_ids": torch.zeros(1, 2)}
    torch.save({"model": weights, "epoch": 3}, tmp_path / "med.pth")
    assert import_model(tmp_path / "med.pth", vocab, tmp_path / "out").config.holds == "both"
    assert is_training_state("text_proj_m.weight")
    assert not is_training_state("text_proj.weight")


def test_every_missing_and_unknown_name_is_listed(whole, vocab, tmp_path):
    weights = {name: tensor.clone() for name, tensor in original_weights(whole).items()}
    lost = ["visual_encoder.blocks.1.attn.qkv.bias", "itm_head.bias"]
    save_file({name: tensor for name, tensor in weights.items() if name not in lost}, tmp_path / "lost.safetensors")
    with pytest.raises(ModelError) as missing:
        import_model(tmp_path / "lost.safetensors", vocab, tmp_path / "out")
    assert all(name in str(missing.value) for name in lost)
    save_file({**weights, "vqa_head.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(ModelError, match=r"vqa_head\.weight"):
        import_model(tmp_path / "more.safetensors", vocab, tmp_path / "out")
    wrong = {n: t for n, t in weights.items() if n not in lost}
    wrong |= {"vqa_head.weight": torch.zeros(1), "vision_proj.bias": torch.zeros(3)}
    wrong["text_decoder.bert.encoder.layer.0.intermediate.dense.bias"] = torch.full((256,), 7.0)
    save_file(wrong, tmp_path / "all.safetensors")
    with pytest.raises(ModelError) as every:
        import_model(tmp_path / "all.safetensors", vocab, tmp_path / "out")
    for said in (
        *(f"missing: {name}" for name in lost),
        "has no place in a MED: vqa_head.weight",
        "vision_proj.bias is (3,), should be (",
        "text_decoder.bert.encoder.layer.0.intermediate.dense.bias",
    ):
        assert said in str(every.value)
    assert not (tmp_path / "out").exists()


def test_a_larger_picture_resizes_the_positions_bicubically(whole, vocab, tmp_path):
    export_original(whole, tmp_path / "med.pth")
    larger = import_model(tmp_path / "med.pth", vocab, tmp_path / "out", image_size=64)
    before, after = whole.vision.pos_embed, larger.vision.pos_embed
    assert after.shape == (1, 17, 64)
    assert torch.equal(before[:, 0], after[:, 0])
    grid = before[:, 1:].unflatten(1, (2, 2)).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(grid, size=(4, 4), mode="bicubic", align_corners=False)
    assert torch.equal(after[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2), wanted)
    assert larger.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 17, 64)


@pytest.mark.parametrize(
    ("part", "field", "value", "said"),
    [
        ("vision_config", "layer_norm_eps", 1e-4, "layer_norm_eps is 0.0001"),
        ("text_config", "num_attention_heads", 8, "BERT-base has 12"),
    ],
)
def test_the_known_traps_of_their_config_are_errors(captioner, tmp_path, part, field, value, said):
    folder = captioner[0]
    told = json.loads((folder / "config.json").read_text())
    told[part][field] = value
    (tmp_path / "config.json").write_text(json.dumps(told))
    weights = load_file(folder / "model.safetensors")
    if field == "num_attention_heads":
        width = 768
        words = "text_decoder.bert.embeddings.word_embeddings.weight"
        weights[words] = torch.zeros(len(WORDS) + 2, width)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=said):
        architecture(read(tmp_path))


def test_the_eps_that_published_folders_say_by_mistake_is_not_taken_at_its_word(captioner, tmp_path):
    """transformers' default, 1e-5, stands in them; the weights were trained with 1e-6, which every MED has."""
    folder, hf, ours = captioner
    told = json.loads((folder / "config.json").read_text())
    told["vision_config"]["layer_norm_eps"] = 1e-5
    (tmp_path / "config.json").write_text(json.dumps(told))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    again = build(read(tmp_path), ours.tokenizer, architecture(read(tmp_path)))
    assert parity.image_tokens(hf, again, parity.pixels()) < TOLERANCE
    assert again.vision.norm.eps == 1e-6


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/evil",)


def test_a_file_that_brings_code_is_refused(tmp_path):
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="weights alone"):
        read(tmp_path / "evil.pth")


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04cut"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "w.pth").write_bytes(content)
    for path in (tmp_path, tmp_path / "w.pth"):
        with pytest.raises(ModelError, match="cannot be read"):
            read(path)


@pytest.mark.parametrize("shared", ["all", "all_but_self_attention", "none"])
def test_a_part_of_a_model_says_what_the_whole_says_and_no_more(whole, tmp_path, shared):
    torch.manual_seed(3)
    med = MED(dataclasses.replace(whole.config, shared=shared), whole.tokenizer).eval()
    captioner, judge = med.only("captioner"), med.only("filter")
    tokens = med.tokenizer(["word1 word2", "word3"], max_tokens=8)
    image = med.encode_image(torch.randn(2, 3, 32, 32))
    assert torch.equal(captioner.decode(image, tokens), med.decode(image, tokens))
    assert torch.equal(judge.match(image, tokens), med.match(image, tokens))
    assert torch.equal(judge.embed_text(tokens), med.embed_text(tokens))
    judge.save(tmp_path / "judge")
    assert MED.load(tmp_path / "judge").config.holds == "filter"
    count = {m: sum(p.numel() for p in m.parameters()) for m in (captioner, judge, med)}
    assert count[captioner] < count[med] > count[judge]
    assert MED.new(tmp_path / "judge").config.holds == "both"
    with pytest.raises(ModelError, match="holds no filter"):
        captioner.only("filter")


def test_a_captioner_is_no_filter_and_the_other_way_round(captioner, judge):
    with pytest.raises(ModelError, match="is a captioner"):
        MEDFilter(captioner[2])
    with pytest.raises(ModelError, match="is a filter"):
        MEDCaptioner(judge[2], Writing())


def test_a_part_of_a_model_cannot_be_pretrained(captioner, tmp_path):
    with pytest.raises(ModelError, match="holds a captioner only"):
        train(TrainConfig(task="pretrain", init=str(captioner[0].with_name("ours-captioner")), out=str(tmp_path)))

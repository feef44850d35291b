"""What several tests share: pictures of coloured shapes, and a tiny model that can learn them."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw

COLOURS = {"red": (230, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 230), "black": (0, 0, 0)}
SHAPES = ("circle", "square")


def shape_picture(colour: str, shape: str, draw: random.Random, *, side: int = 32) -> bytes:
    picture = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(picture)
    x, y, e = draw.randrange(2, 10), draw.randrange(2, 10), draw.randrange(16, 21)
    box = (x, y, x + e, y + e)
    (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=COLOURS[colour])
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="session")
def tiny_architecture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.yaml and vocab.txt of a model that trains in seconds."""
    from capfilt.med.config import MEDConfig, TextConfig, VisionConfig
    from capfilt.med.tokenizer import MEDTokenizer

    folder = tmp_path_factory.mktemp("architecture")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", *COLOURS, *SHAPES, "on", "white"]
    tokenizer = MEDTokenizer(words)
    tokenizer.save(folder)
    MEDConfig(
        vision=VisionConfig(image_size=32, patch_size=8, width=64, depth=2, heads=2),
        text=TextConfig(vocab_size=tokenizer.size, width=64, depth=2, heads=2, ffn_width=128, max_positions=32),
        embed_dim=32,
    ).save(folder)
    return folder


@pytest.fixture(scope="session")
def still(tiny_architecture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny architecture without dropout, which every process draws for itself."""
    folder = tmp_path_factory.mktemp("still")
    data = yaml.safe_load((tiny_architecture / "model.yaml").read_text())
    data["text"]["dropout"] = 0.0
    (folder / "model.yaml").write_text(yaml.safe_dump(data))
    (folder / "vocab.txt").write_text((tiny_architecture / "vocab.txt").read_text())
    return folder


@pytest.fixture(scope="session")
def shape_shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """512 pictures of coloured shapes, each with a human caption and a web caption that the filter rejected."""
    from capfilt.shards.sample import Sample
    from capfilt.shards.tar import write_tar

    draw = random.Random(0)
    samples = []
    for i in range(512):
        colour, shape = draw.choice(list(COLOURS)), draw.choice(SHAPES)
        captions = [
            {"text": f"a {colour} {shape} on white", "origin": "human", "itm": None, "itc": None, "kept": True},
            {"text": "Image 4711", "origin": "web", "itm": 0.1, "itc": 0.0, "kept": False},
        ]
        samples.append(Sample(f"{i:06d}", shape_picture(colour, shape, draw), captions, {"id": str(i)}))
    file = tmp_path_factory.mktemp("shards") / "shapes-00000.tar"
    with file.open("wb") as out:
        write_tar(out, samples)
    return file

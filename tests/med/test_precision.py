"""What lower precision changes in captions, scores and verdicts of the embedded model, on real pictures."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from capfilt.catalog import model_folder, sample
from capfilt.med.captioner import MEDCaptioner
from capfilt.med.filter import MEDFilter
from capfilt.roles import Writing

FILES = sorted((sample() / "images").glob("*.[jp][pn]g"))


# A CPU without bfloat16 units takes half a minute for so few.
@pytest.mark.parametrize(
    ("dtype", "share", "some"),
    [(torch.int8, 0.99, 48), pytest.param(torch.bfloat16, 0.98, 16, marks=pytest.mark.slow)],
)
def test_verdicts_stay_and_scores_move_little(dtype: torch.dtype, share: float, some: int) -> None:
    count = 96
    files = FILES[:: len(FILES) // count][:count]
    pictures = [Image.open(file).convert("RGB") for file in files]
    names = [file.stem.replace("-", " ").replace("_", " ") for file in files]
    # Each picture with its own name and with another's: scores near either end, and some between.
    texts = [[name, names[(at + 1) % count]] for at, name in enumerate(names)]
    filters = [MEDFilter.load(model_folder("med-mini/filter"), dtype=kind) for kind in (torch.float32, dtype)]
    exact, near = ([score.itm for row in one.score(pictures, texts) for score in row] for one in filters)
    moved = [abs(a - b) for a, b in zip(exact, near, strict=True)]
    agree = [(a >= 0.5) == (b >= 0.5) for a, b in zip(exact, near, strict=True)]
    assert sum(agree) >= share * len(agree)
    assert 0 < sum(moved) / len(moved) < 0.01
    writers = [
        MEDCaptioner.load(model_folder("med-mini/captioner"), Writing(beams=1), dtype=kind)
        for kind in (torch.float32, dtype)
    ]
    written = [one.write(pictures[:some], [[at] for at in range(some)]) for one in writers]
    same = sum(a == b for a, b in zip(*written, strict=True))
    assert same >= 0.8 * some

"""The filter's scores do not depend on how many texts a picture or its neighbours have."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from capfilt.catalog import model_folder, sample
from capfilt.med.filter import MEDFilter

FILES = sorted((sample() / "images").glob("*.[jp][pn]g"))[:6]
TEXTS = ("a red car", "an old map of a harbor with several boats", "horse", "two dogs on a sofa in the evening sun")


@pytest.fixture(scope="module")
def judge() -> MEDFilter:
    torch.manual_seed(0)
    return MEDFilter.load(model_folder("med-mini/filter"))


@pytest.mark.parametrize("counts", [(2, 2, 2, 2, 2, 2), (2, 2, 1, 2, 2, 2), (4, 0, 1, 0, 1, 1), (0, 0, 0, 0, 0, 1)])
def test_scores_are_those_of_each_pair_alone(judge: MEDFilter, counts: tuple[int, ...]) -> None:
    pictures = [Image.open(file).convert("RGB") for file in FILES]
    texts = [TEXTS[:count] for count in counts]
    found = judge.score(pictures, texts)
    assert [len(row) for row in found] == list(counts)
    for picture, said, row in zip(pictures, texts, found, strict=True):
        for text, score in zip(said, row, strict=True):
            ((alone,),) = judge.score([picture], [[text]])
            assert score.itm == pytest.approx(alone.itm, abs=1e-4)
            assert score.itc == pytest.approx(alone.itc, abs=1e-4)


def test_no_text_no_score(judge: MEDFilter) -> None:
    assert judge.score([], []) == []
    assert judge.score([Image.new("RGB", (9, 9))] * 2, [[], []]) == [[], []]

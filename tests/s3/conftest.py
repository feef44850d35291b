"""A real S3 service for the tests of a session, and a bucket for each of them."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import pytest

from tests.s3.service import Service


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    if find_spec("swift") is None:
        pytest.skip("needs the package swift")
    folder = tmp_path_factory.mktemp("swift")
    try:
        os.setxattr(folder, "user.capfilt", b"1")  # where Swift keeps what it knows of an object
    except OSError:
        pytest.skip("needs a file system with extended attributes")
    service = Service(folder)
    service.start()
    yield service
    service.kill()
    shutil.rmtree(service.root)


@pytest.fixture
def bucket(service, monkeypatch, request):
    """The name of a new bucket; credentials stand in the environment, where the usual chain finds them."""
    import s3fs

    for variable, value in service.environment().items():
        monkeypatch.setenv(variable, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    s3fs.S3FileSystem().mkdir(name)
    yield name
    s3fs.S3FileSystem.clear_instance_cache()
